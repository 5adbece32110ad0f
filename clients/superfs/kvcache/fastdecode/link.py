"""How an S-worker reaches the keys and values of its sequences: in its own process, or in an
R-worker on this host.

A link is lost for good when the R-worker hangs up or does not answer in time: UNAVAILABLE, and
whatever it had is to be computed again elsewhere.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from superfs.core.errors import Code, FsError, known_code
from superfs.kvcache.fastdecode.form import Area, Form
from superfs.kvcache.fastdecode.kernel import kernel_of
from superfs.kvcache.fastdecode.session import RESTORED_MAX, Session
from superfs.rpc import packets
from superfs.v1 import fastdecode_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OPEN_S = 30.0
"""An R-worker may compile its kernel first."""
CONNECT_S = 2.0


@dataclass(slots=True)
class Counters:
    """Of one link: bytes of q, k, v and o of steps, of what goes with them, of prompts."""

    rows: int = 0  # of one layer each
    step_bytes: int = 0
    message_bytes: int = 0
    fill_bytes: int = 0
    restored_blocks: int = 0  # of a pool, that did not come this way
    waited_s: float = 0.0  # for o


@dataclass(frozen=True, slots=True)
class Blocks:
    """Of a KVCache pool, in the slab of a data daemon on this host; held by a lease."""

    descriptor: int
    slab_id: int
    block_tokens: int
    offsets: Sequence[int]
    checksums: Sequence[int]


class Link(Protocol):
    """To one R-part. Rows of q, k, v and o are tensors [rows, heads, dim] on any device."""

    name: str
    capacity_tokens: int
    local: bool
    counters: Counters

    def fill(self, slot: int, layer: int, first: int, k: Any, v: Any) -> None:  # noqa: ANN401
        """Tokens of a prompt, from `first` on: [tokens, kv_heads, dim]. NO_SPACE."""
        ...

    def post(
        self, mini: int, layer: int, slots: Sequence[int], q: Any, k: Any, v: Any,  # noqa: ANN401
    ) -> None:  # fmt: skip
        """`slots` count with layer 0; afterwards they are the same."""
        ...

    def take(self, mini: int) -> tuple[Any, list[int]]:
        """o of what was posted last, and the rows that found no room. Good until the next post of
        this mini-batch."""
        ...

    def restore(self, slot: int, first: int, blocks: Blocks) -> int:
        """Blocks of a KVCache pool as a sequence's next tokens: how many are there, from the first
        on; 0 where an R-worker cannot have them from the slab. NO_SPACE."""
        ...

    def free(self, slots: Sequence[int]) -> None: ...

    def keep_alive(self) -> None: ...

    def again(self) -> Link:
        """A new link to the same R-worker, which has none of the sequences. UNAVAILABLE."""
        ...

    def close(self) -> None: ...


def opening_of(
    form: Form, *, rows: int, minis: int, slots: int, tokens_max: int, memory_bytes: int
) -> pb.RwOpen:
    return pb.RwOpen(
        layers=form.layers, heads=form.heads, kv_heads=form.kv_heads, head_dim=form.head_dim,
        scale=form.scale, wire=form.wire, storage=form.storage, rows_max=rows, minis=minis,
        slots=slots, tokens_max=tokens_max, memory_bytes=memory_bytes,
    )  # fmt: skip


class Areas:
    """The memory of an area as tensors, from the S-worker's side."""

    def __init__(self, area: Area, memory: Any) -> None:  # noqa: ANN401
        form = area.form
        self.area = area
        dtype = getattr(torch, form.wire)
        widths = (form.heads, form.kv_heads, form.kv_heads, form.heads)
        self.minis = []
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        for mini in range(area.minis):
            views = []
            for at, heads in zip(area.offsets(mini), widths, strict=True):
                size = area.rows * heads * form.head_dim * form.wire_bytes
                part = whole[at : at + size].view(dtype)
                views.append(part.view(area.rows, heads, form.head_dim))
            self.minis.append(views)
        start = area.fill_offset
        size = 2 * area.fill_tokens * form.key_bytes
        self._fill = whole[start : start + size].view(dtype)

    def put(self, mini: int, q: Any, k: Any, v: Any) -> None:  # noqa: ANN401
        count = len(q)
        for view, rows in zip(self.minis[mini], (q, k, v), strict=False):
            view[:count].copy_(rows)

    def fill(self, k: Any, v: Any) -> None:  # noqa: ANN401
        form, count = self.area.form, len(k)
        both = self._fill[: 2 * count * form.kv_heads * form.head_dim]
        both = both.view(2, count, form.kv_heads, form.head_dim)
        both[0].copy_(k)
        both[1].copy_(v)


