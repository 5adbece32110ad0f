"""Chains that are read and written part by part: the first bytes of every block, then the next of
every block, so that a layer can be used while the next one is on its way.

Nobody can tell from a part that it is right, so parts are used before they are compared. What was
made of them counts only when all have come, and match: `get_parts` says so, and `commit` is the
caller's to withhold until then.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import grpc
from xxhash import xxh3_64

from superfs.core.errors import Code
from superfs.kvcache.parts import pieces, prefix_of
from superfs.v1 import kvcache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.kvcache.hands import Hands
    from superfs.kvcache.home import Home
    from superfs.kvcache.pace import Pace
    from superfs.rpc.kvbytes import Piece

log = logging.getLogger("superfs.kvcache")
Held = list[tuple["Home", pb.KvPlaces]]
Rooms = "Sequence[Sequence[memoryview]]"  # [part][block]


class Reading:
    """Of blocks that are held by leases."""

    def __init__(
        self, held: Held, sizes: Sequence[int], pace: Pace, hands: Hands, call: dict[str, Any]
    ) -> None:
        self._sizes = sizes
        self._pace = pace
        self._hands = hands
        self._call = call
        self._blocks = [(home, places, n) for home, places in held for n in range(_count(places))]
        whole = sum(sizes)
        fits = [places.lengths[n] == whole for _, places, n in self._blocks]
        self.found = prefix_of(fits)
        self._streams: dict[int, Iterator[Piece]] = {}

    def run(
        self,
        rooms: Sequence[Sequence[memoryview]],
        arrived: Callable[[int, int], bool],
    ) -> list[bool]:
        """Which blocks were right; nothing when `arrived` has stopped it."""
        wanted = min(self.found, len(rooms[0]))
        sums = [xxh3_64() for _ in range(wanted)]
        at = 0
        try:
            for part, size in enumerate(self._sizes):
                if not self._part(part, at, rooms[part][:wanted], sums, arrived):
                    return []
                at += size
        except (grpc.RpcError, OSError, StopIteration, ValueError) as error:
            log.info("blocks could not be read: %s", error)
        pairs = zip(sums, self._blocks, strict=False)
        return [one.intdigest() == places.checksums[n] for one, (_, places, n) in pairs]

    def _part(
        self,
        part: int,
        at: int,
        room: Sequence[memoryview],
        sums: Sequence[Any],
        arrived: Callable[[int, int], bool],
    ) -> bool:
        def one(n: int) -> None:
            self._pace.spend(len(room[n]))
            self._read(n, at, room[n])
            sums[n].update(room[n])

        alone = self._pace.bytes_per_s or any(home.slab is None for home, _, _ in self._blocks)
        if not alone:
            self._hands.each(len(room), sum(map(len, room)), one)
            return arrived(part, len(room))
        for n in range(len(room)):
            one(n)
            if not arrived(part, n + 1):
                return False
        return True

    def _read(self, number: int, at: int, view: memoryview) -> None:
        home, places, n = self._blocks[number]
        if home.slab is not None:
            home.slab.read_into(view, places.offsets[n] + at)
            return
        stream = self._streams.get(places.lease)
        if stream is None:
            ranges, offset = [], 0
            for size in self._sizes:
                ranges.append(pb.KvRange(offset=offset, length=size))
                offset += size
            request = pb.KvRead(lease=places.lease, ranges=ranges, across=True)
            stream = self._streams[places.lease] = home.stub.Read(request, **self._call)
        done = 0
        while done < len(view):
            message = next(stream)
            data = message.data
            if message.block != n:
                continue  # more than are wanted
            if not data:
                raise ValueError("a message with nothing in it")
            view[done : done + len(data)] = data
            done += len(data)

    def close(self) -> None:
        for stream in self._streams.values():
            with contextlib.suppress(AttributeError):
                stream.cancel()  # type: ignore[attr-defined]


def _count(places: pb.KvPlaces) -> int:
    return len(places.lengths)


class Storing:
    """Room for the last blocks of a chain, to be filled part by part."""

    def __init__(
        self, home: Home, started: pb.KvPlaces, first: int, pace: Pace, call: dict[str, Any]
    ) -> None:
        """Use `KVStore.storing`."""
        self._home = home
        self._started = started
        self._first = first
        self._pace = pace
        self._call = call
        self._written = [0] * len(started.codes)
        self._sums = [xxh3_64() for _ in started.codes]
        self._broken = False

    def write(self, number: int, data: memoryview) -> None:
        """Of its `number`-th block, the bytes behind those that were written before."""
        if self._broken or self._started.codes[number] != Code.OK:
            return
        at = self._written[number]
        if at + len(data) > self._started.lengths[number]:
            raise ValueError("more bytes than the block has")
        self._pace.spend(len(data))
        try:
            if self._home.slab is not None:
                self._home.slab.write(data, self._started.offsets[number] + at)
            else:
                put = self._started.puts[number]
                self._home.stub.Write(pieces(put, at, data), **self._call)
        except (grpc.RpcError, OSError) as error:
            log.info("blocks could not be stored: %s", error)
            self._broken = True
        self._sums[number].update(data)
        self._written[number] = at + len(data)

    def commit(self) -> int:
        """How many blocks of the whole chain are stored then. Those that were not written in full
        are given up."""
        codes = self._started.codes
        mine = [n for n, code in enumerate(codes) if code == Code.OK]
        full = [n for n in mine if self._written[n] == self._started.lengths[n]]
        if self._broken or len(full) < len(mine):
            self.abort()
            return self._first
        puts = [self._started.puts[n] for n in mine]
        sums = [self._sums[n].intdigest() for n in mine]
        done: list[int] = []
        try:
            if mine:
                request = pb.KvPutCommit(puts=puts, checksums=sums)
                done = list(self._home.stub.PutCommit(request, **self._call).codes)
        except grpc.RpcError as error:
            log.info("blocks could not be stored: %s", error)
        committed = {n for n, code in zip(mine, done, strict=False) if code == Code.OK}
        good = [n in committed or code == Code.EXISTS for n, code in enumerate(codes)]
        return self._first + prefix_of(good)

    def abort(self) -> None:
        """Nothing of it is stored."""
        puts = [put for put in self._started.puts if put]
        with contextlib.suppress(grpc.RpcError):
            self._home.stub.PutAbort(pb.KvPutAbort(puts=puts), **self._call)
