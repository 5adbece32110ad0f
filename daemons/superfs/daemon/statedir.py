"""A daemon's state directory: who may use it, and whose data it holds.

`lock`      held with flock for as long as the daemon runs: two never share a state directory
`identity`  JSON with a checksum, written once by `--format`, the last thing formatting does:

    {"cluster_id": "…", "role": "metad", "node_id": 1, "format": 1, "crc32": "…"}

Nothing is ever created over an existing identity, and without one no daemon starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    cluster_id: str
    role: str  # "clusterd", "metad", "datad"
    node_id: int
    format: int  # version of what lies on disk, counted by each role


class AlreadyRunning(Exception):
    """Another process holds the lock."""


class StateDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def create(self) -> None:
        """For formatting only: the directory exists afterwards, 0700, with no identity in it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if identity_path(self.path).exists():
            raise FsError(
                Code.WRONG_IDENTITY,
                f"{self.path} is formatted already; nothing was changed. To start from nothing, "
                "remove the directory first (all its data is lost)",
            )

    def acquire(self) -> None:
        """Locks the directory until `release` or the end of the process."""
        check_private(self.path, directory=True)
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise AlreadyRunning(
                f"{self.path} is in use by another daemon; stop it first, or give this one a "
                "state_dir of its own"
            ) from None

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def identity_path(state_dir: Path) -> Path:
    return state_dir / "identity"


def read_identity(state_dir: Path, *, role: str, node_id: int, format_version: int) -> Identity:
    """WRONG_IDENTITY, BAD_FORMAT or DAMAGED unless the directory is this daemon's own."""
    path = identity_path(state_dir)
    try:
        raw = path.read_bytes()[: IDENTITY_BYTES_MAX + 1]
    except FileNotFoundError:
        raise FsError(
            Code.WRONG_IDENTITY,
            f"{state_dir} is not formatted: {path} does not exist. A new daemon is formatted "
            "once with --format; if this one held data, its state_dir is wrong or not mounted",
        ) from None
    identity = _parse(raw, path)
    if identity.format != format_version or identity.role != role:
        raise FsError(
            Code.BAD_FORMAT if identity.role == role else Code.WRONG_IDENTITY,
            f"{path}: holds {identity.role} format {identity.format}, this program needs "
            f"{role} format {format_version}; nothing was changed",
        )
    if identity.node_id != node_id:
        raise FsError(
            Code.WRONG_IDENTITY,
            f"{path}: belongs to node {identity.node_id}, the configuration says node {node_id}",
        )
    return identity


def write_identity(state_dir: Path, identity: Identity) -> None:
    """Durable when it returns. Refuses to replace one."""
    path = identity_path(state_dir)
    body = asdict(identity)
    body["crc32"] = _checksum(body)
    fresh = state_dir / "identity.new"
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(json.dumps(body) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise FsError(Code.WRONG_IDENTITY, f"{path} exists already; nothing was changed") from None
    finally:
        fresh.unlink()
    sync_directory(state_dir)


def sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def check_private(path: Path, *, directory: bool = False) -> None:
    """WRONG_IDENTITY unless only its owner, who is us or root, can use it."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        hint = "; a new daemon is formatted once with --format" if directory else ""
        raise FsError(Code.WRONG_IDENTITY, f"{path} does not exist{hint}") from None
    except OSError as error:
        raise FsError(Code.WRONG_IDENTITY, f"{path}: {error.strerror}") from None
    if directory and not stat.S_ISDIR(found.st_mode):
        raise FsError(Code.WRONG_IDENTITY, f"{path} is not a directory")
    if found.st_uid not in (0, os.geteuid()):
        raise FsError(Code.WRONG_IDENTITY, f"{path} belongs to uid {found.st_uid}, not to us")
    if found.st_mode & 0o077:
        want = "0700" if directory else "0600"
        raise FsError(Code.WRONG_IDENTITY, f"{path} is open to others; run: chmod {want} {path}")


def write_private(path: Path, contents: bytes) -> None:
    """A new file, 0600, durable; FileExistsError if there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    sync_directory(path.parent)


def _parse(raw: bytes, path: Path) -> Identity:
    damaged = FsError(
        Code.DAMAGED,
        f"{path} is damaged; restore it from a backup of the state directory. "
        "Formatting anew would lose the data",
    )
    try:
        body = json.loads(raw)
        checksum = body.pop("crc32")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged from None
    if checksum != _checksum(body):
        raise damaged
    version = body.get("format")
    try:
        return Identity(**body)
    except TypeError:
        raise FsError(
            Code.BAD_FORMAT, f"{path}: format {version} is of another version of the program"
        ) from None


def _checksum(body: dict[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(body, sort_keys=True).encode()):08x}"
