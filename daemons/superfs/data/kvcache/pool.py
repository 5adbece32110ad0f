"""The pool: what is stored, who holds it, what goes. Bookkeeping in one thread; bytes are the
slab's, and who reads and writes them are clients or the service.

A put is started (there is room, the block is in the table, pinned, its parent with it), then
committed (from now on it can be read) or given up: by its client, after `put_s`, or because
something before it in its chain was removed. A get holds what it was told of with a lease, for at
most `lease_s`. Room that is still held when its block goes is free when the lease ends. Who reads
or writes for longer than that meets a checksum that does not match: a miss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.policy import POLICIES
from superfs.data.kvcache import namespaces
from superfs.data.kvcache.namespaces import Made, Namespace
from superfs.data.kvcache.places import Place
from superfs.data.kvcache.slab import NO_KEY, Record, Slab, record_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from superfs.core.kvcache.table import Block
    from superfs.data.kvcache.config import KvCacheConfig
    from superfs.data.kvcache.tier import DiskTier

PROMOTING = -1  # the session of what comes back from disk: no client's
LEASES_MAX = 4096
PUTS_MAX = 65_536


@dataclass(slots=True, eq=False)
class Put:
    session: int
    space: Namespace
    key: bytes
    block: Block
    place: Place
    until: float


@dataclass(slots=True, eq=False)
class Lease:
    session: int
    space: Namespace
    held: list[tuple[bytes, Block, Place]]
    until: float


class Pool:
    def __init__(
        self, slab: Slab, state: Path, config: KvCacheConfig, rng: Random,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.slab = slab
        self.config = config
        self.spaces: dict[int, Namespace] = {}
        self.puts: dict[int, Put] = {}
        self._pending: dict[Place, int] = {}  # the number of the put that is to fill it
        self.leases: dict[int, Lease] = {}
        self.damaged = 0
        self._state = state
        self._rng = rng
        self._clock = clock
        self.tier: DiskTier | None = None
        self._next, found = namespaces.load(state)
        for made in found:
            self.spaces[made.number] = Namespace(made, slab.granule)
        self._restore()

    def use(self, tier: DiskTier) -> None:
        """From now on what is committed goes to disk, too; so does what is not there yet."""
        self.tier = tier
        tier.restore(self.spaces.values())
        for space in self.spaces.values():
            for key, place in space.places.items():  # parents first: so they were restored
                tier.note(space, key, place)

    @property
    def capacity_bytes(self) -> int:
        return self.slab.granule * self.slab.granules

    # ---- namespaces

    def open(
        self, name: str, layout: bytes, quota_bytes: int, policy: str, disk_bytes: int = -1
    ) -> Namespace:
        namespaces.check(name, layout)
        for space in self.spaces.values():
            if space.made.name == name:
                if space.made.layout != layout.hex():
                    raise FsError(Code.EXISTS, f"{name} is there, with another layout")
                return space
        if policy not in ("", *POLICIES):
            raise FsError(Code.INVALID, f"a policy is one of {', '.join(POLICIES)}")
        if len(self.spaces) >= self.config.namespaces_max:
            raise FsError(Code.TOO_LARGE, f"at most {self.config.namespaces_max} namespaces")
        quota = min(quota_bytes or self.capacity_bytes, self.capacity_bytes)
        made = Made(self._next, name, layout.hex(), quota, policy or "lru", disk_bytes)
        every = [*(s.made for s in self.spaces.values()), made]
        namespaces.save(self._state, self._next + 1, every)
        self._next += 1
        space = self.spaces[made.number] = Namespace(made, self.slab.granule)
        if self.tier is not None:
            self.tier.attach(space)
        return space

    def drop(self, space: Namespace) -> int:
        """How many blocks were in it."""
        rest = [s.made for s in self.spaces.values() if s is not space]
        namespaces.save(self._state, self._next, rest)
        del self.spaces[space.made.number]
        count = space.count()
        if self.tier is not None:
            self.tier.detach(space)
        for block in space.table.roots():
            self._drop(space, block)
        return count

    def space(self, number: int) -> Namespace:
        found = self.spaces.get(number)
        if found is None:
            raise FsError(Code.NOT_FOUND, "no such namespace")
        return found

    def _restore(self) -> None:
        """What the slab has kept, parents first; what is nobody's is forgotten."""
        for at, record in sorted(self.slab.records(), key=lambda one: (one[1].depth, one[1].born)):
            if not self._restored(at, record):
                self.slab.zero_record(at)
        for space in self.spaces.values():
            space.table.now = max(space.table.last, default=0)

    def _restored(self, at: int, record: Record) -> bool:
        space = self.spaces.get(record.namespace)
        if space is None or record.key in space.table.blocks or not record.length:
            return False
        parent = None
        if record.parent != NO_KEY:
            parent = space.table.blocks.get(record.parent)
            if parent is None:
                return False
        count = self.slab.granules_of(record.length)
        if not space.table.fits(count * self.slab.granule) or not self.slab.runs.take_at(at, count):
            return False
        block = space.table.insert(record.key, parent, count * self.slab.granule)
        space.table.restore(block, record.born, record.last, record.uses)
        place = Place(self.slab, at, count, record.length, record.checksum, committed=True)
        space.places.enter(block, place)
        space.table.unpin(block)
        return True

    # ---- storing

    def start(
        self, session: int, space: Namespace, parent: bytes, keys: list[bytes], lengths: list[int]
    ) -> list[tuple[Code, int, Place | None]]:
        """For each a code, and where that is OK the put's number and its place."""
        found: list[tuple[Code, int, Place | None]] = []
        before: Block | None = None
        for key, length in zip(keys, lengths, strict=True):
            code, number, place = self._start(session, space, parent, before, key, length)
            found.append((code, number, place))
            before = self.puts[number].block if number else None
            parent = key
        space.dropped += sum(1 for code, _, _ in found if code is Code.NO_SPACE)
        return found

    def _start(
        self, session: int, space: Namespace, parent_key: bytes, before: Block | None,
        key: bytes, length: int,
    ) -> tuple[Code, int, Place | None]:  # fmt: skip
        """`before`: its parent, where that was started just now: so it is pinned."""
        if key in space.places:
            return (Code.EXISTS if space.places.committed(key) else Code.BUSY), 0, None
        if session != PROMOTING and space.shelved(key):
            return Code.EXISTS, 0, None
        if not 0 < length <= self.config.block_bytes_max:
            return Code.TOO_LARGE, 0, None
        parent = before
        if parent is None and parent_key:
            parent = space.table.blocks.get(parent_key)
            if parent is None:
                return Code.NOT_FOUND, 0, None
            space.table.pin(parent)
        try:
            place = self._room(space, length) if len(self.puts) < PUTS_MAX else None
            if place is None:
                return Code.NO_SPACE, 0, None
            block = space.table.insert(key, parent, place.granules * self.slab.granule)
        finally:
            if parent is not None and before is None:
                space.table.unpin(parent)
        space.places.enter(block, place)
        number = self._pending[place] = self._number(self.puts)
        until = self._clock() + self.config.put_s
        self.puts[number] = Put(session, space, key, block, place, until)
        return Code.OK, number, place

    def _room(self, space: Namespace, length: int) -> Place | None:
        """Within the quota, then in the slab, where the namespace that has most makes way."""
        count = self.slab.granules_of(length)
        size = count * self.slab.granule
        if size > space.table.capacity:
            return None
        for block in space.table.make_room(size):
            self._evicted(space, block)
        if not space.table.fits(size):
            return None
        while (at := self.slab.runs.take(count)) is None:
            for other in sorted(self.spaces.values(), key=lambda s: -s.table.used):
                gone = other.table.evict()
                if gone is not None:
                    self._evicted(other, gone)
                    break
            else:
                return None
        return Place(self.slab, at, count, length)

    def commit(self, session: int, number: int, checksum: int) -> Code:
        """NOT_FOUND: it, or what is before it, was given up meanwhile or is not committed."""
        put = self.puts.get(number)
        if put is None or put.session != session:
            return Code.NOT_FOUND
        if not put.space.places.may_follow(put.block):
            self._drop(put.space, put.block)
            return Code.NOT_FOUND
        del self.puts[number], self._pending[put.place]
        put.space.places.commit(put.block, put.place, checksum)
        self._record(put.space, put.block, put.place)
        put.space.table.unpin(put.block)
        if self.tier is not None:
            self.tier.note(put.space, put.key, put.place)
        return Code.OK

    def abort(self, session: int, number: int) -> Code:
        put = self.puts.get(number)
        if put is None or put.session != session:
            return Code.NOT_FOUND
        self._drop(put.space, put.block)
        return Code.OK

    def put_of(self, session: int, number: int) -> Put:
        put = self.puts.get(number)
        if put is None or put.session != session:
            raise FsError(Code.NOT_FOUND, "no such put, or not any more")
        return put

    # ---- reading

    def get(self, session: int, space: Namespace, keys: list[bytes]) -> tuple[int, list[Place]]:
        """The longest prefix; its lease, 0 where there is nothing to hold."""
        found = space.committed(keys)
        space.asked += len(keys)
        space.found += len(found)
        if not found:
            return 0, []
        if len(self.leases) >= LEASES_MAX:
            raise FsError(Code.BUSY, "too many gets are in progress")
        held = []
        for key in found:
            block, place = space.table.blocks[key], space.places[key]
            space.table.touch(block)
            space.table.pin(block)
            place.readers += 1
            self._record(space, block, place)
            if self.tier is not None:
                self.tier.touch(space, key)
            held.append((key, block, place))
        number = self._number(self.leases)
        self.leases[number] = Lease(session, space, held, self._clock() + self.config.lease_s)
        return number, [place for _, _, place in held]

    def lease_of(self, session: int, number: int) -> Lease:
        lease = self.leases.get(number)
        if lease is None or lease.session != session:
            raise FsError(Code.NOT_FOUND, "no such lease, or not any more")
        return lease

    def release(self, session: int, number: int) -> Code:
        lease = self.leases.get(number)
        if lease is None or lease.session != session:
            return Code.NOT_FOUND
        del self.leases[number]
        self._release(lease)
        return Code.OK

    def _release(self, lease: Lease) -> None:
        for _, block, place in lease.held:
            if not place.gone:
                lease.space.table.unpin(block)
            place.let_go()

    # ---- pins, removal

    def pin(self, space: Namespace, keys: list[bytes], ttl_s: float) -> int:
        """How many of the first: beyond the cap on pins nothing is pinned."""
        until = self._clock() + min(ttl_s, self.config.pin_s_max)
        cap = space.table.capacity * self.config.pinned_percent_max // 100
        count = 0
        for key in space.committed(keys):
            block = space.table.blocks[key]
            if key not in space.pins:
                if space.pinned_bytes + block.size > cap:
                    break
                space.table.pin(block)
                space.pinned_bytes += block.size
            space.pins[key] = (block, until)
            count += 1
        return count

    def unpin(self, space: Namespace, keys: list[bytes]) -> int:
        return sum(self._unpin(space, key) for key in keys)

    def _unpin(self, space: Namespace, key: bytes) -> bool:
        block, _ = space.pins.pop(key, (None, 0.0))
        if block is None:
            return False
        space.pinned_bytes -= block.size
        if key in space.table.blocks:  # else it has left just now
            space.table.unpin(block)
        return True

    def remove(self, space: Namespace, keys: list[bytes]) -> int:
        """How many were there, in memory, on disk or in both."""
        gone: set[bytes] = set()
        for key in keys:
            block = space.table.blocks.get(key)
            if block is not None:
                gone.update(self._drop(space, block))
            if self.tier is not None:
                gone.update(self.tier.remove(space, key))
        return len(gone)

    def check(self, space: Namespace, key: bytes, place: Place) -> None:
        """Somebody has read something else than was stored. What is so really, goes."""
        if space.places.get(key) is not place:
            return
        if self.slab.checksum(place.at, place.length) != place.checksum:
            self.damaged += 1
            self._drop(space, space.table.blocks[key])

    # ---- time

    def expire(self) -> None:
        now = self._clock()
        for put in [put for put in self.puts.values() if put.until <= now]:
            if put.space.places.get(put.key) is put.place:  # not gone with one before it
                self._drop(put.space, put.block)
        for number in [n for n, lease in self.leases.items() if lease.until <= now]:
            self._release(self.leases.pop(number))
        for space in self.spaces.values():
            for key in [k for k, (_, until) in space.pins.items() if until <= now]:
                self._unpin(space, key)

    # ---- inside

    def _number(self, taken: dict[int, Put] | dict[int, Lease]) -> int:
        while (number := self._rng.getrandbits(63) + 1) in taken:
            pass
        return number

    def _record(self, space: Namespace, block: Block, place: Place) -> None:
        self.slab.write_record(place.at, record_of(space, block, place))

    def _evicted(self, space: Namespace, block: Block) -> None:
        space.evicted += 1
        self._left(space, block)

    def _drop(self, space: Namespace, block: Block) -> list[bytes]:
        gone = space.table.remove(block)
        for one in gone:
            number = self._pending.pop(self._left(space, one), 0)
            if number:
                del self.puts[number]
        return [one.key for one in gone]

    def _left(self, space: Namespace, block: Block) -> Place:
        self._unpin(space, block.key)
        return space.places.leave(block)
