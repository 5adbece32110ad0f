"""The key of the cluster on disk: 64 hexadecimal digits, 0600, known to daemons only."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.tokens import KEY_BYTES, format_key, parse_key
from superfs.daemon.statedir import check_private, write_private

if TYPE_CHECKING:
    from pathlib import Path


def read_key(path: Path) -> bytes:
    check_private(path)
    try:
        return parse_key(path.read_text("ascii"))
    except (ValueError, UnicodeDecodeError):
        raise FsError(
            Code.DAMAGED, f"{path}: not a cluster key: 64 hexadecimal digits expected"
        ) from None


def make_key(path: Path) -> None:
    """A fresh key, unless there is a file: a key in use is never replaced."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, format_key(secrets.token_bytes(KEY_BYTES)).encode())
