"""One data daemon as a client of the KVCache pool has it: its channel, its slab."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc
from xxhash import xxh3_64_intdigest

from superfs.kvcache.parts import cut
from superfs.kvcache.slabfile import SlabFile
from superfs.rpc import kvbytes
from superfs.rpc.channel import open_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.v1 import kvcache_pb2 as pb
from superfs.v1 import kvcache_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.kvcache.hands import Hands
    from superfs.kvcache.pace import Pace
    from superfs.rpc.kvbytes import Piece

log = logging.getLogger("superfs.kvcache")

CALL_S = 10.0


class Home:
    """One data daemon, to one namespace."""

    def __init__(
        self,
        addresses: Sequence[str],
        opening: pb.KvOpen,
        hands: Hands,
        pace: Pace,
        *,
        shared: bool,
    ) -> None:
        self._hands = hands
        self._pace = pace
        self._addresses = addresses
        self._opening = opening
        self._shared = shared
        self._channel: grpc.Channel | None = None
        self.stub: Any = None
        self.number = 0
        self.granule_bytes = 1
        self.slab: SlabFile | None = None

    def connect(self, token: bytes) -> None:
        if self._channel is None:
            self._channel = open_channel(self._addresses, quick=True)
            self.stub = _stub(self._channel)
        if not self.number:
            opened: pb.KvOpened = self.stub.Open(
                self._opening, timeout=CALL_S, metadata=token_metadata(token)
            )
            self.number, self.granule_bytes = opened.namespace, opened.granule_bytes
            if self._shared:
                self.slab = SlabFile.open(opened.slab_path, opened.slab_id)

    def agree(self, slab_id: int) -> None:
        """The daemon may have made its slab anew, in another file of this name."""
        if self.slab is not None and self.slab.id != slab_id:
            path = self.slab.path
            self.slab.close()
            self.slab = SlabFile.open(path, slab_id)

    def read(
        self, places: pb.KvPlaces, buffers: Sequence[bytearray | memoryview], call: dict[str, Any]
    ) -> list[bool]:
        """The blocks of a lease, into buffers of their lengths: which of them are right."""
        slab = self.slab
        if slab is None:
            views = [memoryview(buffer).cast("B") for buffer in buffers]
            for part in self._stream(pb.KvRead(lease=places.lease), len(views), call):
                _place(views[part.block], part)

        def check(n: int) -> bool:
            """While it is in the processor's cache."""
            if slab is not None:
                self._pace.spend(len(buffers[n]))
                slab.read_into(buffers[n], places.offsets[n])
            return xxh3_64_intdigest(buffers[n]) == places.checksums[n]

        return self._hands.each(len(buffers), sum(map(len, buffers)), check)

    def write(
        self, started: pb.KvPlaces, mine: list[int], views: list[memoryview], call: dict[str, Any]
    ) -> list[int]:
        """Those of the views to where there was room for them: their checksums."""
        slab = self.slab
        if slab is None and mine:
            self.stub.Write(self._paced(cut(started, mine, views)), **call)

        def store(n: int) -> int:
            view = views[mine[n]]
            if slab is not None:
                self._pace.spend(len(view))
                slab.write(view, started.offsets[mine[n]])
            return xxh3_64_intdigest(view)

        return self._hands.each(len(mine), sum(len(views[n]) for n in mine), store)

    def _paced(self, parts: Iterator[Piece]) -> Iterator[Piece]:
        for part in parts:
            self._pace.spend(len(part.data))
            yield part

    def read_ranges(
        self, places: pb.KvPlaces, ranges: Sequence[tuple[int, int]],
        buffers: Sequence[memoryview], call: dict[str, Any],
    ) -> list[bool]:  # fmt: skip
        """These of each block, up to the first that is shorter."""
        end = max((offset + length for offset, length in ranges), default=0)
        short = [length < end for length in places.lengths[: len(buffers)]]
        count = short.index(True) if True in short else len(short)
        if self.slab is not None:
            return [self._part(places, n, ranges, buffers[n]) for n in range(count)]
        wanted = [pb.KvRange(offset=offset, length=length) for offset, length in ranges]
        left = [len(buffer) for buffer in buffers[:count]]
        for part in self._stream(pb.KvRead(lease=places.lease, ranges=wanted), count, call):
            if xxh3_64_intdigest(part.data) == part.checksum:
                left[part.block] -= _place(buffers[part.block], part)
        return [not missing for missing in left]

    def _part(
        self, places: pb.KvPlaces, number: int, ranges: Sequence[tuple[int, int]],
        buffer: memoryview,
    ) -> bool:  # fmt: skip
        assert self.slab is not None
        self._pace.spend(places.lengths[number])
        block = bytearray(places.lengths[number])
        self.slab.read_into(block, places.offsets[number])
        done = 0
        for offset, length in ranges:
            buffer[done : done + length] = block[offset : offset + length]
            done += length
        return xxh3_64_intdigest(block) == places.checksums[number]

    def _stream(self, request: pb.KvRead, count: int, call: dict[str, Any]) -> Iterator[Piece]:
        """Of so many blocks; where it breaks off, what is missing does not match."""
        try:
            for part in self.stub.Read(request, **call):
                if part.block >= count:
                    break
                self._pace.spend(len(part.data))
                yield part
        except grpc.RpcError as error:
            log.info("a block could not be read: %s", from_rpc(error))

    def close(self) -> None:
        if self.slab is not None:
            self.slab.close()
        if self._channel is not None:
            self._channel.close()
        self._channel = self.slab = None
        self.number = 0


def _stub(channel: grpc.Channel) -> Any:  # noqa: ANN401
    """With streams of `Piece`s."""
    stub: Any = kvcache_pb2_grpc.KVCacheStub(channel)
    stub.Read = channel.unary_stream(
        "/superfs.v1.KVCache/Read", pb.KvRead.SerializeToString, kvbytes.decode
    )
    stub.Write = channel.stream_unary(
        "/superfs.v1.KVCache/Write", kvbytes.encode, pb.KvCodes.FromString
    )
    return stub


def _place(buffer: memoryview, part: Piece) -> int:
    """How many bytes of it are in the buffer then: nothing that does not fit."""
    room = buffer[part.offset : part.offset + len(part.data)]
    if len(room) != len(part.data):
        return 0
    room[:] = part.data
    return len(room)
