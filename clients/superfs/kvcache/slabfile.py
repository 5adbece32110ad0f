"""The slab of a data daemon on this host, opened by who may open it (its owner and root).

System calls only, also into the mapping: the daemon may make the file anew, and a page that is not
there any more would be SIGBUS to whoever touches it. What comes back short is caught by the
checksum."""

from __future__ import annotations

import logging
import os
import struct
from typing import TYPE_CHECKING

from superfs.rpc.window import Window

if TYPE_CHECKING:
    Memory = bytearray | memoryview

log = logging.getLogger("superfs.kvcache")

_ID = struct.Struct("<Q")


class SlabFile:
    def __init__(self, fd: int, path: str, slab_id: int, size: int) -> None:
        """Use `open`."""
        self._fd = fd
        self.path = path
        self.id = slab_id
        self._window: Window | None = None
        try:
            self._window = Window(fd, size)
        except OSError as error:
            log.info("blocks are stored by one thread at a time: %s", error)

    @classmethod
    def open(cls, path: str, slab_id: int) -> SlabFile | None:
        """None: it is not on this host, or may not be opened."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        size = os.fstat(fd).st_size
        if size < _ID.size or os.pread(fd, _ID.size, size - _ID.size) != _ID.pack(slab_id):
            os.close(fd)
            return None
        return cls(fd, path, slab_id, size)

    def reader(self) -> int:
        """A descriptor to read it, for whoever it is passed to; the caller's. -1: it is gone."""
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return -1

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
        os.close(self._fd)

    def read_into(self, buffer: Memory, offset: int) -> None:
        os.preadv(self._fd, [buffer], offset)

    def write(self, data: memoryview, offset: int) -> None:
        """OSError when it does not fit."""
        if self._window is not None:
            self._window.write(data, offset)
            return
        written = os.pwrite(self._fd, data, offset)
        if written != len(data):
            raise OSError("the slab has no room for it")
