"""SDK of SuperFS: the same names and bytes as through a mount, without the mount.

`Connection` and what hangs on it speak in inodes and raise `FsError`; the mount is built on them.
"""

from superfs.client.config import ClientConfig
from superfs.client.connection import Connection
from superfs.client.file import OpenInode

__all__ = ["ClientConfig", "Connection", "OpenInode"]
