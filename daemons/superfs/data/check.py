"""Checking a store that is in use, and listing what it holds.

Both first make everything durable, so that the index is complete, and then walk it in short
steps, between which requests go on. What changes meanwhile is looked at as it is when its turn
comes; the accounting of live bytes is compared only if nothing changed during the walk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.ids import (
    ID_MAX,
    RANGE_BIT,
    RANGE_COUNTER_BITS,
    RANGE_FILES_MAX,
    RANGES_MAX,
    SLOT_SHIFT,
    SLOTS,
)
from superfs.core.limits import CHUNK_BYTES, LISTING_ENTRIES_MAX
from superfs.data import extentmap, records
from superfs.data.keys import ChunkKey, FileKey
from superfs.v1.common_pb2 import Finding
from superfs.v1.data_pb2 import StoredList

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from concurrent.futures import Executor

    from superfs.data.extentmap import Pieces
    from superfs.data.store import DataStore
    from superfs.data.syncer import Syncer

STEP_CHUNKS = 64
FIRST = ChunkKey(0, 0, 0)


class Checker:
    def __init__(self, store: DataStore, syncer: Syncer, threads: Executor) -> None:
        self._store = store
        self._syncer = syncer
        self._threads = threads

    async def check(self, *, verify_data: bool) -> AsyncIterator[Finding]:
        """Findings as they are made. `verify_data` reads and verifies every block too."""
        await self._syncer.ask()
        store = self._store
        changes = store.segments.changes
        live: dict[int, int] = {}
        async for key in self.chunks():
            pieces = store.chunks.get(key)
            for finding in self._chunk(key, pieces):
                yield finding
            for piece in pieces:
                live[piece.segment] = live.get(piece.segment, 0) + piece.length
            if verify_data:
                faults, _ = await self.verify(key)
                for fault in faults:
                    yield _finding("damaged-data", _name(key), fault)
        for segment in list(store.segments.by_number.values()):
            if segment.fault:
                yield _finding("damaged-segment", segment.path.name, segment.fault)
            elif segment.live and not segment.path.exists():
                yield _finding("missing-segment", segment.path.name, "the file is gone")
        if changes == store.segments.changes:
            for finding in self._accounting(live):
                yield finding

    async def list_range(self, range_: int, used: int) -> AsyncIterator[StoredList]:
        """What is kept under numbers of this range whose counter is above `used`."""
        if range_ > RANGES_MAX or used > RANGE_FILES_MAX:
            raise FsError(Code.BAD_REQUEST, f"range {range_} above {used}")
        await self._syncer.ask()
        files: set[FileKey] = set()
        for slot in range(SLOTS):
            first, last = (
                slot << SLOT_SHIFT | RANGE_BIT | range_ << RANGE_COUNTER_BITS | counter
                for counter in (used + 1, RANGE_FILES_MAX)
            )
            async for key in self.chunks(ChunkKey(first, 0, 0)):
                if key.ino > last:
                    break
                if not self._store.cuts.is_reaped(key.file):
                    files.add(key.file)
            if not slot % STEP_CHUNKS:
                await asyncio.sleep(0)
        found = sorted(files)
        for start in range(0, len(found), LISTING_ENTRIES_MAX):
            yield _stored([(file, 0) for file in found[start : start + LISTING_ENTRIES_MAX]])

    async def chunks(self, start: ChunkKey | None = FIRST) -> AsyncIterator[ChunkKey]:
        """Every chunk of the index, in order, in steps that leave room for requests."""
        while start is not None:
            found = self._store.index.chunks_from(start, STEP_CHUNKS)
            for key in found:
                yield key
            if len(found) < STEP_CHUNKS:
                return
            start = after(found[-1])
            await asyncio.sleep(0)

    async def verify(self, key: ChunkKey) -> tuple[list[str], int]:
        """What is damaged of a chunk, by reading it all, and how many bytes that was."""
        faults, plans, size = [], [], 0
        for piece in self._store.chunks.get(key):  # segments are held before anything is awaited
            size += piece.length
            try:
                plans.append(self._store.plan(key, (piece,), piece.offset, piece.end))
            except FsError as error:
                faults.append(error.detail)
        loop = asyncio.get_running_loop()
        for plan in plans:
            try:
                await loop.run_in_executor(self._threads, plan.wait)
            except FsError as error:
                faults.append(error.detail)
        return faults, size

    def _chunk(self, key: ChunkKey, pieces: Pieces) -> Iterator[Finding]:
        for fault in extentmap.faults(pieces):
            yield _finding("bad-extent", _name(key), fault)
        if pieces and self._store.cuts.is_reaped(key.file) and not self._store.cuts.pending:
            yield _finding("reaped-extent", _name(key), "its data generation was reaped")
        for piece in pieces:
            segment = self._store.segments.by_number.get(piece.segment)
            if segment is None:
                text = f"piece at {piece.offset} is in segment {piece.segment:016x}"
                yield _finding("extent-without-segment", _name(key), text)
            elif piece.blob + piece.blob_length > segment.length:
                text = f"piece at {piece.offset} lies behind the end of {segment.path.name}"
                yield _finding("extent-outside-segment", _name(key), text)

    def _accounting(self, live: dict[int, int]) -> Iterator[Finding]:
        for number, segment in self._store.segments.by_number.items():
            if not segment.fault and segment.live != live.get(number, 0):
                text = f"{segment.live} live bytes are noted, {live.get(number, 0)} were found"
                yield _finding("wrong-live-bytes", segment.path.name, text)

    async def list_data(self) -> AsyncIterator[StoredList]:
        await self._syncer.ask()
        rows: list[tuple[FileKey, int]] = []
        async for key in self.chunks():
            pieces = self._store.chunks.get(key)
            if not pieces or self._store.cuts.is_reaped(key.file):
                continue
            size = key.chunk * CHUNK_BYTES + extentmap.end_of(pieces)
            if rows and rows[-1][0] == key.file:
                rows[-1] = (key.file, size)
                continue
            if len(rows) == LISTING_ENTRIES_MAX:
                yield _stored(rows)
                rows = []
            rows.append((key.file, size))
        if rows:
            yield _stored(rows)


def after(key: ChunkKey) -> ChunkKey | None:
    """The least key behind this one, if there is one."""
    if key.chunk < 0xFFFFFFFF:
        return ChunkKey(key.ino, key.generation, key.chunk + 1)
    if key.generation < 0xFFFFFFFF:
        return ChunkKey(key.ino, key.generation + 1, 0)
    return ChunkKey(key.ino + 1, 0, 0) if key.ino < ID_MAX else None


def _stored(rows: list[tuple[FileKey, int]]) -> StoredList:
    return StoredList(
        inos=records.pack_column("Q", [file.ino for file, _ in rows]),
        generations=records.pack_column("I", [file.generation for file, _ in rows]),
        sizes=records.pack_column("Q", [size for _, size in rows]),
    )


def _name(key: ChunkKey) -> str:
    return f"inode {key.ino:#x} data generation {key.generation} chunk {key.chunk}"


def _finding(kind: str, name: str, detail: str) -> Finding:
    return Finding(severity=Finding.ERROR, kind=kind, object=name, detail=detail)
