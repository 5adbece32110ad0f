"""Whether bytes of a file are in this host's memory, where reads cannot say so (FUSE, NFS)."""

from __future__ import annotations

import ctypes
import mmap
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_FAILED = ctypes.c_void_p(-1).value


def resident(fd: int, offset: int, length: int) -> bool:
    """Asks for the pages of a mapping that nobody touches. The kernel tells this only to who owns
    the file or may write it, and lets all others believe that it is: they are told False."""
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() and not os.access(f"/proc/self/fd/{fd}", os.W_OK):
        return False
    start = offset - offset % mmap.PAGESIZE
    size = offset + length - start
    pages = -(-size // mmap.PAGESIZE)
    where = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, start)
    if where == _FAILED:
        return False
    try:
        there = ctypes.create_string_buffer(pages)
        return _libc.mincore(where, size, there) == 0 and all(one & 1 for one in there.raw)
    finally:
        _libc.munmap(where, size)
