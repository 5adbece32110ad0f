"""Truncates and reaps: dropping what older writes left behind a size.

A cut has the version of the moment it was asked for. Pieces of older writes at and behind its
size go, chunk by chunk, in steps that do not hold up other requests; newer writes stay. Whoever
asked is answered when the last step is durable. A cut that a kill interrupted goes on at the next
start.

A reap is a cut to nothing that also refuses the generation from then on (STALE_DATA), for as long
as its tombstone is kept: a late write must not bring it back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import CHUNK_BYTES, CHUNKS_MAX
from superfs.data import extentmap
from superfs.data.keys import ChunkKey, FileKey
from superfs.data.records import CutRecord

if TYPE_CHECKING:
    from superfs.data.chunks import Chunks
    from superfs.data.index import Index
    from superfs.data.segments import Segments

STEP_CHUNKS = 32


@dataclass(slots=True)
class Cut:
    file: FileKey
    version: int
    size: int
    since_ns: int
    done: bool = False
    next_chunk: int = 0

    @property
    def reaps(self) -> bool:
        return self.size == 0

    def record(self) -> CutRecord:
        return CutRecord(self.version, self.size, self.since_ns, self.done)


class Cuts:
    def __init__(self, index: Index, chunks: Chunks, segments: Segments) -> None:
        self._index = index
        self._chunks = chunks
        self._segments = segments
        self.by_file: dict[FileKey, Cut] = {}
        self.pending: dict[FileKey, Cut] = {}
        self.changed: dict[FileKey, CutRecord | None] = {}  # for the next commit
        self.more = asyncio.Event()  # set when a cut is left unfinished

    def load(self) -> None:
        for file, record in self._index.cuts().items():
            cut = Cut(file, *record)
            self.by_file[file] = cut
            if not cut.done:
                cut.next_chunk = cut.size // CHUNK_BYTES
                self.pending[file] = cut

    def is_reaped(self, file: FileKey) -> bool:
        cut = self.by_file.get(file)
        return cut is not None and cut.reaps

    def refuse_reaped(self, file: FileKey) -> None:
        if self.is_reaped(file):
            raise FsError(
                Code.STALE_DATA, f"data generation {file.generation} of {file.ino:#x} is gone"
            )

    def add(self, file: FileKey, size: int, version: int, now_ns: int) -> Cut:
        """Idempotent for a reap. What memory is ahead of the index with is cut at once."""
        before = self.by_file.get(file)
        if before is not None:
            if before.reaps:
                return before
            while not before.done:
                self.step(before)
        cut = Cut(file, version, size, now_ns, next_chunk=size // CHUNK_BYTES)
        self.by_file[file] = self.pending[file] = cut
        self.changed[file] = cut.record()
        for chunk in sorted(self._chunks.ahead_of(file)):
            if chunk >= cut.next_chunk:
                self._cut_chunk(cut, chunk)
        if not self.step(cut):
            self.more.set()
        return cut

    def step(self, cut: Cut) -> bool:
        """A bounded part of the work; true when nothing is left of it."""
        if cut.done:
            return True
        start = ChunkKey(*cut.file, cut.next_chunk)
        found = self._index.chunks_from(start, STEP_CHUNKS)
        mine = [key for key in found if key.file == cut.file]
        for key in mine:
            self._cut_chunk(cut, key.chunk)
        if mine:
            cut.next_chunk = mine[-1].chunk + 1
        if len(mine) < STEP_CHUNKS or cut.next_chunk == CHUNKS_MAX:
            self._finish(cut)
        return cut.done

    async def finish(self, cut: Cut) -> None:
        """All of the work, with room for other requests between the steps."""
        while True:
            if self.step(cut):
                return
            await asyncio.sleep(0)

    def prune(self, older_than_ns: int, keep_max: int) -> None:
        """Forgets tombstones that are old, or the oldest of too many."""
        done = sorted((c for c in self.by_file.values() if c.done), key=lambda c: c.since_ns)
        excess = len(done) - keep_max
        for number, cut in enumerate(done):
            if number >= excess and cut.since_ns >= older_than_ns:
                break
            del self.by_file[cut.file]
            self.changed[cut.file] = None

    def take_changed(self) -> dict[FileKey, CutRecord | None]:
        changed, self.changed = self.changed, {}
        return changed

    def _finish(self, cut: Cut) -> None:
        cut.done = True
        del self.pending[cut.file]
        if cut.reaps:
            self.changed[cut.file] = cut.record()
        else:
            del self.by_file[cut.file]
            self.changed[cut.file] = None

    def _cut_chunk(self, cut: Cut, chunk: int) -> None:
        key = ChunkKey(*cut.file, chunk)
        start = max(0, cut.size - chunk * CHUNK_BYTES)
        change = extentmap.cut(self._chunks.get(key), start, cut.version)
        if change.dropped:
            self._chunks.put(key, change.pieces)
            self._segments.account(change.dropped, change.left)