class LocalLink:
    """The R-part in the S-worker's own process. What was posted is computed when it is taken, while
    R-workers elsewhere compute theirs."""

    local = True

    def __init__(
        self, form: Form, *, rows: int, minis: int, slots: int, tokens_max: int,
        memory_bytes: int, threads: int = 1, kernel_dir: Path | None = None, name: str = "here",
    ) -> None:  # fmt: skip
        self.name = name
        self.counters = Counters()
        area = Area(form, rows, minis)
        area.check()
        memory = bytearray(area.size)
        kernel_of(form, kernel_dir)
        self._areas = Areas(area, memory)
        opening = opening_of(
            form, rows=rows, minis=minis, slots=slots, tokens_max=tokens_max, memory_bytes=0
        )
        self._session = Session(
            opening, area, np.frombuffer(memory, np.uint8), memory_bytes, threads=threads,
            kernel_dir=kernel_dir, lease_s=0,
        )  # fmt: skip
        self.capacity_tokens = self._session.cache.capacity_tokens
        self._posted: list[tuple[pb.RwRequest, int] | None] = [None] * minis

    def fill(self, slot: int, layer: int, first: int, k: Any, v: Any) -> None:  # noqa: ANN401
        step = self._areas.area.fill_tokens
        for at in range(0, len(k), step):
            self._areas.fill(k[at : at + step], v[at : at + step])
            request = pb.RwFill(slot=slot, layer=layer, first=first + at, count=len(k[at:][:step]))
            reply = self._session.handle(pb.RwRequest(fill=request))
            assert reply is not None
            if reply.code:
                raise FsError(known_code(reply.code), f"{self.name}: {reply.detail}")

    def restore(self, slot: int, first: int, blocks: Blocks) -> int:
        return 0

    def post(
        self, mini: int, layer: int, slots: Sequence[int], q: Any, k: Any, v: Any,  # noqa: ANN401
    ) -> None:  # fmt: skip
        self._areas.put(mini, q, k, v)
        named = np.asarray(slots, "<u4").tobytes() if layer == 0 else b""
        step = pb.RwStep(mini=mini, layer=layer, slots=named)
        self._posted[mini] = (pb.RwRequest(step=step), len(q))

    def take(self, mini: int) -> tuple[Any, list[int]]:
        posted = self._posted[mini]
        assert posted is not None
        reply = self._session.handle(posted[0])
        assert reply is not None
        return self._areas.minis[mini][3][: posted[1]], list(reply.done.refused)

    def free(self, slots: Sequence[int]) -> None:
        self._session.handle(pb.RwRequest(free=pb.RwFree(slots=slots)))

    def keep_alive(self) -> None:
        pass

    def again(self) -> Link:
        raise FsError(Code.UNAVAILABLE, f"{self.name}: this process")

    def close(self) -> None:
        self._session.close()


