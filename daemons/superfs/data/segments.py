"""Segment files: append-only, allocated ahead, only ever unlinked.

A segment is never punched or used again, so an open descriptor of it stays valid for as long as
somebody holds it, and what an index entry points at never changes. (Of one that was lent, the end
that nobody has used is cut off: lending.py.)

One segment is active; appends go to its end. One more, the *spare*, is allocated beside it: a
client's write is let in only while there is a spare, so that on a full disk the active segment is
left for compaction, which is what makes room again. What was appended before is never touched by
a failure: a write that fails half-way ends the process (the replay finds where the good part ends).

Not thread-safe: appends, rolls and accounting happen on the event loop's thread.
"""

from __future__ import annotations

import errno
import os
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from superfs.core.errors import Code, FsError
from superfs.core.limits import MESSAGE_DATA_BYTES_MAX
from superfs.data import records
from superfs.data.copying import Copying
from superfs.data.extentmap import Piece, Pieces
from superfs.data.records import HEADER_BYTES, Append, Identity, SegmentHeader, SegmentRecord

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from superfs.daemon.clock import Clock
    from superfs.daemon.failpoints import Failpoints

DESCRIPTORS_MAX = 256
BUFFERS_PER_WRITE_MAX = 1000  # below IOV_MAX
SPARE_RETRY_S = 0.1
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_NAME = re.compile(r"([0-9a-f]{16})\.seg")
_PADDING = bytes(records.ALIGN_BYTES)


class Blob(NamedTuple):
    """Bytes to be appended, and where in which chunk they belong."""

    ino: int
    generation: int
    chunk: int
    offset: int
    data: bytes | memoryview
    shared: bool = False  # memory of a client, who may change it at any time
    drop_behind: bool = False  # it leaves the page cache when it is on the disk


class OpenFile:
    """A descriptor that is closed when nobody refers to it any more: whoever reads keeps it."""

    __slots__ = ("fd",)

    def __init__(self, path: Path, flags: int) -> None:
        self.fd = -1
        self.fd = os.open(path, flags | os.O_CLOEXEC, 0o600)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


@dataclass(slots=True)
class Segment:
    number: int
    path: Path
    nonce: int
    created_ns: int
    size: int  # allocated
    length: int = HEADER_BYTES  # in use
    live: int = 0
    sealed: bool = False
    fault: str = ""  # why it cannot be read
    paged: bool = False  # it was lent to a client
    file: OpenFile | None = field(default=None, repr=False)  # while it is not sealed

    def record(self) -> SegmentRecord:
        return SegmentRecord(self.length, self.live, self.created_ns, self.sealed)


def numbers_in(directory: Path) -> list[int]:
    found = (_NAME.fullmatch(name) for name in os.listdir(directory))
    return sorted(int(match[1], 16) for match in found if match)


