"""Compaction: chunks of many extents are rewritten, segments of little live data are emptied.

Both read, verified and off the event loop, and then append the same bytes again, if nothing has
changed them meanwhile: to everybody else that is a write like any other. A segment without live
bytes is unlinked by the next sync. Damaged bytes are never moved: they would get a good checksum.

A file with a cut in progress is left alone, since what is moved would look newer than the cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from superfs.core.errors import Code, FsError
from superfs.core.limits import KIB, MESSAGE_DATA_BYTES_MAX
from superfs.data.appends import appends_in
from superfs.data.keys import ChunkKey
from superfs.data.segments import Blob

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from superfs.daemon.world import World
    from superfs.data.config import CompactionConfig
    from superfs.data.extentmap import Pieces
    from superfs.data.metrics import DataMetrics
    from superfs.data.segments import OpenFile, Segment
    from superfs.data.store import DataStore
    from superfs.data.syncer import Syncer

LARGE_PIECE_BYTES = 256 * KIB
"""Pieces of this size are not worth rewriting."""
GAP_BYTES_MAX = 64 * KIB
"""Smaller holes are filled with the zeros that they read as."""
TICK_S = 0.25


class Run(NamedTuple):
    """A range of a chunk that becomes few pieces."""

    start: int
    end: int


def runs_of(pieces: Pieces) -> list[Run]:
    """The ranges worth rewriting, so that few pieces are left."""
    runs: list[Run] = []
    open_run = False
    for piece in pieces:
        if piece.length >= LARGE_PIECE_BYTES:
            open_run = False
        elif open_run and piece.offset - runs[-1].end < GAP_BYTES_MAX:
            runs[-1] = Run(runs[-1].start, piece.end)
        else:
            runs.append(Run(piece.offset, piece.end))
            open_run = True
    return runs


def count_after(pieces: Pieces, runs: list[Run]) -> int:
    large = sum(1 for p in pieces if p.length >= LARGE_PIECE_BYTES)
    return large + sum(-(-(r.end - r.start) // MESSAGE_DATA_BYTES_MAX) for r in runs)


class Compactor:
    def __init__(
        self,
        store: DataStore,
        syncer: Syncer,
        config: CompactionConfig,
        metrics: DataMetrics,
        world: World,
        threads: Executor,
    ) -> None:
        self._store = store
        self._syncer = syncer
        self._config = config
        self._metrics = metrics
        self._world = world
        self._threads = threads
        self._fragmented: dict[ChunkKey, float] = {}
        self._damaged = 0  # reads that met damage, counted
        self._spared: set[int] = set()  # segments that cannot be emptied: something is damaged
        store.on_fragmented = self._note

    def _note(self, key: ChunkKey, extents: int) -> None:
        """Waits until the chunk is quiet, or far too fragmented."""
        hard = extents >= self._config.extents_hard_max
        self._fragmented[key] = 0.0 if hard else self._world.clock.monotonic()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except FsError as error:
                if error.code is not Code.NO_SPACE:
                    raise
                self._world.log.warning("no room to compact into")
            except OSError as error:
                self._world.fatal(f"the disk failed: {error}; the next start verifies it")

    async def tick(self) -> None:
        quiet_since = self._world.clock.monotonic() - self._config.quiet_s
        for key, written_at in list(self._fragmented.items()):
            if written_at <= quiet_since:
                del self._fragmented[key]
                await self.compact_chunk(key)
        victim = self._victim()
        if victim is not None:
            await self.empty_segment(victim)

    # ---- chunks

    async def compact_chunk(self, key: ChunkKey) -> bool:
        store = self._store
        pieces = store.chunks.get(key)
        runs = runs_of(pieces)
        limit = min(store.config.extents_max, 3 * len(pieces) // 4)
        if len(pieces) <= store.config.extents_max or count_after(pieces, runs) > limit:
            return False
        if key.file in store.cuts.pending:
            return False
        moved = 0
        for run in runs:
            data = await self._read(key, pieces, run.start, run.end)
            if data is None or store.chunks.get(key) != pieces or key.file in store.cuts.pending:
                return False
            self._world.failpoints.hit("datad.compact.chunk")
            for at in range(0, len(data), MESSAGE_DATA_BYTES_MAX):
                part = data[at : at + MESSAGE_DATA_BYTES_MAX]
                store.append([Blob(*key, run.start + at, part)])
            pieces = store.chunks.get(key)
            moved += len(data)
        await self._pace(moved)
        return True

    async def _read(self, key: ChunkKey, pieces: Pieces, start: int, end: int) -> bytes | None:
        """None if it is damaged."""
        try:
            plan = self._store.plan(key, pieces, start, end)
            return await asyncio.get_running_loop().run_in_executor(self._threads, plan.wait)
        except FsError as error:
            self._world.log.error("damaged data not moved", where=error.detail)
            self._damaged += 1
            return None

    # ---- segments

    def _victim(self) -> Segment | None:
        """The segment with the least live data, if that is little enough."""
        full = self._store.segments.full
        percent = self._config.live_percent_max_full if full else self._config.live_percent_max
        best: Segment | None = None
        for segment in self._store.segments.by_number.values():
            if not segment.sealed or segment.fault or segment.number in self._spared:
                continue
            if 0 < segment.live < segment.size * percent // 100 and (
                best is None or segment.live < best.live
            ):
                best = segment
        return best

    async def empty_segment(self, segment: Segment) -> bool:
        """Moves everything visible elsewhere; true when nothing is left in it."""
        store = self._store
        try:
            file = store.segments.open_for_read(segment.number)
        except FsError as error:
            self._spare(segment, error.detail)
            return False
        loop = asyncio.get_running_loop()
        keys = await loop.run_in_executor(self._threads, chunks_in, segment, file)
        stuck = self._damaged
        for key in keys:
            if key.file not in store.cuts.pending:
                await self._pace(await self._move(key, segment.number))
        if segment.live:
            # What a write or a cut changed meanwhile is moved another time.
            if self._damaged > stuck or not self._is_known(keys, segment.number):
                self._spare(segment, "something in it is damaged")
            return False
        self._world.failpoints.hit("datad.compact.emptied")
        await self._syncer.ask()
        return True

    def _spare(self, segment: Segment, why: str) -> None:
        self._spared.add(segment.number)
        self._world.log.warning("segment not emptied", segment=segment.path.name, why=why)

    def _is_known(self, keys: list[ChunkKey], number: int) -> bool:
        """Whether one of these chunks has what is left; else its headers cannot be read."""
        pieces_of = self._store.chunks.get
        return any(piece.segment == number for key in keys for piece in pieces_of(key))

    async def _move(self, key: ChunkKey, number: int) -> int:
        store = self._store
        moved = 0
        for piece in store.chunks.get(key):
            if piece.segment != number:
                continue
            data = await self._read(key, (piece,), piece.offset, piece.end)
            if data is None or piece not in store.chunks.get(key):
                continue
            if key.file in store.cuts.pending:
                break
            self._world.failpoints.hit("datad.compact.move")
            for at in range(0, len(data), MESSAGE_DATA_BYTES_MAX):
                part = data[at : at + MESSAGE_DATA_BYTES_MAX]
                store.append([Blob(*key, piece.offset + at, part)])
            moved += len(data)
        return moved

    async def _pace(self, moved: int) -> None:
        if moved:
            self._metrics.compacted_bytes.inc(moved)
        pace = 0.0 if self._store.segments.full else moved / self._config.bytes_per_s
        await asyncio.sleep(pace)


def chunks_in(segment: Segment, file: OpenFile) -> list[ChunkKey]:
    """Every chunk that a segment has appends of, as far as its headers can be read."""
    found: dict[ChunkKey, None] = {}
    with contextlib.suppress(OSError):  # a place that cannot be read is damage like any other
        for at, append in appends_in(segment, file):
            if at >= segment.length:
                break
            found[ChunkKey(append.ino, append.generation, append.chunk)] = None
    return list(found)
