"""SDK of SuperFS: the same names and bytes as through a mount, without the mount.

`FileSystem` is the blocking, path-level API, `AsyncFileSystem` the same for trio, which is
imported with it and not before. `Connection` and what hangs on it speak in inodes and raise
`FsError`; the mount is built on them.

A program that moves large files and little else may call `keep_large_buffers` first thing: it sets
malloc so that the memory of a large message is used again instead of being mapped anew. The library
itself leaves such settings alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.client.config import ClientConfig
from superfs.client.connection import Connection
from superfs.client.file import OpenInode
from superfs.client.fs import FileSystem
from superfs.rpc.memory import keep_large_buffers

if TYPE_CHECKING:
    from superfs.client.aio import AsyncFileSystem

__all__ = [
    "AsyncFileSystem",
    "ClientConfig",
    "Connection",
    "FileSystem",
    "OpenInode",
    "keep_large_buffers",
]


def __getattr__(name: str) -> object:
    if name == "AsyncFileSystem":
        from superfs.client.aio import AsyncFileSystem

        return AsyncFileSystem
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
