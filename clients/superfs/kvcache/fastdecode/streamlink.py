"""To an R-worker on another host: one stream, a mini-batch a message."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from superfs.core.errors import Code, FsError, known_code
from superfs.kvcache.fastdecode.form import Area, Form, Memory
from superfs.kvcache.fastdecode.frames import (
    HEAD_BYTES,
    introduce,
    receive_head,
    receive_into,
    send_frame,
    split_address,
)
from superfs.kvcache.fastdecode.link import CONNECT_S, OPEN_S, Areas, Counters, opening_of
from superfs.v1 import fastdecode_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.kvcache.fastdecode.link import Blocks


class StreamLink:
    """A thread of its own sends, so that the weights go on while rows are on their way."""

    local = False

    def __init__(
        self, address: str, form: Form, *, secret: bytes, rows: int, minis: int, slots: int,
        tokens_max: int, memory_bytes: int = 0, patience_s: float = 5.0, open_s: float = OPEN_S,
    ) -> None:  # fmt: skip
        """`address`: HOST:PORT. As `SharedLink`; UNAUTHENTICATED: either has another secret."""
        self.name = address
        self.again = partial(
            StreamLink, address, form, secret=secret, rows=rows, minis=minis, slots=slots,
            tokens_max=tokens_max, memory_bytes=memory_bytes, patience_s=patience_s,
            open_s=patience_s,
        )  # fmt: skip
        self.counters = Counters()
        self._patience_s = patience_s
        area = Area(form, rows, minis)
        area.check()
        self._memory: Memory = np.zeros(area.size, np.uint8)
        self._areas = Areas(area, self._memory)
        self._done: dict[int, pb.RwDone] = {}
        self._rows = [0] * minis
        self._broken: OSError | None = None
        self._outgoing: queue.SimpleQueue[tuple[bytes, list[Memory]] | None] = queue.SimpleQueue()
        self._socket = self._connected(address, secret)
        self._sender = threading.Thread(target=self._send_all, name="rows")
        self._sender.start()
        try:
            opening = opening_of(
                form, rows=rows, minis=minis, slots=slots, tokens_max=tokens_max,
                memory_bytes=memory_bytes,
            )  # fmt: skip
            self._send(pb.RwRequest(open=opening))
            opened = self._receive(open_s).opened
        except FsError:
            self.close()
            raise
        self.capacity_tokens = opened.capacity_tokens
        self._alive_every_s = opened.lease_s / 4

    @staticmethod
    def _connected(address: str, secret: bytes) -> socket.socket:
        found: socket.socket | None = None
        try:
            found = socket.create_connection(split_address(address), CONNECT_S)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            introduce(found, secret)
        except (OSError, FsError) as error:
            if found is not None:
                found.close()
            if isinstance(error, FsError):
                raise FsError(error.code, f"R-worker {address}: {error.detail}") from None
            raise FsError(Code.UNAVAILABLE, f"no R-worker at {address}: {error}") from None
        return found

    def fill(self, slot: int, layer: int, first: int, k: Any, v: Any) -> None:  # noqa: ANN401
        area = self._areas.area
        step, width = area.fill_tokens, 2 * area.form.key_bytes
        for at in range(0, len(k), step):
            part = len(k[at : at + step])
            self._areas.fill(k[at : at + step], v[at : at + step])
            fill = pb.RwFill(slot=slot, layer=layer, first=first + at, count=part)
            start = area.fill_offset
            self._send(pb.RwRequest(fill=fill), [self._memory[start : start + part * width]])
            while (reply := self._receive(self._patience_s)).HasField("done"):
                self._done[reply.done.mini] = reply.done
            self.counters.fill_bytes += part * width

    def restore(self, slot: int, first: int, blocks: Blocks) -> int:
        return 0

    def post(
        self, mini: int, layer: int, slots: Sequence[int], q: Any, k: Any, v: Any,  # noqa: ANN401
    ) -> None:  # fmt: skip
        self._areas.put(mini, q, k, v)
        self._rows[mini] = len(q)
        named = np.asarray(slots, "<u4").tobytes() if layer == 0 else b""
        step = pb.RwStep(mini=mini, layer=layer, slots=named)
        rows = self._areas.area.views(self._memory, mini, len(q))
        self._send(pb.RwRequest(step=step), rows[:3])
        self.counters.step_bytes += sum(part.nbytes for part in rows[:3])

    def take(self, mini: int) -> tuple[Any, list[int]]:
        started = time.perf_counter()
        while mini not in self._done:
            reply = self._receive(self._patience_s)
            self._done[reply.done.mini] = reply.done
        self.counters.waited_s += time.perf_counter() - started
        self.counters.rows += self._rows[mini]
        done = self._done.pop(mini)
        return self._areas.minis[mini][3][: self._rows[mini]], list(done.refused)

    def free(self, slots: Sequence[int]) -> None:
        self._send(pb.RwRequest(free=pb.RwFree(slots=slots)))

    def keep_alive(self) -> None:
        if time.monotonic() - self._sent > self._alive_every_s:
            self._send(pb.RwRequest(ping=pb.RwPing()))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._outgoing.put(None)
        self._sender.join()
        self._socket.close()

    def _send(self, request: pb.RwRequest, rows: Sequence[Memory] = ()) -> None:
        """What is in `rows` stays as it is until the reply has come."""
        if self._broken is not None:
            raise FsError(Code.UNAVAILABLE, f"R-worker {self.name}: {self._broken}")
        message = request.SerializeToString()
        self.counters.message_bytes += HEAD_BYTES + len(message)
        self._sent = time.monotonic()
        self._outgoing.put((message, list(rows)))

    def _send_all(self) -> None:
        while (item := self._outgoing.get()) is not None:
            try:
                send_frame(self._socket, *item)
            except OSError as error:
                self._broken = error
                return

    def _receive(self, timeout_s: float) -> pb.RwReply:
        """Its rows, where it has any, are where they belong."""
        self._socket.settimeout(timeout_s)
        try:
            head = receive_head(self._socket)
            if head is None:
                raise ConnectionResetError("it has hung up")
            message, announced = head
            self.counters.message_bytes += HEAD_BYTES + len(message)
            reply = pb.RwReply.FromString(message)
            rows: list[Memory] = []
            if not reply.code and reply.HasField("done"):
                mini = reply.done.mini
                if mini >= len(self._rows):
                    raise ConnectionError(f"an answer for mini-batch {mini}")
                rows = [self._areas.area.views(self._memory, mini, self._rows[mini])[3]]
            if announced != sum(part.nbytes for part in rows):
                raise ConnectionError(f"{announced} bytes of rows")
            for part in rows:
                receive_into(self._socket, memoryview(part).cast("B"))
                self.counters.step_bytes += part.nbytes
        except (OSError, FsError, DecodeError) as error:
            raise FsError(Code.UNAVAILABLE, f"R-worker {self.name}: {error}") from None
        if reply.code:
            raise FsError(known_code(reply.code), f"R-worker {self.name}: {reply.detail}")
        return reply