class SharedLink:
    """To an R-worker on this host: messages over its socket, rows in shared memory."""

    local = False

    def __init__(
        self, path: Path, form: Form, *, rows: int, minis: int, slots: int, tokens_max: int,
        memory_bytes: int = 0, patience_s: float = 5.0, open_s: float = OPEN_S,
    ) -> None:  # fmt: skip
        """`memory_bytes` 0: all that the R-worker has left. `patience_s`: after which an R-worker
        that does not answer is lost; `open_s`: that at the beginning."""
        self.name = str(path)
        self.again = partial(
            SharedLink, path, form, rows=rows, minis=minis, slots=slots, tokens_max=tokens_max,
            memory_bytes=memory_bytes, patience_s=patience_s, open_s=patience_s,
        )  # fmt: skip
        self.counters = Counters()
        self._patience_s = patience_s
        area = Area(form, rows, minis)
        area.check()
        self._done: dict[int, pb.RwDone] = {}
        self._rows = [0] * minis
        self._socket = packets.local_socket()
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise FsError(Code.UNAVAILABLE, f"no R-worker at {path}: {error}") from None
        descriptor = os.memfd_create("fastdecode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, area.size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._areas = Areas(area, mmap.mmap(descriptor, area.size))
            opening = opening_of(
                form, rows=rows, minis=minis, slots=slots, tokens_max=tokens_max,
                memory_bytes=memory_bytes,
            )  # fmt: skip
            self._send(pb.RwRequest(open=opening), [descriptor])
            opened = self._receive(open_s).opened
        except FsError:
            self._socket.close()
            raise
        finally:
            os.close(descriptor)
        self.capacity_tokens = opened.capacity_tokens
        self._alive_every_s = opened.lease_s / 4
        self._sent = time.monotonic()

    def fill(self, slot: int, layer: int, first: int, k: Any, v: Any) -> None:  # noqa: ANN401
        step = self._areas.area.fill_tokens
        for at in range(0, len(k), step):
            part = len(k[at : at + step])
            self._areas.fill(k[at : at + step], v[at : at + step])
            fill = pb.RwFill(slot=slot, layer=layer, first=first + at, count=part)
            self._send(pb.RwRequest(fill=fill))
            self._answer()
            self.counters.fill_bytes += 2 * part * self._areas.area.form.key_bytes

    def restore(self, slot: int, first: int, blocks: Blocks) -> int:
        done, count = 0, len(blocks.offsets)
        while done < count:
            part = slice(done, done + RESTORED_MAX)
            restore = pb.RwRestore(
                slot=slot, first=first + done * blocks.block_tokens,
                block_tokens=blocks.block_tokens, slab_id=blocks.slab_id,
                offsets=blocks.offsets[part], checksums=blocks.checksums[part],
            )  # fmt: skip
            self._send(pb.RwRequest(restore=restore), [blocks.descriptor])
            there = self._answer().restored.blocks
            done += there
            self.counters.restored_blocks += there
            if there < len(restore.offsets):
                break
        return done

    def post(
        self, mini: int, layer: int, slots: Sequence[int], q: Any, k: Any, v: Any,  # noqa: ANN401
    ) -> None:  # fmt: skip
        self._areas.put(mini, q, k, v)
        named = np.asarray(slots, "<u4").tobytes() if layer == 0 else b""
        self._rows[mini] = len(q)
        self._send(pb.RwRequest(step=pb.RwStep(mini=mini, layer=layer, slots=named)))

    def take(self, mini: int) -> tuple[Any, list[int]]:
        started = time.perf_counter()
        while mini not in self._done:
            reply = self._receive(self._patience_s)
            self._done[reply.done.mini] = reply.done
        done = self._done.pop(mini)
        count, form = self._rows[mini], self._areas.area.form
        self.counters.waited_s += time.perf_counter() - started
        self.counters.rows += count
        self.counters.step_bytes += 2 * count * (form.query_bytes + form.key_bytes)
        return self._areas.minis[mini][3][:count], list(done.refused)

    def free(self, slots: Sequence[int]) -> None:
        self._send(pb.RwRequest(free=pb.RwFree(slots=slots)))

    def keep_alive(self) -> None:
        if time.monotonic() - self._sent > self._alive_every_s:
            self._send(pb.RwRequest(ping=pb.RwPing()))

    def close(self) -> None:
        self._socket.close()

    def _send(self, request: pb.RwRequest, descriptors: list[int] | None = None) -> None:
        message = request.SerializeToString()
        self.counters.message_bytes += len(message)
        self._sent = time.monotonic()
        try:
            packets.send(self._socket, message, descriptors)
        except OSError as error:
            raise FsError(Code.UNAVAILABLE, f"R-worker {self.name}: {error}") from None

    def _answer(self) -> pb.RwReply:
        """To what is no step; what steps are answered meanwhile is for `take`."""
        while (reply := self._receive(self._patience_s)).HasField("done"):
            self._done[reply.done.mini] = reply.done
        return reply

    def _receive(self, timeout_s: float) -> pb.RwReply:
        self._socket.settimeout(timeout_s)
        try:
            message, _ = packets.receive(self._socket, 0)
        except OSError as error:
            raise FsError(Code.UNAVAILABLE, f"R-worker {self.name}: {error}") from None
        if not message:
            raise FsError(Code.UNAVAILABLE, f"R-worker {self.name} has hung up")
        self.counters.message_bytes += len(message)
        reply = pb.RwReply.FromString(message)
        if reply.code:
            raise FsError(known_code(reply.code), f"R-worker {self.name}: {reply.detail}")
        return reply
