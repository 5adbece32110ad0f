"""Reads past gRPC: by descriptors of segments that a data daemon on this host has passed.

    DataClient --> Bypass: are the places of this chunk known, and current?
                     no: Locate, on the stream, in order with this client's writes
                     then: descriptors, through the local socket
                     then: pread, every touched block verified

What is in the page cache is read at once, by whoever asks; what may wait for a disk, by threads.
Whatever goes wrong on the way (a damaged block, a segment that compaction has emptied meanwhile,
no descriptor to be had, a socket that ended) is not an error here: the daemon is asked for the
bytes instead, as from another host, and its answer or error counts.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from superfs.client.datastream import DataItem
from superfs.client.errands import Errand
from superfs.client.extentreads import overlapping, read_extents
from superfs.client.places import Place, Places
from superfs.client.readers import Readers
from superfs.client.sought import SOUGHT_BYTES_MAX, Sought
from superfs.client.wire import Reply
from superfs.core import extents
from superfs.core.errors import FsError
from superfs.core.limits import (
    CHUNKS_MAX,
    DESCRIPTORS_PER_MESSAGE_MAX,
    KIB,
    LOCATE_CHUNKS_MAX,
)
from superfs.rpc.pending import Pending
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.client.data import Where
    from superfs.client.datastream import DataStream
    from superfs.client.local import LocalLink
    from superfs.core.pagecache import DropBehind

LARGE_BYTES = 128 * KIB
"""Smaller reads of a file that is not known are answered with their bytes, the first time."""
LOCATE_AHEAD = 4
LOCATE_AROUND = 64
"""Chunks whose places are asked for at once: by large reads, and by small ones here and there."""
_MARK_BYTES = 8

assert LOCATE_AHEAD < LOCATE_AROUND <= LOCATE_CHUNKS_MAX


@dataclass(slots=True)
class Moved:
    """Bytes of files that went through this client, by their way."""

    read_descriptor: int = 0
    read_grpc: int = 0
    written_descriptor: int = 0
    written_memfd: int = 0
    written_grpc: int = 0


@dataclass(slots=True)
class Job:
    """One read, inside one chunk."""

    stream: DataStream
    where: Where
    chunk: int
    offset: int
    length: int
    pending: Pending[Reply]

    @property
    def key(self) -> tuple[int, int, int]:
        return self.where.ino, self.where.data_generation, self.chunk


class Bypass:
    def __init__(self, drop_behind: DropBehind) -> None:
        """`drop_behind`: of what large reads take from a disk."""
        self._drop_behind = drop_behind
        self.moved = Moved()
        self._places = Places()
        self.readers = Readers()
        self._lock = threading.Lock()  # of `moved`

    def close(self) -> None:
        self.readers.close()

    def wrote(self, ino: int, data_generation: int) -> None:
        self._places.wrote((ino, data_generation))

    def count_read(self, size: int, *, by_descriptor: bool) -> None:
        with self._lock:
            if by_descriptor:
                self.moved.read_descriptor += size
            else:
                self.moved.read_grpc += size

    def count_write(self, size: int, way: str) -> None:
        moved = self.moved
        with self._lock:
            if way == "descriptor":
                moved.written_descriptor += size
            elif way == "memfd":
                moved.written_memfd += size
            else:
                moved.written_grpc += size

    def read_now(
        self,
        stream: DataStream,
        where: Where,
        chunk: int,
        offset: int,
        length: int,
        *,
        seek: bool = False,
    ) -> bytes | Sought | None:
        """What is in the page cache, of a chunk whose places are known; None: anything else.
        `seek`: what is not there is sought, if it is small and lies together."""
        place = self._place(stream, where, chunk)
        if place is None:
            return None
        if seek and length <= SOUGHT_BYTES_MAX:
            found = self._seek(place, offset, offset + length)
            if found is not None:
                return found
        return self._read(place, offset, length, wait=False)

    def _seek(self, place: Place, start: int, end: int) -> bytes | Sought | None:
        extents_ = overlapping(place.extents, place.starts, start, end)
        if len(extents_) != 1 or start < extents_[0].offset or extents_[0].end < end:
            return None
        descriptor = place.link.held(extents_[0].segment)
        if descriptor is None:
            return None
        sought = Sought(extents_[0], descriptor, start, end, partial(self._count, place))
        data = sought.look()
        if data is not None:
            return data
        sought.seek()
        return sought

    def start(
        self, stream: DataStream, where: Where, chunk: int, offset: int, length: int
    ) -> Pending[Reply] | None:
        """None: this one is for gRPC."""
        large = length >= LARGE_BYTES
        if where.capability or not stream.may_be_near(wait=large):
            return None
        key = where.ino, where.data_generation, chunk
        place = self._places.get(key)
        if place is not None and place.scattered:
            return None
        known = self._places.touch(key[:2])
        if place is None and not (large or known):
            return None
        job = Job(stream, where, chunk, offset, length, Pending())
        if place is not None:
            self.readers.put(lambda: self._carry_out(job, place))
        elif not self._places.wait(key, lambda: self._with_places(job)):
            self._locate(job, LOCATE_AROUND if known else LOCATE_AHEAD)
        return job.pending

    def errand(
        self, stream: DataStream, where: Where, chunk: int, offset: int, length: int
    ) -> Errand[bytes | None] | None:
        """The read of a chunk whose place and segments are known; None: anything else."""
        place = self._place(stream, where, chunk)
        if place is None or not _is_held(place, offset, offset + length):
            return None
        read = partial(self._read, place, offset, length)
        return Errand(read, self.readers, partial(read, wait=False))

    def read_here(
        self, stream: DataStream, where: Where, chunk: int, offset: int, length: int
    ) -> bytes | None:
        """As `errand`, here and now."""
        place = self._place(stream, where, chunk)
        return None if place is None else self._read(place, offset, length)

    def _place(self, stream: DataStream, where: Where, chunk: int) -> Place | None:
        """Where bytes can be read; None: not known, not here, or in too many pieces."""
        if stream.local is None:
            return None
        place = self._places.get((where.ino, where.data_generation, chunk))
        return None if place is None or place.scattered else place

    def _read(self, place: Place, offset: int, length: int, *, wait: bool = True) -> bytes | None:
        data = self._read_extents(place, offset, length, wait=wait)
        if data is not None:
            self._count(place, length)
        return data

    def _read_extents(self, place: Place, offset: int, length: int, *, wait: bool) -> bytes | None:
        return read_extents(
            place.link, place.extents, place.starts, offset, length,
            wait=wait, drop_behind=self._drop_behind,
        )  # fmt: skip

    def learn(self, stream: DataStream, where: Where, chunk: int) -> None:
        """Where it lies, and what is around it."""
        link = stream.local
        if link is None or not link.ready or where.capability:
            return
        key = where.ino, where.data_generation, chunk
        if self._places.get(key) is None and not self._places.is_asked(key):
            self._ask(stream, where, chunk, LOCATE_AROUND, lambda _: None)

    # ---- the steps of a job

    def _with_places(self, job: Job) -> None:
        """Somebody else's question has been answered."""
        place = self._places.get(job.key)
        if place is None or place.scattered:
            self._locate(job, LOCATE_AHEAD)
        else:
            self.readers.put(lambda: self._carry_out(job, place))

    def _locate(self, job: Job, count: int) -> None:
        def told(place: Place | None) -> None:
            if place is None or place.scattered:
                self._by_grpc(job)
            else:
                self.readers.put(lambda: self._carry_out(job, place))

        self._ask(job.stream, job.where, job.chunk, count, told)

    def _ask(
        self,
        stream: DataStream,
        where: Where,
        chunk: int,
        count: int,
        told: Callable[[Place | None], None],
    ) -> None:
        chunks = chunks_with(chunk, count, len(where.chains))
        body = data_pb2.Locate(ino=where.ino, data_generation=where.data_generation, chunks=chunks)
        item = DataItem.of(data_pb2.DataRequest(locate=body))
        question = self._places.ask((where.ino, where.data_generation), chunks)

        def answered() -> None:
            """In the stream's thread."""
            found: dict[tuple[int, int, int], Place] = {}
            link = stream.local  # of the call that the answer came by
            try:
                reply = item.pending.result()
                if link is not None and not reply.code and reply.located is not None:
                    value = reply.located.value.to_bytes(_MARK_BYTES, "little")
                    for other, message in zip(chunks, reply.located.chunks, strict=False):
                        parsed = extents.parse(message.extents, message.crcs)
                        found[where.ino, where.data_generation, other] = Place(
                            link, reply.located.mark, value, parsed,
                            tuple(e.offset for e in parsed), message.scattered,
                        )  # fmt: skip
            except FsError:
                found = {}  # the stream has given up, and says so to the read by gRPC too
            if link is not None:
                _want_first(link, found.values())
            self._places.answered(question, found)
            told(found.get((where.ino, where.data_generation, chunk)))

        item.pending.on_done(answered)
        try:
            stream.submit((item,))
        except BaseException as error:
            item.pending.fail(error)

    def _carry_out(self, job: Job, place: Place, *, asked: bool = False) -> None:
        """In a reader's thread. Places that were found on the way are current enough: the read
        was asked for before."""
        missing = [
            e.segment
            for e in overlapping(place.extents, place.starts, job.offset, job.offset + job.length)
            if place.link.held(e.segment) is None
        ]
        if missing and not asked:
            wanted = place.link.want(dict.fromkeys(missing))

            def again() -> None:
                self.readers.put(lambda: self._carry_out(job, place, asked=True))

            if not wanted.on_done(again):
                again()
            return
        data = None
        if not missing:
            data = self._read_extents(place, job.offset, job.length, wait=True)
        if data is None:
            self._by_grpc(job)
            return
        self._count(place, job.length)
        job.pending.complete(Reply(data=data))

    def _by_grpc(self, job: Job) -> None:
        item = read_item(job.where, job.chunk, job.offset, job.length)

        def answered() -> None:
            try:
                reply = item.pending.result()
                self.count_read(len(reply.data), by_descriptor=False)
                job.pending.complete(reply)
            except BaseException as error:
                job.pending.fail(error)

        item.pending.on_done(answered)
        try:
            job.stream.submit((item,))
        except BaseException as error:
            item.pending.fail(error)

    def _count(self, place: Place, size: int) -> None:
        place.link.note_read(size)
        self.count_read(size, by_descriptor=True)


def chunks_with(chunk: int, count: int, step: int) -> list[int]:
    """This one first, and others of the same chain: what follows, or, of many, what is around."""
    first = chunk
    if count > LOCATE_AHEAD:
        first = chunk // (count * step) * count * step + chunk % step
    last = min(first + count * step, CHUNKS_MAX)
    return [chunk, *(other for other in range(first, last, step) if other != chunk)]


def _is_held(place: Place, start: int, end: int) -> bool:
    touched = overlapping(place.extents, place.starts, start, end)
    return all(place.link.held(extent.segment) is not None for extent in touched)


def _want_first(link: LocalLink, places: Iterable[Place]) -> None:
    """Descriptors of the segments where they begin, before they are missed."""
    missing = {e.segment: None for place in places for e in place.extents}
    wanted = [number for number in missing if link.held(number) is None]
    if wanted:
        link.want(wanted[: DESCRIPTORS_PER_MESSAGE_MAX // 2])


def read_item(where: Where, chunk: int, offset: int, length: int) -> DataItem:
    read = data_pb2.Read(
        ino=where.ino,
        data_generation=where.data_generation,
        chunk=chunk,
        offset=offset,
        length=length,
    )
    return DataItem.of(data_pb2.DataRequest(read=read), capability=where.capability)
