"""Small files on data daemons, whole, many with few messages.

On the daemon's host one message says where they lie (LocateMany), and reader threads read and
verify them there (bypass.py). Segments never change: what is read by an answer is what the files
were when the daemon gave it, so nothing has to be looked at again. Everything else is read by
messages that carry the bytes: files of other hosts, and those of which no place was said or whose
bytes there are not what they should be.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from superfs.client.checksums import matches
from superfs.client.datastream import DataItem
from superfs.client.extentreads import read_extents
from superfs.core import extents
from superfs.core.errors import Code, FsError, known_code
from superfs.core.layout import chain_of
from superfs.core.limits import (
    LOCATE_FILES_MAX,
    MANY_ENTRIES_MAX,
    MESSAGE_DATA_BYTES_MAX,
    MIB,
)
from superfs.core.pagecache import DropBehind
from superfs.rpc.pending import Pending
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.client.bypass import Bypass
    from superfs.client.data import Where
    from superfs.client.datastream import DataStream
    from superfs.client.local import LocalLink
    from superfs.client.wire import Reply
    from superfs.core.extents import Extent
    from superfs.rpc.pending import Budget

PLACED_BYTES_MAX = 4 * MIB
"""Of one question for places."""
ASKED_AHEAD = 1
"""Questions for places that are on their way while files are read by the answer before."""
TASK_BYTES = MIB
"""What one reader thread reads at a time."""
SPAN_BYTES_MAX = 2 * TASK_BYTES
"""Files farther apart than that are not announced to the kernel."""
SPARSE_MAX = 2
"""Files among which lies less than as much again are read at once, with what lies there."""

Results = list[bytes | FsError | None]


class Streams(Protocol):
    def data_stream(self, chain_id: int) -> DataStream: ...
    def data_streams(self) -> list[DataStream]: ...


class Wanted(NamedTuple):
    at: int  # in the results
    where: Where
    length: int


@dataclass(slots=True)
class Task:
    """Files that lie in one place, for one thread."""

    files: list[tuple[Wanted, tuple[Extent, ...]]]
    bytes_: int
    done: Pending[None]


class SmallReads:
    def __init__(self, streams: Streams, budget: Budget, bypass: Bypass) -> None:
        self._streams = streams
        self._budget = budget
        self._bypass = bypass

    @property
    def bytes_max(self) -> int:
        """What is better asked for at once."""
        near = any(_link_of(stream) for stream in self._streams.data_streams())
        return PLACED_BYTES_MAX if near else MESSAGE_DATA_BYTES_MAX

    async def read(self, files: Sequence[tuple[Where, int]]) -> list[bytes | FsError]:
        """The first `length` bytes of each: (where, length), each within a message."""
        groups: dict[tuple[DataStream, bytes], list[Wanted]] = {}
        streams: dict[tuple[int, ...], DataStream] = {}
        for index, (where, length) in enumerate(files):
            assert length <= MESSAGE_DATA_BYTES_MAX, "small files only"
            stream = streams.get(where.chains)
            if stream is None:
                stream = self._streams.data_stream(chain_of(where.chains, 0))
                streams[where.chains] = stream
            group = groups.setdefault((stream, where.capability), [])
            group.append(Wanted(index, where, length))
        results: Results = [None] * len(files)
        for (stream, capability), group in groups.items():
            link = None if capability else _link_of(stream)
            if link is not None:
                batches = _batches(group, LOCATE_FILES_MAX, PLACED_BYTES_MAX)
                await self._by_places(stream, link, batches, results)
                group = [wanted for wanted in group if results[wanted.at] is None]
            for batch in _batches(group, MANY_ENTRIES_MAX, MESSAGE_DATA_BYTES_MAX):
                await self._by_message(stream, capability, batch, results)
        return [found for found in results if found is not None]

    async def _by_message(
        self, stream: DataStream, capability: bytes, batch: list[Wanted], results: Results
    ) -> None:
        many = data_pb2.ReadMany()
        for _, where, length in batch:
            many.reads.add(ino=where.ino, data_generation=where.data_generation, length=length)
        item = DataItem.of(data_pb2.DataRequest(read_many=many), capability=capability)
        size = sum(length for _, _, length in batch)
        await self._budget.acquire(size)
        item.pending.on_done(lambda: self._budget.release(size))
        stream.submit((item,))
        reply = await item.pending
        if reply.code:
            raise FsError(known_code(reply.code), reply.detail)
        for (index, _, length), part in zip(batch, reply.reads, strict=True):
            if part.code:
                results[index] = FsError(known_code(part.code))
            else:
                results[index] = part.data.ljust(length, b"\0")
                self._bypass.count_read(length, by_descriptor=False)

    # ---- on one host

    async def _by_places(
        self, stream: DataStream, link: LocalLink, batches: list[list[Wanted]], results: Results
    ) -> None:
        """What is not had that way stays None. The daemon looks for the next ones meanwhile."""
        asked: deque[DataItem] = deque()
        for at, batch in enumerate(batches):
            for coming in batches[at + len(asked) : at + 1 + ASKED_AHEAD]:
                asked.append(_asked([where for _, where, _ in coming]))
                stream.submit((asked[-1],))
            await self._by_place(link, batch, _located(await asked.popleft().pending), results)

    async def _by_place(
        self,
        link: LocalLink,
        batch: list[Wanted],
        places: Sequence[tuple[Extent, ...]],
        results: Results,
    ) -> None:
        found = [(wanted, place) for wanted, place in zip(batch, places, strict=False) if place]
        missing = {e.segment for _, place in found for e in place if link.held(e.segment) is None}
        if missing:
            with suppress(FsError):
                await link.want(missing)
        size = sum(wanted.length for wanted, _ in found)
        await self._budget.acquire(size)
        try:
            tasks = _tasks(found)
            for task in tasks:
                self._bypass.readers.put(partial(_read, link, task, results))
            for task in tasks:
                await task.done
        finally:
            self._budget.release(size)
        had = sum(wanted.length for wanted, _ in found if results[wanted.at] is not None)
        link.note_read(had)
        self._bypass.count_read(had, by_descriptor=True)


def _asked(files: list[Where]) -> DataItem:
    body = data_pb2.LocateMany(
        inos=struct.pack(f"<{len(files)}Q", *[where.ino for where in files]),
        generations=struct.pack(f"<{len(files)}I", *[where.data_generation for where in files]),
    )
    return DataItem.of(data_pb2.DataRequest(locate_many=body))


def _located(reply: Reply) -> Sequence[tuple[Extent, ...]]:
    """Of each; empty where it is not known."""
    located = reply.located_many
    if reply.code != Code.OK or located is None:
        return ()
    try:
        counts = memoryview(located.counts).cast("I")
        return extents.parse_many(counts, located.extents, located.crcs)
    except (FsError, TypeError):
        return ()


def _link_of(stream: DataStream) -> LocalLink | None:
    link = stream.local
    return link if link is not None and link.ready else None


def _batches(group: list[Wanted], files_max: int, bytes_max: int) -> list[list[Wanted]]:
    batches: list[list[Wanted]] = []
    size = bytes_max
    for wanted in group:
        if size + wanted.length > bytes_max or len(batches[-1]) >= files_max:
            batches.append([])
            size = 0
        batches[-1].append(wanted)
        size += wanted.length
    return batches


def _tasks(found: list[tuple[Wanted, tuple[Extent, ...]]]) -> list[Task]:
    tasks: list[Task] = []
    for wanted, place in found:
        if not tasks or tasks[-1].bytes_ + wanted.length > TASK_BYTES:
            tasks.append(Task([], 0, Pending()))
        tasks[-1].files.append((wanted, place))
        tasks[-1].bytes_ += wanted.length
    return tasks


def _read(link: LocalLink, task: Task, results: Results) -> None:
    """In a reader's thread."""
    try:
        if not _at_once(link, task, results):
            _announce(link, task)
            for (index, _, length), place in task.files:
                results[index] = _whole(link, place, length)
    finally:
        task.done.complete(None)


