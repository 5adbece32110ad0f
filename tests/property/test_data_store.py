"""The store against files that are plain arrays: operations at random, kills and restarts among
them, compaction whenever it likes."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harness import datastore, lentsegments
from superfs.core.errors import Code, FsError
from superfs.core.limits import CHUNK_BYTES, KIB, PAGE_BYTES
from superfs.data import records
from superfs.data.keys import ChunkKey, FileKey
from superfs.data.lending import Placed
from superfs.data.segments import Blob

CONFIG = replace(datastore.SMALL, extents_max=8, cached_chunks_max=4)
FILE_BYTES = 2 * CHUNK_BYTES
EDGE = CHUNK_BYTES
SESSION = 7
STRIDE_BYTES = 512 * KIB + 3 * PAGE_BYTES
"""The longest write, with a page in front and room behind."""

inos = st.integers(1, 3)
generations = st.integers(1, 2)
places = st.one_of(
    st.integers(0, 200 * KIB),
    st.sampled_from([0, 16 * KIB - 1, 16 * KIB, EDGE - 1, EDGE, EDGE + 5, EDGE - 40 * KIB]),
)
lengths = st.one_of(st.integers(1, 300), st.integers(1, 100 * KIB), st.just(512 * KIB))


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="sfs", dir="/tmp"))
        self.store = datastore.opened(self.directory, CONFIG)
        self.tools = datastore.Tools(self.store)
        self.files: dict[tuple[int, int], bytearray] = {}
        self.reaped: set[tuple[int, int]] = set()
        self.stamp = 0
        self.lent: dict[int, list[int]] = {}  # by segment: the places that are free

    def teardown(self) -> None:
        self.tools.close()
        datastore.kill(self.store)
        shutil.rmtree(self.directory)

    def _data(self, length: int) -> bytes:
        self.stamp += 1
        unit = self.stamp.to_bytes(4, "big") + b"-data-"
        return (unit * (length // len(unit) + 1))[:length]

    def _blob(self, file: tuple[int, int], place: int, length: int) -> Blob:
        chunk, offset = divmod(place, CHUNK_BYTES)
        return Blob(*file, chunk, offset, self._data(min(length, CHUNK_BYTES - offset)))

    @rule(
        ino=inos,
        generation=generations,
        where=st.lists(st.tuples(places, lengths), min_size=1, max_size=3),
        shared=st.booleans(),
    )
    def write(self, ino: int, generation: int, where: list[tuple[int, int]], shared: bool) -> None:
        file = (ino, generation)
        blobs = [self._blob(file, place, length) for place, length in where]
        if len(blobs) == 1:
            blobs = [blobs[0]._replace(shared=shared)]
        if file in self.reaped:
            with pytest.raises(FsError) as caught:
                self.store.write(blobs)
            assert caught.value.code is Code.STALE_DATA
            return
        self.store.write(blobs)
        contents = self.files.setdefault(file, bytearray(FILE_BYTES))
        for blob in blobs:
            at = blob.chunk * CHUNK_BYTES + blob.offset
            contents[at : at + len(blob.data)] = blob.data

    @precondition(lambda self: len(self.lent) < 2)
    @rule()
    def lend(self) -> None:
        segment = self.store.lend(SESSION)
        self.lent[segment.number] = list(
            range(PAGE_BYTES, segment.size - STRIDE_BYTES, STRIDE_BYTES)
        )

    @precondition(lambda self: any(self.lent.values()))
    @rule(
        ino=inos,
        generation=generations,
        place=places,
        length=lengths,
        which=st.integers(0, 1),
        at=st.integers(0, 1000),
    )
    def place(
        self, ino: int, generation: int, place: int, length: int, which: int, at: int
    ) -> None:
        numbers = [number for number, free in self.lent.items() if free]
        segment = self.store.segments.by_number[numbers[which % len(numbers)]]
        free = self.lent[segment.number]
        there = free.pop(at % len(free)) + PAGE_BYTES
        blob = self._blob((ino, generation), place, length)
        lentsegments.put(segment, there, bytes(blob.data))
        crcs = records.block_crcs(blob.data)
        said = Placed(segment.number, there, blob.offset, len(blob.data), crcs)
        key = ChunkKey(ino, generation, blob.chunk)
        if key.file in self.reaped:
            with pytest.raises(FsError) as caught:
                self.store.place(SESSION, key, said)
            assert caught.value.code is Code.STALE_DATA
            return
        self.store.place(SESSION, key, said)
        contents = self.files.setdefault((ino, generation), bytearray(FILE_BYTES))
        start = blob.chunk * CHUNK_BYTES + blob.offset
        contents[start : start + len(blob.data)] = blob.data

    @precondition(lambda self: self.lent)
    @rule(politely=st.booleans())
    def give_back(self, politely: bool) -> None:
        number, _ = self.lent.popitem()
        if politely:
            self.store.lending.give_back(SESSION, number)
        else:
            self.store.lending.end(number)

    @rule(ino=inos, generation=generations, place=places, length=lengths)
    def read(self, ino: int, generation: int, place: int, length: int) -> None:
        if (ino, generation) in self.reaped:
            return
        length = min(length, CHUNK_BYTES - place % CHUNK_BYTES)
        contents = self.files.get((ino, generation), bytearray(FILE_BYTES))
        found = datastore.read(self.store, ino, place, length, generation)
        assert found.ljust(length, b"\0") == contents[place : place + length]

    @rule(ino=inos, generation=generations, size=places)
    def truncate(self, ino: int, generation: int, size: int) -> None:
        if size == 0:
            return
        cut = self.store.truncate(FileKey(ino, generation), size)
        while cut is not None and not self.store.cuts.step(cut):
            pass
        contents = self.files.get((ino, generation))
        if contents is not None and (ino, generation) not in self.reaped:
            contents[size:] = bytes(FILE_BYTES - size)

    @rule(ino=inos, generation=generations)
    def reap(self, ino: int, generation: int) -> None:
        self.store.reap(FileKey(ino, generation))
        self.store.sync()  # it is answered when it is durable
        self.files.pop((ino, generation), None)
        self.reaped.add((ino, generation))

    @rule()
    def sync(self) -> None:
        self.store.sync()

    @rule(ino=inos, generation=generations, chunk=st.integers(0, 1))
    def compact(self, ino: int, generation: int, chunk: int) -> None:
        self.tools.compact(ChunkKey(ino, generation, chunk))

    @precondition(lambda self: any(s.sealed for s in self.store.segments.by_number.values()))
    @rule(data=st.data())
    def empty_segment(self, data: st.DataObject) -> None:
        sealed = [s.number for s in self.store.segments.by_number.values() if s.sealed]
        number = data.draw(st.sampled_from(sealed))
        assert self.tools.empty(number)
        assert not self.store.segments.path_of(number).exists()

    @rule(cleanly=st.booleans())
    def restart(self, cleanly: bool) -> None:
        if cleanly:
            self.store.sync()
        self.tools.close()
        self.lent.clear()
        datastore.kill(self.store)
        self.store = datastore.reopen(self.directory, CONFIG)
        self.tools = datastore.Tools(self.store)

    @invariant()
    def live_bytes_add_up(self) -> None:
        live = sum(s.live for s in self.store.segments.by_number.values())
        assert live <= sum(len(c) for c in self.files.values())

    @rule()
    def everything(self) -> None:
        assert self.tools.check() == []
        for (ino, generation), contents in self.files.items():
            for place in range(0, 1 * CHUNK_BYTES + 1024 * KIB, 512 * KIB):
                found = datastore.read(self.store, ino, place, 512 * KIB, generation)
                assert found.ljust(512 * KIB, b"\0") == contents[place : place + 512 * KIB]


StoreMachine.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_store = pytest.mark.slow(StoreMachine.TestCase)
