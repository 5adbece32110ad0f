"""The disk tier: where blocks lie on disk, which of them go. Bookkeeping of the pool's thread;
bytes are read and written by `behind` and `promote`.

A segment is a slab (slab.py) in a directory on a disk, allocated in full when it is added, so that
storing meets no full disk. What a namespace has there is its shelf: a table of its own, by the
same rules, so what is on disk of a chain is a prefix of it too, whatever is in memory. Segments are
added up to `disk_bytes` while the file system has `disk_free_bytes_min` left; when others take
that, the emptiest segment is given back with what is in it and behind that.

    NNNNNN.slab, NNNNNN.map    a segment; whatever is damaged or has another size is empty
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from superfs.data.kvcache.namespaces import Shelf
from superfs.data.kvcache.places import Place
from superfs.data.kvcache.slab import NO_KEY, Slab, record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from random import Random

    from superfs.core.kvcache.table import Block
    from superfs.data.kvcache.config import KvCacheConfig
    from superfs.data.kvcache.namespaces import Namespace
    from superfs.data.kvcache.slab import Record


class DiskTier:
    def __init__(
        self, directory: Path, store: bytes, config: KvCacheConfig, rng: Random,
        free_bytes: Callable[[Path], int],
    ) -> None:  # fmt: skip
        """OSError when the directory cannot be had."""
        self.directory = directory
        self.segments: dict[int, Slab] = {}
        self.dirty: dict[tuple[int, bytes], Place] = {}  # committed, and to be written; in order
        self.touched: dict[Place, Record] = {}
        self.written = self.unwritten = self.damaged = 0
        self.config = config
        self.noted: Callable[[], None] = lambda: None
        self._store = store
        self._rng = rng
        self._free_bytes = free_bytes
        self._shelves: dict[int, Shelf] = {}
        directory.mkdir(mode=0o700, exist_ok=True)
        self._open_segments()

    def close(self) -> None:
        for segment in self.segments.values():
            segment.close()

    @property
    def capacity_bytes(self) -> int:
        return sum(s.granule * s.granules for s in list(self.segments.values()))

    @property
    def used_bytes(self) -> int:
        return sum(shelf.table.used for shelf in self._shelves.values())

    # ---- segments

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06d}.slab"

    def _slab(self, number: int) -> Slab:
        granule = self.config.granule_bytes
        granules = self.config.disk_segment_bytes // granule
        return Slab(self._path(number), granule, granules, self._store, self._rng)

    def _open_segments(self) -> None:
        for path in sorted(self.directory.glob("*.slab")):
            number = int(path.stem) if path.stem.isdecimal() else 0
            try:
                slab = self._slab(number) if self._below_limit() and number else None
            except OSError:  # it was to be made anew, and there is no room
                slab = None
            if slab is not None:
                self.segments[number] = slab
            else:
                path.unlink(missing_ok=True)
                path.with_suffix(".map").unlink(missing_ok=True)

    def _below_limit(self) -> bool:
        segment = self.config.disk_segment_bytes
        return (len(self.segments) + 1) * segment <= self.config.disk_bytes

    def may_grow(self) -> bool:
        left = self._free_bytes(self.directory) - self.config.disk_free_bytes_min
        return self._below_limit() and left >= self.config.disk_segment_bytes

    def next_segment(self) -> tuple[int, Slab]:
        """Allocates it: call it in a thread, then `add`. OSError when there is no room."""
        number = max(self.segments, default=0) + 1
        try:
            slab = self._slab(number)
        except OSError:
            self._path(number).unlink(missing_ok=True)
            self._path(number).with_suffix(".map").unlink(missing_ok=True)
            raise
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return number, slab

    def add(self, number: int, slab: Slab) -> None:
        self.segments[number] = slab

    def give_back(self) -> Slab | None:
        """Of a segment that is to be unlinked, when the file system has too little left. Not one
        that is read or written right now."""
        if not self.segments or self._free_bytes(self.directory) >= self.config.disk_free_bytes_min:
            return None
        number, slab = max(self.segments.items(), key=lambda one: one[1].runs.free)
        for shelf in self._shelves.values():
            for key in shelf.places.keys_in(slab):
                if key in shelf.table.blocks:
                    shelf.evicted += len(self._remove(shelf, shelf.table.blocks[key]))
        if slab.runs.free < slab.granules:
            return None
        for shelf in self._shelves.values():
            shelf.places.forget(slab)
        return self.segments.pop(number)

    # ---- namespaces

    def attach(self, space: Namespace) -> None:
        quota = self.config.disk_bytes
        if space.made.disk_bytes >= 0:
            quota = min(quota, space.made.disk_bytes)
        if quota:
            shelf = Shelf(space.made.policy, quota, self.config.granule_bytes)
            space.shelf = self._shelves[space.made.number] = shelf

    def detach(self, space: Namespace) -> None:
        shelf = self._shelves.pop(space.made.number, None)
        if shelf is not None:
            for block in shelf.table.roots():
                self._remove(shelf, block)
        space.shelf = None

    def restore(self, spaces: Iterable[Namespace]) -> None:
        """What the segments have kept, parents first; what is nobody's is forgotten."""
        for space in spaces:
            self.attach(space)
        found = [(slab, at, r) for slab in self.segments.values() for at, r in slab.records()]
        for slab, at, record in sorted(found, key=lambda one: (one[2].depth, one[2].born)):
            if not self._restored(slab, at, record):
                slab.zero_record(at)
        for shelf in self._shelves.values():
            shelf.table.now = max(shelf.table.last, default=0)

    def _restored(self, slab: Slab, at: int, record: Record) -> bool:
        shelf = self._shelves.get(record.namespace)
        if shelf is None or record.key in shelf.table.blocks or not record.length:
            return False
        parent = shelf.table.blocks.get(record.parent)
        if record.parent != NO_KEY and parent is None:
            return False
        count = slab.granules_of(record.length)
        if not shelf.table.fits(count * slab.granule) or not slab.runs.take_at(at, count):
            return False
        block = shelf.table.insert(record.key, parent, count * slab.granule)
        shelf.table.restore(block, record.born, record.last, record.uses)
        place = Place(slab, at, count, record.length, record.checksum, committed=True)
        shelf.places.enter(block, place)
        shelf.table.unpin(block)
        return True

    # ---- blocks

    def note(self, space: Namespace, key: bytes, place: Place) -> None:
        """It was committed in memory: it is to be written."""
        if space.shelf is None:
            return
        if key not in space.shelf.places:
            self.dirty[space.made.number, key] = place
            self.noted()

    def touch(self, space: Namespace, key: bytes) -> None:
        shelf, place = space.shelf, space.on_disk(key)
        if shelf is not None and place is not None:
            block = shelf.table.blocks[key]
            shelf.table.touch(block)
            self.touched[place] = record_of(space, block, place)

    def take(self, shelf: Shelf, key: bytes, parent_key: bytes, source: Place) -> Place | None:
        """Room for a block, in the table and pinned until `settle`. Evicts, first within the quota,
        then from whoever has most. None: there is no room, or its parent is not on disk."""
        parent = shelf.table.blocks.get(parent_key) if parent_key else None
        if parent_key and parent is None:
            return None
        if parent is not None:
            shelf.table.pin(parent)
        try:
            place = self._room(shelf, source)
            if place is not None:
                block = shelf.table.insert(key, parent, place.granules * place.slab.granule)
                shelf.places.enter(block, place)
                place.readers += 1  # whoever writes it
        finally:
            if parent is not None:
                shelf.table.unpin(parent)
        return place

    def _room(self, shelf: Shelf, source: Place) -> Place | None:
        granule = self.config.granule_bytes
        count = -(-source.length // granule)
        if count * granule > shelf.table.capacity:
            return None
        for block in shelf.table.make_room(count * granule):
            self._evicted(shelf, block)
        if not shelf.table.fits(count * granule):
            return None
        while True:
            for slab in self.segments.values():
                at = slab.runs.take(count)
                if at is not None:
                    return Place(slab, at, count, source.length, source.checksum)
            if not self._evict_one():
                return None

    def settle(self, shelf: Shelf, key: bytes, place: Place, *, good: bool) -> None:
        """It was written, or could not be."""
        place.let_go()
        if shelf.places.get(key) is not place:
            return  # removed meanwhile
        block = shelf.table.blocks[key]
        if not good:
            self._remove(shelf, block)
            return
        shelf.places.commit(block, place, place.checksum)
        self.written += 1
        shelf.table.unpin(block)

    def remove(self, space: Namespace, key: bytes) -> list[bytes]:
        """With everything behind it: what was there of these."""
        shelf = space.shelf
        if shelf is None or key not in shelf.table.blocks:
            return []
        return self._remove(shelf, shelf.table.blocks[key])

    def lose(self, space: Namespace, key: bytes, place: Place) -> None:
        """Who has read it found other bytes than were stored: it goes, with what is behind it."""
        if space.shelf is not None and space.shelf.places.get(key) is place:
            self.damaged += 1
            self.remove(space, key)

    def trim(self) -> None:
        """From the high watermark to the low one."""
        config = self.config
        if self.used_bytes * 100 > config.disk_high_percent * config.disk_bytes:
            while self.used_bytes * 100 > config.disk_low_percent * config.disk_bytes:
                if not self._evict_one():
                    return

    def _evict_one(self) -> bool:
        for shelf in sorted(self._shelves.values(), key=lambda s: -s.table.used):
            block = shelf.table.evict()
            if block is not None:
                self._evicted(shelf, block)
                return True
        return False

    def _evicted(self, shelf: Shelf, block: Block) -> None:
        shelf.evicted += 1
        self._left(shelf, block)

    def _remove(self, shelf: Shelf, block: Block) -> list[bytes]:
        gone = shelf.table.remove(block)
        for one in gone:
            self._left(shelf, one)
        return [one.key for one in gone]

    def _left(self, shelf: Shelf, block: Block) -> None:
        self.touched.pop(shelf.places.leave(block), None)
