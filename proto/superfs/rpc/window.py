"""A file that processes share, in this one's address space, where the kernel alone touches it.

A file takes one `pwrite` at a time, however many processors and writers there are; mapped memory
takes all at once. But who touches mapped memory whose file was cut short dies of SIGBUS. So nobody
here does: bytes go there from elsewhere in this process by `process_vm_writev`, to which a page
that is not there is an error (EFAULT) like any other.

The mapping begins where a page of 2 MiB may begin. `gather` has the kernel make such pages of the
file's small ones (MADV_COLLAPSE, Linux 6.1): they are written and read faster, by everybody.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from typing import TYPE_CHECKING

from superfs.core.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

HUGE_BYTES = 2 * MIB
_MADV_COLLAPSE = 25
_MAP_FIXED = 0x10
_PROT_NONE = 0
_FAILED = ctypes.c_void_p(-1).value


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Buffer(ctypes.Structure):
    """Py_buffer, of CPython's stable ABI."""

    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_copy = getattr(_libc, "process_vm_writev", None)
if _copy is not None:
    _copy.restype = ctypes.c_ssize_t
    _copy.argtypes = (
        ctypes.c_int, ctypes.POINTER(_IoVec), ctypes.c_ulong, ctypes.POINTER(_IoVec),
        ctypes.c_ulong, ctypes.c_ulong,
    )  # fmt: skip
_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None


class Window:
    """Onto the first `size` bytes of a file. Not to be closed while another thread writes."""

    def __init__(self, descriptor: int, size: int) -> None:
        """OSError where it cannot be had, or where the system allows no such copies."""
        self.size = size
        self._reserved = size + HUGE_BYTES
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._start = _map(None, self._reserved, _PROT_NONE, flags, -1)
        self._base = -(-self._start // HUGE_BYTES) * HUGE_BYTES
        try:
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            _map(self._base, size, protection, mmap.MAP_SHARED | _MAP_FIXED, descriptor)
            _probe()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._base:
            self._base = 0
            _libc.munmap(self._start, self._reserved)

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """All of it, or OSError. Any thread; the interpreter goes on meanwhile."""
        with _address(data) as (start, length):
            if not self._base or offset < 0 or offset + length > self.size:
                raise OSError(errno.ENOSPC, "outside of the window")
            _copy_to(self._base + offset, start, length)

    def gather(self, offset: int, length: int) -> None:
        """Large pages of so much of it, where it is a multiple of them. OSError: not all."""
        if not self._base or offset % HUGE_BYTES or offset + length > self.size:
            raise OSError(errno.EINVAL, "outside of the window")
        if _libc.madvise(self._base + offset, length // HUGE_BYTES * HUGE_BYTES, _MADV_COLLAPSE):
            raise _error()


@contextlib.contextmanager
def _address(data: bytes | bytearray | memoryview) -> Iterator[tuple[int, int]]:
    """Where it is, and how many bytes; it stays there meanwhile."""
    view = _Buffer()
    _get_buffer(data, ctypes.byref(view), 0)
    try:
        yield view.buf or 0, view.len
    finally:
        _release_buffer(ctypes.byref(view))


def _copy_to(target: int, source: int, length: int) -> None:
    if _copy is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    mine, there = _IoVec(source, length), _IoVec(target, length)
    done = _copy(os.getpid(), ctypes.byref(mine), 1, ctypes.byref(there), 1, 0)
    if done < 0:
        raise _error()
    if done != length:
        raise OSError(errno.EFAULT, "only a part of it could be copied")


def _probe() -> None:
    """Within buffers of its own: some sandboxes forbid the call."""
    word = (ctypes.c_char * 8)()
    with _address(b"whatever") as (source, length):
        _copy_to(ctypes.addressof(word), source, length)


def _map(start: int | None, size: int, protection: int, flags: int, descriptor: int) -> int:
    found = _libc.mmap(start, size, protection, flags, descriptor, 0)
    if found == _FAILED or found is None:
        raise _error()
    return int(found)


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
