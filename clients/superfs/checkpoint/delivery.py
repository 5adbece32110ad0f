"""The writer process: takes bytes from the arena, hashes them, writes them, says so.

Started by `courier.Courier` with the number of its socket. One request a line, one answer a line:

    {"do": "arena", "bytes": n} + descriptor                       {}
    {"do": "deliver", "path", "io", "new", "size", "spans": [[arena, file, bytes]...], "durable"}
                                           {"hashes": [[...] of each span], "way": [name, why]}

An answer with "errno" or "code" is an error. It ends with its socket, which is when the trainer
closes it or dies; what it was writing then never becomes a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superfs.checkpoint.blocks import BlockWriter
from superfs.checkpoint.directory import open_sink
from superfs.core.errors import FsError

if TYPE_CHECKING:
    from superfs.checkpoint.extentio import Way

PARENT_CHECK_S = 1.0
NICE = 5
"""Training comes first where there are no cores to spare: a third of its share is left."""


class Arena:
    def __init__(self) -> None:
        self.view = memoryview(b"")
        self._map: mmap.mmap | None = None

    def replace(self, fd: int, size: int) -> None:
        self.view.release()
        if self._map is not None:
            self._map.close()
        self._map = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        self.view = memoryview(self._map)
        os.close(fd)


def deliver(
    arena: Arena, path: str, spans: list[list[int]], *, io: str, new: bool, size: int, durable: bool
) -> tuple[list[list[int]], Way]:
    sink = open_sink(Path(path), io=io, new=new, durable=durable, size=size)
    try:
        out = BlockWriter(sink, 0 if new else spans[0][1])
        hashes = [out.write(arena.view[at : at + size], offset) for at, offset, size in spans]
        out.flush()
        if durable:
            sink.sync()
        return hashes, sink.way
    finally:
        sink.close()


def serve(connection: socket.socket) -> None:
    arena = Arena()
    waiting, fds = b"", list[int]()
    while True:
        while b"\n" not in waiting:
            data, passed, _, _ = socket.recv_fds(connection, 1 << 20, 4)
            fds += passed
            if not data:
                return
            waiting += data
        line, waiting = waiting.split(b"\n", 1)
        answer = json.dumps(_answer(arena, json.loads(line), fds), separators=(",", ":"))
        connection.sendall(answer.encode() + b"\n")


def _answer(arena: Arena, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    try:
        if request["do"] == "arena":
            arena.replace(fds.pop(0), request["bytes"])
            return {}
        how = {name: request[name] for name in ("io", "new", "size", "durable")}
        hashes, way = deliver(arena, request["path"], request["spans"], **how)
        return {"hashes": hashes, "way": [way.name, way.why]}
    except FsError as error:
        return {"code": int(error.code), "detail": error.detail}
    except OSError as error:
        return {"errno": error.errno or 5, "path": request.get("path", "")}


def _end_with(parent: int) -> None:
    """Children that the trainer forked may hold the other end of the socket when it is dead."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def main() -> None:
    os.nice(NICE)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    quiet = contextlib.suppress(ConnectionError, KeyboardInterrupt)
    with socket.socket(fileno=int(sys.argv[1])) as connection, quiet:
        serve(connection)


if __name__ == "__main__":
    main()
