"""What an R-worker keeps for one S-worker, and what it answers.

Everything that comes is looked at before it is used: a peer can lose what it has here, and nothing
else.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.keys import BLOCK_TOKENS_MAX
from superfs.kvcache.fastdecode.cache import Cache
from superfs.kvcache.fastdecode.form import Area, Form, Memory
from superfs.kvcache.fastdecode.kernel import kernel_of
from superfs.kvcache.fastdecode.slabs import Slabs, is_right
from superfs.v1 import fastdecode_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from superfs.kvcache.fastdecode.kernel import Rows

log = logging.getLogger("superfs.rworker")

RESTORED_MAX = 256
"""Blocks in one message."""


def area_of(opening: pb.RwOpen) -> Area:
    """INVALID or NOT_SUPPORTED: what no R-worker can do."""
    form = Form(
        opening.layers, opening.heads, opening.kv_heads, opening.head_dim, opening.scale,
        opening.wire, opening.storage,
    )  # fmt: skip
    form.check()
    area = Area(form, opening.rows_max, opening.minis)
    area.check()
    return area


class Session:
    """`memory`: of the size of `area`; shared with the peer, or of its own."""

    def __init__(
        self, opening: pb.RwOpen, area: Area, memory: Memory, memory_bytes: int, *,
        threads: int, kernel_dir: Path | None, lease_s: float,
    ) -> None:  # fmt: skip
        self.area = area
        self._memory = memory
        self._slabs = Slabs(kernel_dir)
        kernel = kernel_of(area.form, kernel_dir)
        self.cache = Cache(
            area.form, memory_bytes, opening.slots, opening.tokens_max, threads=threads,
            kernel=kernel,
        )  # fmt: skip
        self.memory_bytes = self.cache.pages * area.form.page_bytes_total
        self._rows: list[Rows | None] = [None] * area.minis
        self.opened = pb.RwOpened(
            capacity_tokens=self.cache.capacity_tokens, lease_s=lease_s, kernel=kernel.name,
            threads=threads,
        )  # fmt: skip

    def close(self) -> None:
        self._slabs.close()
        self.cache.close()

    def handle(self, request: pb.RwRequest, descriptors: Sequence[int] = ()) -> pb.RwReply | None:
        """FsError: the peer does not keep to the protocol; what it can know too late (NO_SPACE) is
        in the reply. The descriptors stay the caller's."""
        kind = request.WhichOneof("kind")
        if kind == "restore" and len(descriptors) == 1:
            return self._restore(request.restore, descriptors[0])
        if descriptors:
            raise FsError(Code.BAD_REQUEST, f"descriptors with {kind or 'nothing'}")
        if kind == "step":
            return self._step(request.step)
        if kind == "fill":
            return self._fill(request.fill)
        if kind == "free":
            self.cache.free(list(request.free.slots))
        elif kind != "ping":
            raise FsError(Code.BAD_REQUEST, f"{kind or 'nothing'} cannot be asked here")
        return None

    # ---- of a stream: rows that travel with the messages

    def incoming(self, request: pb.RwRequest) -> list[Memory]:
        """Where the rows belong that come with it."""
        kind = request.WhichOneof("kind")
        if kind == "step":
            return self._views(request.step)[:3]
        if kind == "fill":
            return self._filling(request.fill)
        return []

    def outgoing(self, request: pb.RwRequest) -> list[Memory]:
        """The rows that go with its reply, after `handle`."""
        return self._views(request.step)[3:] if request.WhichOneof("kind") == "step" else []

    # ---- inside

    def _views(self, step: pb.RwStep) -> list[Memory]:
        if step.mini >= self.area.minis:
            raise FsError(Code.BAD_REQUEST, f"there is no mini-batch {step.mini}")
        if step.layer == 0:
            if len(step.slots) % 4 or len(step.slots) // 4 > self.area.rows:
                raise FsError(Code.BAD_REQUEST, f"{len(step.slots)} bytes of slots")
            return self.area.views(self._memory, step.mini, len(step.slots) // 4)
        rows = self._rows[step.mini]
        if rows is None:
            raise FsError(Code.BAD_REQUEST, f"a layer of mini-batch {step.mini} before its first")
        return self.area.views(self._memory, step.mini, len(rows.slots))

    def _step(self, step: pb.RwStep) -> pb.RwReply:
        q, k, v, o = self._views(step)
        refused: list[int] = []
        if step.layer == 0:
            slots = np.frombuffer(step.slots, "<u4").astype(np.int32)
            self._rows[step.mini], refused = self.cache.step(slots)
        rows = self._rows[step.mini]
        assert rows is not None
        self.cache.attend(rows, step.layer, q, k, v, o)
        done = pb.RwDone(mini=step.mini, layer=step.layer, refused=refused)
        return pb.RwReply(done=done)

    def _filling(self, fill: pb.RwFill) -> list[Memory]:
        form = self.area.form
        if not 1 <= fill.count <= self.area.fill_tokens:
            raise FsError(Code.BAD_REQUEST, f"{fill.count} tokens at a time")
        start, size = self.area.fill_offset, fill.count * form.key_bytes
        return [
            self._memory[at : at + size].reshape(fill.count, -1) for at in (start, start + size)
        ]

    def _fill(self, fill: pb.RwFill) -> pb.RwReply:
        k, v = self._filling(fill)
        try:
            self.cache.fill(fill.slot, fill.layer, fill.first, fill.count, k, v)
        except FsError as error:
            if error.code is not Code.NO_SPACE:
                raise
            return pb.RwReply(code=error.code, detail=error.detail)
        return pb.RwReply(filled=pb.RwFilled(slot=fill.slot, layer=fill.layer))

    def _restore(self, asked: pb.RwRestore, descriptor: int) -> pb.RwReply:
        count, size = asked.block_tokens, 2 * asked.block_tokens * self.area.form.key_bytes
        size *= self.area.form.layers
        if (
            not 1 <= count <= BLOCK_TOKENS_MAX
            or len(asked.offsets) != len(asked.checksums)
            or not 1 <= len(asked.offsets) <= RESTORED_MAX
        ):
            raise FsError(
                Code.BAD_REQUEST, f"{len(asked.offsets)} blocks of {count} tokens: up to "
                f"{RESTORED_MAX} of up to {BLOCK_TOKENS_MAX}, each with its checksum",
            )  # fmt: skip
        done = 0
        try:
            slab = self._slabs.get(asked.slab_id, descriptor)
            for offset, checksum in zip(asked.offsets, asked.checksums, strict=True):
                block = slab.block(offset, size)
                if not self.cache.restore(
                    asked.slot, asked.first + done * count, count, block,
                    partial(is_right, block, checksum),
                ):  # fmt: skip
                    break
                done += 1
        except FsError as error:
            if error.code not in (Code.NO_SPACE, Code.UNAVAILABLE):
                raise
            if error.code is Code.NO_SPACE:
                return pb.RwReply(code=error.code, detail=error.detail)
            log.info("blocks are not restored: %s", error)
        return pb.RwReply(restored=pb.RwRestored(slot=asked.slot, blocks=done))


class Room:
    """The memory that an R-worker gives out, and to whom."""

    def __init__(
        self, memory_bytes: int, *, threads: int, kernel_dir: Path | None, lease_s: float,
        sessions_max: int,
    ) -> None:  # fmt: skip
        self.memory_bytes = memory_bytes
        self._settings = (threads, kernel_dir, lease_s)
        self._sessions_max = sessions_max
        self.sessions: set[Session] = set()
        self._lock = threading.Lock()  # S-workers come to several threads

    @property
    def left_bytes(self) -> int:
        return self.memory_bytes - sum(s.memory_bytes for s in self.sessions)

    def admit(self, opening: pb.RwOpen, memory_of: Callable[[Area], Memory]) -> Session:
        """NO_SPACE: for so much there is no memory, or for one more S-worker at all."""
        with self._lock:
            return self._admit(opening, memory_of)

    def _admit(self, opening: pb.RwOpen, memory_of: Callable[[Area], Memory]) -> Session:
        if len(self.sessions) >= self._sessions_max:
            raise FsError(Code.NO_SPACE, f"{len(self.sessions)} S-workers are here already")
        area = area_of(opening)
        wanted = opening.memory_bytes or self.left_bytes
        if wanted > self.left_bytes:
            raise FsError(
                Code.NO_SPACE, f"{wanted} bytes are asked for, and {self.left_bytes} are left of "
                f"{self.memory_bytes} (memory_bytes)",
            )  # fmt: skip
        threads, kernel_dir, lease_s = self._settings
        session = Session(
            opening, area, memory_of(area), wanted, threads=threads, kernel_dir=kernel_dir,
            lease_s=lease_s,
        )  # fmt: skip
        self.sessions.add(session)
        return session

    def leave(self, session: Session) -> None:
        with self._lock:
            self.sessions.discard(session)
            session.close()
