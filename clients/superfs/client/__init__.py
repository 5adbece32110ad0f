"""SDK of SuperFS: the same names and bytes as through a mount, without the mount.

`FileSystem` is the blocking, path-level API, `AsyncFileSystem` the same for trio. `Connection` and
what hangs on it speak in inodes and raise `FsError`; the mount is built on them.

A program that moves large files and little else may call `keep_large_buffers` first thing: it sets
malloc so that the memory of a large message is used again instead of being mapped anew. The library
itself leaves such settings alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superfs.client.aio import AsyncFileSystem
    from superfs.client.config import ClientConfig
    from superfs.client.connection import Connection
    from superfs.client.file import OpenInode
    from superfs.client.fs import FileSystem
    from superfs.rpc.memory import keep_large_buffers

__all__ = [
    "AsyncFileSystem",
    "ClientConfig",
    "Connection",
    "FileSystem",
    "OpenInode",
    "keep_large_buffers",
]
_HOMES = {
    "AsyncFileSystem": "superfs.client.aio",
    "ClientConfig": "superfs.client.config",
    "Connection": "superfs.client.connection",
    "FileSystem": "superfs.client.fs",
    "OpenInode": "superfs.client.file",
    "keep_large_buffers": "superfs.rpc.memory",
}


def __getattr__(name: str) -> object:
    """Imported when it is asked for: a program that only looks at mounts needs no gRPC."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
