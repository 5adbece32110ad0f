"""The client of a KVCache pool.

    with KVStore.open(config, "chat", chain) as store:
        keys = chain.keys(prompt)
        found = store.get_into(keys, buffers)      # blocks of the longest stored prefix
        store.put(keys, blocks, first=found)       # what was computed since

All blocks of one prompt live on one data daemon, chosen by the first key (`replicate` puts copies
on those that would be chosen next). On its host their bytes
go through the slab, a file on a tmpfs that both open, elsewhere by streams. Every block that is
returned has been compared with its checksum; what does not match, or cannot be had, is a miss, and
so is a daemon that does not answer: what is cached can be computed. Blocking; one call at a time.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import grpc

from superfs.core.errors import Code, FsError
from superfs.core.limits import KV_KEYS_MAX
from superfs.kvcache.byparts import Reading, Storing
from superfs.kvcache.holding import Hold
from superfs.kvcache.home import CALL_S
from superfs.kvcache.parts import bad_of, parts_of, prefix_of
from superfs.kvcache.reached import Reached
from superfs.v1 import kvcache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.client import ClientConfig
    from superfs.core.kvcache.keys import KeyChain
    from superfs.kvcache.home import Home

log = logging.getLogger("superfs.kvcache")

Buffer = bytes | bytearray | memoryview
PERSIST_S = 60.0
PARTS_S = 60.0  # for a load part by part: leases end before
COPIED_BLOCKS = 16
"""At a time, from one data daemon to others."""


class KVStore(Reached):
    @classmethod
    def open(
        cls, config: ClientConfig, namespace: str, chain: KeyChain, *,
        quota_bytes: int = 0, policy: str = "", disk_bytes: int | None = None, shared: bool = True,
        copies: int = 1, bytes_per_s: float = 0,
    ) -> KVStore:  # fmt: skip
        """Makes the namespace where it is not there; then `quota_bytes`, `policy` and `disk_bytes`
        (None: as much as there is; 0: memory only) count. `shared=False`: by streams also on one
        host. `copies`: when a data daemon does not answer, so many in all are asked (`replicate`),
        and removing removes from them. `bytes_per_s`: no more of blocks is read and written,
        for others to have their part of a disk or a network; 0: as fast as it goes."""
        opening = pb.KvOpen(
            name=namespace, layout=chain.layout, quota_bytes=quota_bytes, policy=policy,
            disk_bytes=disk_bytes,
        )  # fmt: skip
        store = cls(config, opening, chain, shared=shared, copies=copies, bytes_per_s=bytes_per_s)
        store._admit()
        for home in store._homes.values():
            store._ask(home, lambda _: None)
        return store

    def __enter__(self) -> KVStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- verbs

    def match(self, keys: Sequence[bytes]) -> int:
        """How many of them, from the first on, are stored. Holds nothing."""
        return self._count(keys, "Match")

    def get(self, keys: Sequence[bytes]) -> list[bytes]:
        """The blocks of the longest stored prefix."""
        found: list[bytes] = []
        for part in parts_of(keys):
            blocks = self._blocks(keys, part)
            found += blocks
            if len(blocks) < len(part):
                break
        return found

    def _blocks(self, keys: Sequence[bytes], part: Sequence[bytes]) -> list[bytes]:
        found: list[bytes] = []

        def take(home: Home, places: pb.KvPlaces) -> list[int]:
            buffers = [bytearray(length) for length in places.lengths]
            good = home.read(places, buffers, self._call())
            found.extend(bytes(buffer) for buffer in buffers[: prefix_of(good)])
            return bad_of(good)

        self._lease(keys, part, take)
        return found

    def get_into(
        self, keys: Sequence[bytes], buffers: Sequence[bytearray | memoryview], first: int = 0
    ) -> int:
        """The same into the caller's memory, of the whole chain's blocks from `first` on: how many
        buffers, from the first one on, are right. Of one behind them nothing can be said. A block
        that has another length than its buffer is a miss."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]

        def read(home: Home, places: pb.KvPlaces, mine: Sequence[memoryview]) -> list[bool]:
            fits = 0
            while fits < len(mine) and len(mine[fits]) == places.lengths[fits]:
                fits += 1
            return home.read(places, mine[:fits], self._call())

        return self._fill(keys, views, first, read)

    def get_ranges(
        self, keys: Sequence[bytes], ranges: Sequence[tuple[int, int]],
        buffers: Sequence[bytearray | memoryview], first: int = 0,
    ) -> int:  # fmt: skip
        """The same of parts of blocks only: these ranges (offset, length) of each, one behind the
        other in its buffer. They are compared like blocks are: on the daemon's host by the client,
        which reads the whole block for that; elsewhere by the daemon, and these bytes are sent."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        size = sum(length for _, length in ranges)
        if any(len(view) != size for view in views) or min(map(min, ranges), default=0) < 0:
            raise FsError(Code.INVALID, "a buffer has the length of all ranges together")

        def read(home: Home, places: pb.KvPlaces, mine: Sequence[memoryview]) -> list[bool]:
            return home.read_ranges(places, ranges, mine, self._call())

        return self._fill(keys, views, first, read)

    def _fill(
        self,
        keys: Sequence[bytes],
        views: Sequence[memoryview],
        first: int,
        read: Callable[[Home, pb.KvPlaces, Sequence[memoryview]], list[bool]],
    ) -> int:
        done = 0

        def take(home: Home, places: pb.KvPlaces) -> list[int]:
            nonlocal done
            good = read(home, places, views[done : done + len(places.lengths)])
            done += prefix_of(good)
            return bad_of(good)

        for part in parts_of(keys[first : first + len(views)]):
            before = done
            self._lease(keys, part, take)
            if done - before < len(part):
                break
        return done

    def get_parts(
        self, keys: Sequence[bytes], sizes: Sequence[int],
        room: Callable[[int], Sequence[Sequence[memoryview]]], arrived: Callable[[int, int], bool],
    ) -> int:  # fmt: skip
        """As `get_into`, part by part: the first `sizes[0]` bytes of each block of the longest
        stored prefix, then the next `sizes[1]` of each, … so that what comes first can be used
        while the rest is on its way. `room` is told how many blocks there are, and gives for each
        part a buffer for each of as many of them as are wanted. `arrived(part, blocks)`: so many
        blocks' part is there, which nobody has compared yet; False stops it, then nothing is right.
        How many blocks were right, from the first on, is known at the end only."""
        hold = self.hold(keys)
        good: list[bool] = []
        try:
            call = self._call(PARTS_S)
            reading = Reading(hold.leased, sizes, self._pace, self._hands, call)
            rooms = room(reading.found)
            try:
                if reading.found and rooms and rooms[0]:
                    good = reading.run(rooms, arrived)
            finally:
                reading.close()
        finally:
            hold.release(good)
        return prefix_of(good)

    def hold(self, keys: Sequence[bytes]) -> Hold:
        """The longest stored prefix of these, for as long as leases last, to be released."""
        leased: list[tuple[Home, pb.KvPlaces]] = []
        try:
            for part in parts_of(keys):
                found = self._leased(keys, part)
                if found is not None:
                    leased.append(found)
                if found is None or len(found[1].lengths) < len(part):
                    break
        except BaseException:
            Hold(leased, self._give_back).release()
            raise
        return Hold(leased, self._give_back)

    def read(self, hold: Hold, buffers: Sequence[memoryview]) -> list[bool]:
        """The first of the blocks that are held, into buffers of their lengths: which of them are
        right. Where one has another length, it and all behind it are not."""
        good: list[bool] = []
        for home, places in hold.leased:
            mine = buffers[len(good) : len(good) + len(places.lengths)]
            fits = prefix_of([
                len(view) == length for view, length in zip(mine, places.lengths, strict=False)
            ])  # fmt: skip
            good += home.read(places, mine[:fits], self._call())
            if fits < len(places.lengths):
                break
        return good

    def storing(self, keys: Sequence[bytes], count: int, size: int) -> Storing | None:
        """Room for the last `count` blocks of this chain (at most `KV_KEYS_MAX`), of `size` bytes
        each, to be written part by part and committed. None: nobody answers."""
        home, first = self._home(keys), len(keys) - count
        parent = keys[first - 1] if first else b""
        started = self._started(home, keys[first:], parent, [size] * count)
        return None if started is None else Storing(home, started, first, self._pace, self._call())

    def put(
        self, keys: Sequence[bytes], blocks: Sequence[Buffer], first: int = 0, *,
        durable: bool = False,
    ) -> int:  # fmt: skip
        """`keys` of the whole chain, `blocks` those from `first` on. How many blocks of the chain
        are stored afterwards; less than all when there was no room, or a daemon was away.
        `durable`: that are on disk, and synced."""
        end = min(len(keys), first + len(blocks))
        done = first
        while done < end:
            count = min(KV_KEYS_MAX, end - done)
            part = blocks[done - first : done - first + count]
            parent = keys[done - 1] if done else b""
            stored = self._put(self._home(keys), keys[done : done + count], parent, part)
            done += stored
            if stored < count:
                break
        return self.persist(keys[:done]) if durable else done

    def replicate(self, keys: Sequence[bytes], copies: int = 2) -> int:
        """Copies what is stored of them to further data daemons, those that stores with as many
        `copies` ask when one is away. How many blocks, from the first on, are on all of these."""
        _, *others = self._homes_of(keys)[: max(1, copies)]
        done = 0
        while done < len(keys):
            part = keys[done : done + COPIED_BLOCKS]
            blocks = self._blocks(keys, part)
            parent = keys[done - 1] if done else b""
            stored = len(blocks)
            for home in others if blocks else []:
                stored = min(stored, self._put(home, part[: len(blocks)], parent, blocks))
            done += stored
            if stored < len(part):
                break
        return done

    def persist(self, keys: Sequence[bytes]) -> int:
        """Waits until what is stored of them is on disk: how many are, from the first on."""
        return self._count(keys, "Persist")

    def pin(self, keys: Sequence[bytes], ttl_s: float) -> int:
        """How many of the first are not evicted for so long, at most."""
        return self._count(keys, "Pin", ttl_ms=round(ttl_s * 1000))

    def unpin(self, keys: Sequence[bytes]) -> int:
        return self._count(keys, "Unpin", whole=True)

    def remove(self, keys: Sequence[bytes]) -> int:
        """These and everything behind them: how many blocks that were."""
        return self._count(keys, "Remove", whole=True)

    def drop(self) -> None:
        """The namespace, with all that is in it, on every data daemon. This store is over then."""
        for home in self._homes.values():
            self._asked(home, lambda h: h.stub.Drop(pb.KvDrop(namespace=h.number), **self._call()))

    @property
    def granule_bytes(self) -> int:
        """Blocks take a multiple of it."""
        return max(home.granule_bytes for home in self._homes.values())

    def stats(self) -> list[pb.KvStats]:
        """Of this namespace, on each data daemon that answers."""
        found = []
        for home in self._homes.values():
            one = self._asked(
                home,
                lambda h: h.stub.Stats(pb.KvStatsRequest(namespace=h.number), **self._call()),
            )
            if one is not None:
                found.append(one)
        return found

    # ---- inside

    def _count(self, keys: Sequence[bytes], verb: str, *, whole: bool = False, **more: int) -> int:
        """`whole`: all parts, else up to the first that is not there."""
        total = 0
        for part in parts_of(keys):
            found = -1
            for home in self._homes_of(keys)[: self._copies]:
                found = max(found, self._at(home, part, verb, **more))
                if found >= 0 and not whole:  # it answers; else: everywhere
                    break
            total += max(found, 0)
            if found < 0 or (not whole and found < len(part)):
                break
        return total

    def _at(self, home: Home, part: Sequence[bytes], verb: str, **more: int) -> int:
        """-1: it does not answer."""
        kind = pb.KvPin if verb == "Pin" else pb.KvKeys
        call = self._call(PERSIST_S if verb == "Persist" else CALL_S)
        reply = self._asked(
            home,
            lambda h: getattr(h.stub, verb)(
                kind(namespace=h.number, keys=b"".join(part), **more), **call
            ),
        )
        return -1 if reply is None else reply.count

    def _lease(
        self,
        keys: Sequence[bytes],
        part: Sequence[bytes],
        take: Callable[[Home, pb.KvPlaces], list[int]],
    ) -> None:
        leased = self._leased(keys, part)
        if leased is None:
            return
        bad: list[int] = []
        try:
            bad = take(*leased)
        finally:
            self._give_back(*leased, bad)

    def _leased(
        self, keys: Sequence[bytes], part: Sequence[bytes]
    ) -> tuple[Home, pb.KvPlaces] | None:
        """None: nothing of it is stored, or nobody answers."""
        for home in self._homes_of(keys)[: self._copies]:
            places = self._asked(
                home,
                lambda h: h.stub.Get(
                    pb.KvGet(namespace=h.number, keys=b"".join(part)), **self._call()
                ),
            )
            if places is not None:  # it answers: what it has not is a miss
                break
        if places is None or not places.lease:
            return None
        home.agree(places.slab_id)
        return home, places

    def _give_back(self, home: Home, places: pb.KvPlaces, bad: list[int]) -> None:
        request = pb.KvRelease(leases=[places.lease], damaged_of=places.lease, damaged=bad)
        self._behind_it(home.stub.Release.future(request, **self._call()))
        if bad:
            self._finish()  # then it has been looked at, and is not stored any more

    def _put(
        self, home: Home, part: Sequence[bytes], parent: bytes, blocks: Sequence[Buffer]
    ) -> int:
        views = [memoryview(block).cast("B") for block in blocks]
        started = self._started(home, part, parent, [len(view) for view in views])
        if started is None:
            return 0
        mine = [n for n, code in enumerate(started.codes) if code == Code.OK]
        numbers = [started.puts[n] for n in mine]
        try:
            sums = home.write(started, mine, views, self._call())
            commit = pb.KvPutCommit(puts=numbers, checksums=sums)
            codes = list(home.stub.PutCommit(commit, **self._call()).codes) if mine else []
        except (grpc.RpcError, OSError) as error:
            log.info("blocks could not be stored: %s", error)
            with contextlib.suppress(grpc.RpcError):
                home.stub.PutAbort(pb.KvPutAbort(puts=numbers), **self._call())
            return 0
        committed = {n for n, code in zip(mine, codes, strict=True) if code == Code.OK}
        good = [n in committed or code == Code.EXISTS for n, code in enumerate(started.codes)]
        return prefix_of(good)

    def _started(
        self, home: Home, part: Sequence[bytes], parent: bytes, lengths: Sequence[int]
    ) -> pb.KvPlaces | None:
        """None: it does not answer."""
        started: pb.KvPlaces | None = self._asked(
            home,
            lambda h: h.stub.PutStart(
                pb.KvPutStart(
                    namespace=h.number, parent=parent, keys=b"".join(part), lengths=lengths
                ),
                **self._call(),
            ),
        )
        if started is not None:
            home.agree(started.slab_id)
        return started
