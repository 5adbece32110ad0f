"""SDK of SuperFS: the same names and bytes as through a mount, without the mount.

`FileSystem` is the blocking, path-level API; `superfs.client.aio.AsyncFileSystem` the same for
trio. `Connection` and what hangs on it speak in inodes and raise `FsError`; the mount is built on
them.
"""

from superfs.client.config import ClientConfig
from superfs.client.connection import Connection
from superfs.client.file import OpenInode
from superfs.client.fs import FileSystem

__all__ = ["ClientConfig", "Connection", "FileSystem", "OpenInode"]
