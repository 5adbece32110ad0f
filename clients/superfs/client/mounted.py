"""Mounts of this machine as others see them: which one a path is in, and the cluster behind it.

Whoever may look into a mount's window (its user, or root) may read its token file too: such a
program can reach the same daemons past the mount. Everybody else goes through it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superfs.client import windows
from superfs.client.config import ClientConfig
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 1 << 20
_last: dict[Path, Path] = {}  # the window of each mount that was asked for
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    path: Path
    kind: str  # "fuse.superfs", "ext4", ...
    source: str
    device: int = 0
    root: str = "/"  # what of the file system is there: another than "/" where it is bound

    @property
    def is_superfs(self) -> bool:
        return self.kind == "fuse.superfs" or (self.kind == "fuse" and self.source == "superfs")


def mount_table() -> list[Mounted]:
    """In the order of mounting: of several on one place the last one is seen."""
    return [_parse(line) for line in Path("/proc/self/mountinfo").read_bytes().splitlines() if line]


def _parse(line: bytes) -> Mounted:
    before, _, after = line.partition(b" - ")
    kind, source, *_ = after.split(b" ")
    fields = before.split(b" ")
    major, minor = fields[2].split(b":")
    return Mounted(
        Path(os.fsdecode(_unescape(fields[4]))),
        kind.decode(),
        os.fsdecode(_unescape(source)),
        os.makedev(int(major), int(minor)),
        os.fsdecode(_unescape(fields[3])),
    )


def _unescape(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)


@dataclass(frozen=True, slots=True)
class Behind:
    """A SuperFS mount, and how its cluster is reached."""

    mountpoint: Path
    device: int
    subdir: str
    config: ClientConfig

    def path_of(self, path: Path) -> str:
        """A path in the mount, as its cluster knows it."""
        return os.path.join(self.subdir, path.relative_to(self.mountpoint))


def mount_of(directory: Path) -> Mounted | None:
    """The SuperFS mount that an existing directory is in; None: it is in another file system.
    `directory` has no symbolic links in it. OSError."""
    device = directory.stat().st_dev
    over = (m for m in mount_table() if directory.is_relative_to(m.path) and m.device == device)
    found = max(over, key=lambda m: len(m.path.parts), default=None)
    return found if found is not None and found.is_superfs else None


def behind(mounted: Mounted) -> Behind:
    """FsError NOT_SUPPORTED says why its cluster cannot be reached past it."""
    if mounted.root != "/":
        raise FsError(Code.NOT_SUPPORTED, f"{mounted.path} is bound from within a mount")
    number = f"{os.major(mounted.device)}:{os.minor(mounted.device)}"
    for path, said in _answers(mounted.path):
        if (said.get("mountpoint"), said.get("device")) != (str(mounted.path), number):
            continue
        _last[mounted.path] = path
        token = Path(said["token_file"])
        if not os.access(token, os.R_OK):
            raise FsError(Code.NOT_SUPPORTED, f"the token file {token} cannot be read here")
        config = ClientConfig(
            tuple(said["cluster"]),
            token,
            client_name="past a mount",
            drop_behind=bool(said.get("drop_behind", True)),
        )
        return Behind(mounted.path, mounted.device, said["subdir"], config)
    raise FsError(
        Code.NOT_SUPPORTED,
        f"the mount at {mounted.path} does not say to this user which cluster it is of: "
        "be root or the user who mounted it",
    )


def _answers(mountpoint: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Of each mount that may be asked; the one that was this one the last time comes first: one
    that is stuck is waited for."""
    for path in sorted(windows.all_sockets(), key=lambda path: path != _last.get(mountpoint)):
        with contextlib.suppress(OSError, ValueError):
            yield path, _ask(path)


def _ask(path: Path) -> dict[str, Any]:
    with windows.connect(path, TIMEOUT_S) as connection:
        connection.sendall(b'{"ask": "stats"}\n')
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < ANSWER_BYTES_MAX:
            more = connection.recv(1 << 16)
            if not more:
                break
            answer += more
    found = json.loads(answer)
    return found if isinstance(found, dict) else {}
