"""What a data daemon stores: segments, their index, and what memory is ahead of it with.

Everything but `SyncJob` and `ReadPlan.wait` happens on one thread, the event loop's, and is
short: an append to the page cache, a change of a tuple. A write is answered when its append has
been handed to the kernel (a kill of the daemon does not lose it: recovery.py), `sync` makes
everything before it durable: segments first, then one commit of the index.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import CHUNK_BYTES, FILE_DATA_BYTES_MAX
from superfs.daemon.statedir import sync_directory
from superfs.data import extentmap
from superfs.data.batch import Batch
from superfs.data.chunks import Chunks
from superfs.data.cuts import Cut, Cuts
from superfs.data.keys import EXTENT, ChunkKey, FileKey
from superfs.data.lending import Lending, Placed
from superfs.data.marks import Marks
from superfs.data.promises import Promises
from superfs.data.reading import ReadPlan, fetch_of
from superfs.data.records import Boot, FenceRecord, Identity, Position
from superfs.data.segments import Segments, free_bytes, total_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from superfs.daemon.world import World
    from superfs.data.config import StoreConfig
    from superfs.data.extentmap import Pieces
    from superfs.data.index import Index
    from superfs.data.segments import Blob, OpenFile, Segment

FENCE_KEEP_S = 30 * 86_400
"""A capability ends with nothing but its fence, and whoever holds one may come back late."""
BOOTS_MAX = 64
"""Starts that are remembered. A client that has missed more sends everything again."""


@dataclass(frozen=True, slots=True)
class StoreUsage:
    bytes_total: int
    bytes_free: int
    bytes_live: int
    segments: int
    extents: int


@dataclass(slots=True)
class SyncJob:
    """What one sync has to do. `run` blocks, in one thread at a time; then everything is durable.
    `unlink` blocks, too, and nobody needs to wait for it. FsError IO is fatal."""

    store: DataStore
    batch: Batch
    files: list[OpenFile]
    new_files: bool
    dead: list[Segment]
    changes: bool = False

    def run(self) -> None:
        store = self.store
        hit = store.world.failpoints.hit
        try:
            hit("datad.sync.before")
            for file in self.files:
                os.fdatasync(file.fd)
            if self.new_files:
                sync_directory(store.segments.directory)
            hit("datad.commit.before")
            if self.changes:
                store.index.commit(self.batch)
            store.index.ensure_free(2 * store.config.index_reserve_bytes)
            hit("datad.commit.after")
        except OSError as error:
            raise FsError(Code.IO, f"the disk failed: {error}") from error

    def unlink(self) -> None:
        """The segments that the index does not know any more."""
        try:
            for segment in self.dead:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(segment.path)
                self.store.world.failpoints.hit("datad.unlink.after")
        except OSError as error:
            raise FsError(Code.IO, f"the disk failed: {error}") from error


class DataStore:
    def __init__(
        self, directory: Path, identity: Identity, index: Index, config: StoreConfig, world: World
    ) -> None:
        self.directory = directory
        self.identity = identity
        self.index = index
        self.config = config
        self.world = world
        self.segments = Segments(
            directory / "segments",
            identity,
            segment_bytes=config.segment_bytes,
            reserve_bytes=config.reserve_bytes,
            clock=world.clock,
            rng=world.rng,
            failpoints=world.failpoints,
        )
        self.lending = Lending(self.segments, world.failpoints)
        self.marks = Marks()
        self.chunks = Chunks(index.pieces_of, config.cached_chunks_max, self.marks.change)
        self.cuts = Cuts(index, self.chunks, self.segments)
        self.fences: dict[int, FenceRecord] = {}
        self.promises = Promises(self.room)
        self.position = Position(0, 0, 0)
        self.boots: tuple[Boot, ...] = ()  # the present one ends them
        self.on_fragmented: Callable[[ChunkKey, int], None] = _ignore
        self.on_unlinked: Callable[[Segment], None] = _ignore
        self.on_fenced: Callable[[int], None] = _ignore
        self._fences_changed: dict[int, FenceRecord | None] = {}
        self._boots_changed = False

    # ---- contents

    def write(self, blobs: list[Blob], promised_to: int = 0) -> None:
        """All visible when it returns. Refused as a whole, or done as a whole. `promised_to`: the
        session whose room it goes into."""
        for blob in blobs:
            check_place(blob.ino, blob.generation, blob.offset, len(blob.data))
            if not blob.data:
                raise FsError(Code.INVALID, "a write of no bytes")
            self.cuts.refuse_reaped(FileKey(blob.ino, blob.generation))
        if not blobs:
            return
        size = sum(len(blob.data) for blob in blobs)
        try:
            self.segments.room_for_client()
            self._room_in_index()
            if not (promised_to or self.promises.leaves_room(size)):
                raise FsError(Code.NO_SPACE, "what this data daemon has left is promised")
        except FsError as error:
            if error.code is not Code.NO_SPACE or not promised_to:
                raise
            self.promises.use(promised_to, size)
        self.append(blobs)

    def _room_in_index(self) -> None:
        if self.index.free_bytes < self.config.index_reserve_bytes:
            raise FsError(Code.NO_SPACE, "the index of this data daemon is full")

    def lend(self, session: int) -> Segment:
        """A segment of its own, for a client that writes there itself."""
        self._room_in_index()
        return self.lending.lend(session, self.promises.total)

    def place(self, session: int, key: ChunkKey, placed: Placed) -> None:
        """Makes visible what a client has written where it was lent a segment; as `write`."""
        check_place(key.ino, key.generation, placed.offset, placed.length)
        self.cuts.refuse_reaped(key.file)
        self._room_in_index()
        piece = self.lending.place(session, key, placed, self.position.version + 1)
        self.position = self.position._replace(version=piece.version)
        self.apply(key, piece)

    def room(self) -> int:
        """What clients may still write, in whole segments but for the active one."""
        if self.index.free_bytes < self.config.index_reserve_bytes * 3 // 2:
            return 0  # after each sync it has twice that, if there is any
        segments = self.segments
        free = free_bytes(self.directory) - self.config.reserve_bytes
        spare = max(0, free) // self.config.segment_bytes - (segments.spare is None)
        left = 0 if segments.active is None else segments.active.size - segments.active.length
        return max(0, spare) * self.config.segment_bytes + left

    def append(self, blobs: list[Blob]) -> None:
        """Without asking whether clients may write: compaction writes into the reserve."""
        pieces = self.segments.append(blobs, self.position.version + 1)
        last = pieces[-1]
        end = self.segments.by_number[last.segment].length
        self.position = Position(last.segment, end, last.version)
        for blob, piece in zip(blobs, pieces, strict=True):
            self.apply(ChunkKey(blob.ino, blob.generation, blob.chunk), piece)

    def apply(self, key: ChunkKey, piece: extentmap.Piece) -> None:
        change = extentmap.overlay(self.chunks.get(key), piece)
        self.chunks.put(key, change.pieces)
        self.segments.account(change.dropped, change.left, (piece,))
        if len(change.pieces) > self.config.extents_max:
            self.on_fragmented(key, len(change.pieces))

    def read(self, key: ChunkKey, offset: int, length: int) -> ReadPlan:
        check_place(key.ino, key.generation, offset, length)
        self.cuts.refuse_reaped(key.file)
        pieces = self.chunks.get(key)
        end = min(offset + length, extentmap.end_of(pieces))
        if end <= offset:
            return ReadPlan(key, [])
        return self.plan(key, pieces, offset, end)

    def plan(self, key: ChunkKey, pieces: Pieces, start: int, end: int) -> ReadPlan:
        try:
            parts = extentmap.plan(pieces, start, end)
            return ReadPlan(key, [fetch_of(p, self.segments.open_for_read) for p in parts])
        except FsError as error:
            where = f"inode {key.ino:#x} data generation {key.generation} chunk {key.chunk}"
            raise FsError(error.code, f"{where}: {error.detail}") from None

    # ---- dropping

    def truncate(self, file: FileKey, size: int) -> Cut | None:
        """None: nothing is left to do. Else `cuts.step` until it is done."""
        check_place(file.ino, file.generation, 0, 0)
        if size == 0:
            raise FsError(Code.INVALID, "a truncate to 0 is a new data generation and a reap")
        if size >= 1 << 63:
            raise FsError(Code.INVALID, f"a size of {size} bytes")
        if self.cuts.is_reaped(file) or size >= FILE_DATA_BYTES_MAX:
            return None
        self.marks.change(file)
        return self.cuts.add(file, size, self.position.version + 1, self.world.clock.now_ns())

    def reap(self, file: FileKey) -> Cut:
        check_place(file.ino, file.generation, 0, 0)
        self.marks.change(file)
        return self.cuts.add(file, 0, self.position.version + 1, self.world.clock.now_ns())

    # ---- who is let in

    def fence(self, session: int, epoch: int) -> None:
        known = self.fences.get(session)
        if known is None or known.epoch < epoch:
            record = FenceRecord(epoch, self.world.clock.now_ns())
            self.fences[session] = self._fences_changed[session] = record
            self.promises.drop(session)
            self.on_fenced(session)

    def prune(self) -> None:
        """Forgets tombstones and fences that are too old to matter."""
        now_ns = self.world.clock.now_ns()
        self.cuts.prune(
            now_ns - int(self.config.tombstone_keep_s * 1e9), self.config.tombstones_max
        )
        oldest_ns = now_ns - FENCE_KEEP_S * 1_000_000_000
        for session, record in list(self.fences.items()):
            if record.since_ns < oldest_ns:
                del self.fences[session]
                self._fences_changed[session] = None

    # ---- durability

    @property
    def boot_epoch(self) -> int:
        return self.boots[-1].epoch

    def begin_boot(self) -> None:
        """Once, when everything that survived has been found."""
        boot = Boot(self.world.rng.getrandbits(63) + 1, self.position.version)
        self.boots = (*self.index.boots(), boot)[-BOOTS_MAX:]
        self._boots_changed = True

    @property
    def has_changes(self) -> bool:
        return bool(
            len(self.chunks)
            or self.segments.changed
            or self.segments.unsynced
            or self.cuts.changed
            or self._fences_changed
        )

    def begin_sync(self) -> SyncJob:
        """Everything so far goes with it. Then `run`, anywhere, then `end_sync`; one at a time.
        Then `unlink`, anywhere, then `unlinked`."""
        segments = self.segments
        files = [segments.open_for_read(n) for n in segments.unsynced]
        changed, segments.changed = segments.changed, set()
        records, dead = {}, []
        for number in changed:
            segment = segments.by_number.get(number)
            if segment is None:
                continue
            gone = segment.sealed and segment.live == 0 and not segment.fault
            records[number] = None if gone else segment.record()
            if gone:
                dead.append(segment)
        batch = Batch(
            self.position,
            self.chunks.begin_commit(),
            records,
            self.cuts.take_changed(),
            self._fences_changed,
            self.boots if self._boots_changed else (),
        )
        self._fences_changed = {}
        self._boots_changed = False
        job = SyncJob(self, batch, files, segments.new_files, dead)
        job.changes = any((batch.chunks, batch.segments, batch.cuts, batch.fences, batch.boots))
        segments.unsynced.clear()
        segments.new_files = False
        return job

    def end_sync(self) -> None:
        self.chunks.end_commit()

    def unlinked(self, job: SyncJob) -> None:
        """After `unlink`, which may take longer than syncs that begin later."""
        for segment in job.dead:
            self.segments.forget(segment.number)
            self.on_unlinked(segment)

    def sync(self) -> None:
        job = self.begin_sync()
        job.run()
        self.end_sync()
        job.unlink()
        self.unlinked(job)

    def close(self) -> None:
        """After a last sync."""
        self.segments.close()
        self.index.close()
        self.marks.close()

    def usage(self) -> StoreUsage:
        segments = self.segments
        free = free_bytes(self.directory) - self.config.reserve_bytes
        if segments.spare is None:
            free -= self.config.segment_bytes
        if segments.active is not None:
            free += segments.active.size - segments.active.length
        live = sum(s.live for s in self.segments.by_number.values())
        count = len(self.segments.by_number)
        return StoreUsage(
            total_bytes(self.directory), max(0, free), live, count, self.index.count(EXTENT)
        )


def check_place(ino: int, generation: int, offset: int, length: int) -> None:
    """INVALID for numbers that no client of ours sends."""
    if ino == 0 or generation == 0:
        raise FsError(Code.INVALID, "inode and data generation must not be 0")
    if offset + length > CHUNK_BYTES:
        raise FsError(Code.INVALID, f"{length} bytes at {offset} are not inside one chunk")


def _ignore(*_: object) -> None:
    """Until somebody listens."""
