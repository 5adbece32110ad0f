"""Which names an entry may have."""

from __future__ import annotations

from superfs.core.errors import Code, FsError
from superfs.core.limits import NAME_BYTES_MAX

_DOTS = (b".", b"..")


def check_name(name: bytes) -> None:
    if len(name) > NAME_BYTES_MAX:
        raise FsError(Code.NAME_TOO_LONG, f"{len(name)} bytes")
    if not name or name in _DOTS or b"/" in name or b"\0" in name:
        raise FsError(Code.INVALID, f"not a name: {name!r}")
