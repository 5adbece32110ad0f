"""Side files: what functions need besides rows (a tokenizer, a list of domains, a model).

Every node has each of them once, under the digest of its content, however many processes and jobs
use it and under whatever name; it is fetched by the first one that asks. Functions get a
`SideFile`, which goes to other processes as a few words, and open its `path` there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu.errors import RuntimeException
from superfs.chukonu.sources.store import LocalStore, store_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from superfs.chukonu.sources.store import Store

PIECE_BYTES = 4 << 20
CACHE_BYTES = 16 << 30
"""Of a node's cache, what is kept when another file comes; the least recently used go."""


@dataclass(frozen=True)
class SideFile:
    source: str
    options: tuple[tuple[str, str], ...]
    size: int
    digest: str
    folder: str
    """Of the cache, on every node; "": the file is in a directory that every worker sees."""

    @property
    def path(self) -> str:
        """A file of this machine with its content. OSError, or RuntimeException when the source
        has another content by now."""
        if not self.folder:
            return self.source
        return fetched(self)


def side_file(path: str, options: Mapping[str, Any], folder: str | None) -> SideFile:
    """Reads it once, for its digest. `folder`: of the cache. OSError."""
    store = store_for(path, options)
    found = [file for file in store.files(path) if file.path == path]
    if len(found) != 1:
        raise IsADirectoryError(21, "a side file is one file", path)
    digest, size = hashlib.blake2b(digest_size=20), 0
    for piece in _pieces(store, path):
        digest.update(piece)
        size += len(piece)
    here = isinstance(store, LocalStore) and store.way == "directory"
    usual = os.path.join(tempfile.gettempdir(), f"chukonu-side-{os.geteuid()}")
    known = tuple(sorted((key, str(value)) for key, value in options.items()))
    return SideFile(path, known, size, digest.hexdigest(), "" if here else folder or usual)


def _pieces(store: Store, path: str) -> Iterator[bytes]:
    place = 0
    while piece := store.read(path, place, PIECE_BYTES):
        yield piece
        place += len(piece)


def fetched(wanted: SideFile) -> str:
    """Where it is on this node; brought there first if nobody has."""
    os.makedirs(wanted.folder, mode=0o700, exist_ok=True)
    about = os.lstat(wanted.folder)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise PermissionError(
            13, "a cache of side files that others can write to (chukonu.side.dir)", wanted.folder
        )
    final = os.path.join(wanted.folder, wanted.digest)
    with contextlib.suppress(FileNotFoundError):
        os.utime(final)
        return final
    with open(f"{final}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(final):
            _make_room(wanted.folder, wanted.size)
            _fetch(wanted, final)
        with contextlib.suppress(FileNotFoundError):  # another one did
            os.unlink(lock.name)
    return final


def _fetch(wanted: SideFile, final: str) -> None:
    store = store_for(wanted.source, dict(wanted.options))
    digest = hashlib.blake2b(digest_size=20)
    handle, temporary = tempfile.mkstemp(prefix=".", dir=wanted.folder)
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in _pieces(store, wanted.source):
                digest.update(piece)
                file.write(piece)
            os.fchmod(file.fileno(), 0o444)
        if digest.hexdigest() != wanted.digest:
            raise RuntimeException(
                "CHUKONU_SIDE_FILE_CHANGED", f"{wanted.source} has changed since the job began"
            )
        os.rename(temporary, final)
    except BaseException:
        os.unlink(temporary)
        raise


def _make_room(folder: str, size: int) -> None:
    """Who has a file open that goes keeps it; who asks for it again gets it again."""
    known = []
    for entry in os.scandir(folder):
        if not entry.name.startswith(".") and not entry.name.endswith(".lock"):
            found = entry.stat()
            known.append((found.st_mtime_ns, found.st_size, entry.path))
    total = size + sum(one for _, one, _ in known)
    for _, one, path in sorted(known):
        if total <= CACHE_BYTES:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        total -= one