def _at_once(link: LocalLink, task: Task, results: Results) -> bool:
    """Files that were written together lie together: one read brings all of them. A call for each
    has the interpreter's lock to win back every time."""
    places = [place[0] for _, place in task.files]
    segment, low = places[0].segment, min(extent.place for extent in places)
    high = max(extent.place + extent.blocks_bytes for extent in places)
    descriptor = link.held(segment)
    dense = high - low <= task.bytes_ * SPARSE_MAX
    together = all(extent.segment == segment for extent in places)
    if descriptor is None or not (dense and together):
        return False
    try:
        data = memoryview(os.pread(descriptor.fd, high - low, low))
    except OSError:
        return False
    for (index, _, length), place in task.files:
        extent = place[0]
        if not _plain(place, length):
            results[index] = _whole(link, place, length)
            continue
        found = bytes(data[extent.place - low : extent.place - low + extent.blocks_bytes])
        known = len(found) == length and matches(found, extent.crcs)
        results[index] = found if known else None
    return True


def _plain(place: tuple[Extent, ...], length: int) -> bool:
    """Written at once, as most are."""
    extent = place[0]
    return len(place) == 1 and not (extent.offset or extent.skip) and extent.length == length


def _announce(link: LocalLink, task: Task) -> None:
    """To the kernel, so that the disk has all of it to do at once."""
    spans: dict[int, tuple[int, int]] = {}
    for _, place in task.files:
        for extent in place:
            low, high = spans.get(extent.segment, (extent.place, 0))
            end = extent.place + extent.blocks_bytes
            spans[extent.segment] = min(low, extent.place), max(high, end)
    for segment, (low, high) in spans.items():
        descriptor = link.held(segment)
        if descriptor is not None and high - low <= SPAN_BYTES_MAX:
            with suppress(OSError):
                os.posix_fadvise(descriptor.fd, low, high - low, os.POSIX_FADV_WILLNEED)


_KEPT = DropBehind(wanted=False)


def _whole(link: LocalLink, place: tuple[Extent, ...], length: int) -> bytes | None:
    extent = place[0]
    if not _plain(place, length):
        starts = tuple(extent.offset for extent in place)
        return read_extents(link, place, starts, 0, length, wait=True, drop_behind=_KEPT)
    descriptor = link.held(extent.segment)
    if descriptor is None:
        return None
    try:
        data = os.pread(descriptor.fd, extent.blocks_bytes, extent.place)
    except OSError:
        return None
    return data if len(data) == length and matches(data, extent.crcs) else None