class Segments:
    def __init__(
        self,
        directory: Path,
        identity: Identity,
        *,
        segment_bytes: int,
        reserve_bytes: int,
        clock: Clock,
        rng: Random,
        failpoints: Failpoints,
    ) -> None:
        self.directory = directory
        self.identity = identity
        self.segment_bytes = segment_bytes
        self.reserve_bytes = reserve_bytes
        self.by_number: dict[int, Segment] = {}
        self.active: Segment | None = None
        self.spare: Segment | None = None
        self.next_number = 1
        self.changes = 0  # of live bytes, counted: whoever recounts them knows if they moved
        self.full = False  # a client's write was refused for want of a spare
        self.unsynced: set[int] = set()
        self.changed: set[int] = set()  # records that the next commit writes
        self.new_files = False
        self._clock = clock
        self._rng = rng
        self._failpoints = failpoints
        self._open: OrderedDict[int, OpenFile] = OrderedDict()
        self._scratch = memoryview(bytearray(MESSAGE_DATA_BYTES_MAX))
        self._spare_retry_at = 0.0
        self._copying = Copying()

    # ---- what there is

    def path_of(self, number: int) -> Path:
        return self.directory / f"{number:016x}.seg"

    def read_header(self, number: int) -> SegmentHeader:
        """DAMAGED when the file is missing or is not this segment of this store."""
        path = self.path_of(number)
        try:
            with open(path, "rb") as file:
                header = records.parse_header(file.read(HEADER_BYTES))
        except FileNotFoundError:
            raise FsError(Code.DAMAGED, f"segment {path} is missing") from None
        except OSError as error:
            raise FsError(Code.DAMAGED, f"segment {path}: {error.strerror}") from None
        if header is None:
            raise FsError(Code.DAMAGED, f"segment {path} has a damaged header")
        if header.number != number or header.store != self.identity.store:
            raise FsError(Code.DAMAGED, f"segment {path} holds segment {header.number} of another")
        return header

    def adopt(self, number: int, record: SegmentRecord) -> Segment:
        """A segment that the index knows. One that cannot be read is kept, with its fault."""
        path = self.path_of(number)
        segment = Segment(
            number, path, 0, record.created_ns, 0, record.length, record.live, sealed=True
        )
        try:
            header = self.read_header(number)
            segment.nonce, segment.paged = header.nonce, header.paged
            segment.size = path.stat().st_size
            if segment.size < record.length:
                segment.fault = f"{path} has {segment.size} bytes, {record.length} were written"
        except FsError as error:
            segment.fault = error.detail
        self.by_number[number] = segment
        self.next_number = max(self.next_number, number + 1)
        return segment

    def open_for_read(self, number: int) -> OpenFile:
        """DAMAGED when the segment is not there any more; IO for want of descriptors."""
        file = self._open.get(number)
        if file is not None:
            self._open.move_to_end(number)
            return file
        segment = self.by_number.get(number)
        if segment is None:
            raise FsError(Code.DAMAGED, f"segment {self.path_of(number)} is unknown")
        if segment.file is not None:
            return segment.file
        try:
            file = OpenFile(segment.path, os.O_RDONLY)
        except OSError as error:
            code = Code.IO if error.errno in _NO_DESCRIPTOR else Code.DAMAGED
            raise FsError(code, f"segment {segment.path}: {error.strerror}") from None
        self._keep_open(number, file)
        return file

    def _keep_open(self, number: int, file: OpenFile) -> None:
        self._open[number] = file
        if len(self._open) > DESCRIPTORS_MAX:
            self._open.popitem(last=False)

    # ---- appending

    def room_for_client(self) -> None:
        """NO_SPACE unless a client's write may go in: there must be a spare beside the active."""
        if self.active is None:
            self.active = self._take_spare()
        if self.spare is not None:
            self.full = False
            return
        now = self._clock.monotonic()
        if now < self._spare_retry_at:
            raise FsError(Code.NO_SPACE, "the disk of this data daemon is full")
        try:
            self.spare = self._create(self.reserve_bytes)
        except FsError:
            self.full = True
            self._spare_retry_at = now + SPARE_RETRY_S
            raise
        self.full = False

    def append(self, blobs: list[Blob], version: int) -> list[Piece]:
        """Appends in order; the first gets `version`, the others the numbers behind it.

        It is in the page cache when it returns: a kill of the daemon does not lose it. One call
        never spreads over two segments. NO_SPACE: nothing was written. Any other error of the
        disk is an OSError, and fatal."""
        if len(blobs) == 1 and blobs[0].shared:
            return [self._append_shared(blobs[0], version)]
        pieces: list[Piece] = []
        buffers: list[bytes | memoryview] = []
        segment = self._with_room(sum(_append_bytes(len(blob.data)) for blob in blobs))
        start = at = segment.length
        for blob in blobs:
            assert not blob.shared, "shared memory is for single writes"
            crcs = records.block_crcs(blob.data)
            length = len(blob.data)
            entry = Append(
                blob.ino, blob.generation, blob.chunk, blob.offset, length, version, crcs
            )
            header = records.pack_append(entry, segment.nonce, at)
            place = at + len(header)
            at = records.aligned(place + length)
            buffers += (header, blob.data)
            if at > place + length:
                buffers.append(_PADDING[: at - place - length])
            pieces.append(
                Piece(blob.offset, length, segment.number, place, length, 0, version, crcs)
            )
            version += 1
            if len(buffers) > BUFFERS_PER_WRITE_MAX - 3:
                self._write(segment, start, buffers, at)
                start, buffers = at, []
        self._write(segment, start, buffers, at)
        return pieces

    def _append_shared(self, blob: Blob, version: int) -> Piece:
        """The kernel copies the bytes, once; the checksum is of what can be read back, whatever
        became of the memory meanwhile. The head, without which they count for nothing, comes last.
        INVALID: the memory cannot be read."""
        length = len(blob.data)
        segment = self._with_room(_append_bytes(length))
        at = segment.length
        place = at + records.append_header_bytes(length)
        assert segment.file is not None, "only the active segment is written"
        self.unsynced.add(segment.number)
        data = memoryview(blob.data)
        flags = self._copying.copy(data, segment.file.fd, place, drop_behind=blob.drop_behind)
        self._failpoints.hit("datad.append.head")
        stored = self._scratch[:length]
        if os.preadv(segment.file.fd, [stored], place, flags) != length:
            raise OSError(errno.EIO, "what was just written cannot be read")
        crcs = records.block_crcs(stored)
        entry = Append(blob.ino, blob.generation, blob.chunk, blob.offset, length, version, crcs)
        self._write(segment, at, [records.pack_append(entry, segment.nonce, at)], place)
        segment.length = records.aligned(place + length)
        return Piece(blob.offset, length, segment.number, place, length, 0, version, crcs)

    def _with_room(self, total: int) -> Segment:
        assert HEADER_BYTES + total <= self.segment_bytes, "more than a segment can hold"
        if self.active is not None and self.active.length + total > self.active.size:
            if self.spare is None:
                self.spare = self._create(0)
            self.seal()
        if self.active is None:
            self.active = self._take_spare()
        return self.active

    def _write(
        self, segment: Segment, start: int, buffers: list[bytes | memoryview], end: int
    ) -> None:
        if not buffers:
            return
        assert segment.file is not None, "only the active segment is written"
        self._failpoints.hit("datad.append.before")
        self.unsynced.add(segment.number)
        written = os.pwritev(segment.file.fd, buffers, start)
        while start + written < end:  # a signal, or more than a write moves at a time
            rest = b"".join(buffers)[written:]
            written += os.pwrite(segment.file.fd, rest, start + written)
        segment.length = end
        self.changed.add(segment.number)
        self._failpoints.hit("datad.append.after")

    def seal(self) -> None:
        """Nothing is appended to the active segment any more."""
        if self.active is None:
            return
        self._failpoints.hit("datad.seal")
        segment, self.active = self.active, None
        self.retire(segment)

    def retire(self, segment: Segment) -> None:
        """Nothing is written to it any more."""
        segment.sealed = True
        self.changed.add(segment.number)
        if segment.file is not None:
            self._keep_open(segment.number, segment.file)
            segment.file = None

    def _take_spare(self) -> Segment:
        segment, self.spare = self.spare, None
        if segment is None:
            segment = self._create(0)
        self.by_number[segment.number] = segment
        return segment

    def create_paged(self, keep_bytes: int) -> Segment:
        """One that is written to beside the active one. The next commit knows it: the replay asks
        no other segment that is older than the active one."""
        segment = self._create(keep_bytes, paged=True)
        self.by_number[segment.number] = segment
        self.changed.add(segment.number)
        self.unsynced.add(segment.number)
        return segment

    def _create(self, keep_bytes: int, *, paged: bool = False) -> Segment:
        """A new file, allocated; NO_SPACE if that would leave less than `keep_bytes` free."""
        number = self.next_number
        path = self.path_of(number)
        if free_bytes(self.directory) < self.segment_bytes + keep_bytes:
            raise FsError(Code.NO_SPACE, "the disk of this data daemon is full")
        created_ns = self._clock.now_ns()
        nonce = self._rng.getrandbits(64)
        identity = self.identity
        header = SegmentHeader(number, nonce, created_ns, identity.node, identity.store, paged)
        file = OpenFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            os.posix_fallocate(file.fd, 0, self.segment_bytes)
            os.pwrite(file.fd, records.pack_header(header), 0)
        except OSError as error:
            os.unlink(path)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise FsError(Code.NO_SPACE, "the disk of this data daemon is full") from None
            raise
        self.next_number = number + 1
        self.new_files = True
        return Segment(number, path, nonce, created_ns, self.segment_bytes, paged=paged, file=file)

    # ---- accounting

    def account(self, dropped: Pieces, left: Pieces, added: Pieces = ()) -> None:
        """Keeps the live bytes of segments in step with a change of a chunk's pieces."""
        self.changes += 1
        for piece in dropped:
            segment = self.by_number.get(piece.segment)
            if segment is not None:
                segment.live -= piece.length
                self.changed.add(piece.segment)
        for piece in (*left, *added):
            segment = self.by_number.get(piece.segment)
            if segment is not None:
                segment.live += piece.length
                self.changed.add(piece.segment)

    def forget(self, number: int) -> None:
        """Of a segment whose file is gone; readers that hold its descriptor go on."""
        self.by_number.pop(number, None)
        self._open.pop(number, None)
        self.unsynced.discard(number)
        self._spare_retry_at = 0.0

    def close(self) -> None:
        self._open.clear()
        for segment in self.by_number.values():
            segment.file = None
        if self.spare is not None:
            self.spare.file = None


def _append_bytes(length: int) -> int:
    return records.aligned(records.append_header_bytes(length) + length)


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def total_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize
