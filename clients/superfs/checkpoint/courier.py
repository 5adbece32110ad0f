"""The writer process and the memory through which it gets its bytes: the trainer's side.

The arena is a memfd that both map: it grows to what a save needs, within its limit, and is used
again by every later save. The process imports neither torch nor the program that it serves, and
ends when its socket does.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import torch

from superfs.checkpoint.extentio import Way
from superfs.checkpoint.limits import ARENA_BYTES_MIN, ARENA_STEP_BYTES
from superfs.core.errors import Code, FsError, known_code

if TYPE_CHECKING:
    from collections.abc import Sequence

Span = tuple[int, int, int]
"""(offset in the arena, offset in the file, bytes)"""


class Courier:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "superfs.checkpoint.delivery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours
        self._replies = ours.makefile("rb")
        self._lock = threading.Lock()
        self._memfd = -1
        self._map: mmap.mmap | None = None
        self._arena = torch.empty(0, dtype=torch.uint8)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def arena_bytes(self) -> int:
        return self._arena.numel()

    @property
    def staged(self) -> torch.Tensor:
        return self._arena

    def arena(self, size: int, limit: int | None, sharers: int) -> torch.Tensor:
        """Memory that the writer process sees too: for `size` bytes, or as much as `limit` allows
        (None: half of what is free, of which `sharers` have each their part)."""
        if size > self.arena_bytes:
            if limit is None:
                limit = self.arena_bytes + _free_bytes() // 2 // sharers
            room = -(-size // ARENA_STEP_BYTES) * ARENA_STEP_BYTES
            room = min(room, max(size, limit), max(limit, ARENA_BYTES_MIN))
            if room > self.arena_bytes:
                self._grow(room)
        return self._arena

    def _grow(self, size: int) -> None:
        self._drop_arena()
        self._memfd = os.memfd_create("superfs-checkpoint-arena", os.MFD_CLOEXEC)
        os.ftruncate(self._memfd, size)
        self._map = mmap.mmap(self._memfd, size)
        with contextlib.suppress(OSError):  # fewer page faults and misses, where that is allowed
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._arena = torch.frombuffer(self._map, dtype=torch.uint8)
        with self._lock:
            self._send({"do": "arena", "bytes": size}, [self._memfd])
            self._receive()

    def deliver(
        self, where: tuple[str, str], spans: Sequence[Span], *, new: bool, size: int, durable: bool
    ) -> tuple[list[list[int]], Way]:
        """Writes from the arena to a file (path, io), which is `new` and is to have that size in
        the end, or was begun by an earlier call; the hashes of the blocks of each span, and how it
        was written."""
        path, io = where
        request = {"do": "deliver", "path": path, "io": io, "new": new, "size": size}
        request |= {"spans": spans, "durable": durable}
        with self._lock:
            self._send(request)
            reply = self._receive()
        return list(reply["hashes"]), Way(*reply["way"])

    def _send(self, request: dict[str, Any], fds: Sequence[int] = ()) -> None:
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        try:
            sent = socket.send_fds(self._socket, [line], list(fds)) if fds else 0
            self._socket.sendall(line[sent:])
        except OSError as error:
            raise self._gone() from error

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._replies.readline()
        except OSError as error:
            raise self._gone() from error
        if not line.endswith(b"\n"):
            raise self._gone()
        reply: dict[str, Any] = json.loads(line)
        if "code" in reply:
            raise FsError(known_code(reply["code"]), reply["detail"])
        if "errno" in reply:
            raise OSError(reply["errno"], os.strerror(reply["errno"]), reply["path"])
        return reply

    def _gone(self) -> FsError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return FsError(Code.IO, f"the writer process has ended ({self._process.returncode})")

    def _drop_arena(self) -> None:
        self._arena = torch.empty(0, dtype=torch.uint8)
        if self._map is not None:
            with contextlib.suppress(BufferError):  # somebody still looks at it
                self._map.close()
            self._map = None
            os.close(self._memfd)

    def close(self) -> None:
        self._replies.close()
        self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._drop_arena()


def _free_bytes() -> int:
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
