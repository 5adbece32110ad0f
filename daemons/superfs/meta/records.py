"""What the values of the metadata store look like, and the checksum behind each of them.

A stored value is the packed record and the 8-byte xxh3_64 of key + record, seeded with the number
of its table: a record that was flipped, cut, or turned up under another key is noticed at every
read. All numbers little-endian; lengths of variable parts follow from the size of the value.

    Dentry     ino u64, generation u32, mode u32, uid u32, gid u32, flags u32
    Attr       core/attrs.py: pack_attr
    Directory  packed Attr, parent u64, chains u8, chain u16 each, name
    Orphan     packed Attr, holder u64 each
    Counter    next ino counter u64, next generation u32, next data generation u32
    Run        first ino u64, session u64
    Session    epoch u64, acked_below u64, ended_ns i64 (0: alive), uid u32, gid u32, kind u8,
               flags u8 (1: has leases, 2: its fence is owed, 4: may have exclusive leases),
               range u32, highest counter used of it u32, runs u8, (first u32, last u32) of each
               run of generations, name of the client in UTF-8
    Debt       size u64 (truncate: what is left; reap: 0), place u64, chain u16 each
    Cache      bytes at most u64, ttl s u64, bytes u64, files u64, next in a queue u64, bytes in
               the small queue u64, evicted files u64, evicted bytes u64, uid u32, gid u32,
               policy u8
    CacheFile  root u64, size u64, last use ns u64, place in the queue u64, uses u32, policy u8,
               flags u8 (1: temporary, 2: in the main queue), name
    Walk       root u64 (0: out of any cache), again u8, last name seen
    State      commit u64, last time i64, size of the file u64, last range u32, next generation
               of the cluster u32, then (records u64, sum of checksums u64) for each table
    Identity   format version u32, node u32, cluster id
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from xxhash import xxh3_64_digest

from superfs.core.attrs import PACKED_ATTR_BYTES, pack_attr, unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import GENERATION_HALF
from superfs.core.namespace.txn import Dentry, Directory, Orphan
from superfs.daemon.statedir import Identity
from superfs.meta.keys import Table

FORMAT_VERSION = 2
CHECKSUM_BYTES = 8
SUM_MASK = (1 << 64) - 1

DENTRY = struct.Struct("<QIIIII")
_DIRECTORY = struct.Struct("<QB")
_ID = struct.Struct("<Q")
_COUNTER = struct.Struct("<QII")
_DEBT = struct.Struct("<QQ")
_RUN = struct.Struct("<QQ")
_SESSION = struct.Struct("<QQqIIBBIIB")
_LEASES, _FENCE_OWED, _EXCLUSIVE = 1, 2, 4
_GENERATIONS = struct.Struct("<II")
_STATE = struct.Struct("<QqQII")
_TALLY = struct.Struct("<QQ")
_IDENTITY = struct.Struct("<II")
_CACHE = struct.Struct("<QQQQQQQQIIB")
_CACHE_FILE = struct.Struct("<QQQQIBB")
_TEMPORARY, _MAIN = 1, 2
_WALK = struct.Struct("<QB")


# ---- checksums -----------------------------------------------------------------------------------


def seal(table: Table, key: bytes, record: bytes) -> bytes:
    return record + xxh3_64_digest(key + record, table)


def unseal(table: Table, key: bytes, value: bytes) -> bytes:
    """The record of a stored value. Raises FsError(DAMAGED) when the checksum does not match."""
    record = value[:-CHECKSUM_BYTES]
    if xxh3_64_digest(key + record, table) != value[-CHECKSUM_BYTES:]:
        raise damaged(table, key)
    return record


def checksum_of(value: bytes) -> int:
    """As a number, of a stored value: what the tally of its table adds up."""
    return int.from_bytes(value[-CHECKSUM_BYTES:], "big")


def damaged(table: Table, key: bytes) -> FsError:
    return FsError(Code.DAMAGED, f"{table.name.lower()} record {key.hex()}: checksum mismatch")


# ---- the namespace -------------------------------------------------------------------------------


def pack_dentry(d: Dentry) -> bytes:
    return DENTRY.pack(d.ino, d.generation, d.mode, d.uid, d.gid, d.flags)


def unpack_dentry(record: bytes) -> Dentry:
    return Dentry(*DENTRY.unpack(record))


def pack_directory(d: Directory) -> bytes:
    head = pack_attr(d.attr) + _DIRECTORY.pack(d.parent, len(d.layout))
    return head + pack_chains(d.layout) + d.name


def unpack_directory(record: bytes) -> Directory:
    parent, chains = _DIRECTORY.unpack_from(record, PACKED_ATTR_BYTES)
    start = PACKED_ATTR_BYTES + _DIRECTORY.size
    end = start + 2 * chains
    return Directory(unpack_attr(record), parent, record[end:], unpack_chains(record[start:end]))


def pack_orphan(o: Orphan) -> bytes:
    return pack_attr(o.attr) + b"".join(map(_ID.pack, sorted(o.holders)))


def unpack_orphan(record: bytes) -> Orphan:
    holders = {h for (h,) in _ID.iter_unpack(record[PACKED_ATTR_BYTES:])}
    return Orphan(unpack_attr(record), holders)


pack_id = _ID.pack


def unpack_id(record: bytes) -> int:
    (value,) = _ID.unpack(record)
    return int(value)


def pack_chains(chains: tuple[int, ...]) -> bytes:
    return struct.pack(f"<{len(chains)}H", *chains)


def unpack_chains(record: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(record) // 2}H", record)


# ---- the daemon's own ----------------------------------------------------------------------------


@dataclass(slots=True)
class Counter:
    """The next number of each kind in one slot; 0 is never given."""

    ino: int = 1
    generation: int = 1
    data_generation: int = 1


def pack_counter(c: Counter) -> bytes:
    return _COUNTER.pack(c.ino, c.generation, c.data_generation)


def unpack_counter(record: bytes) -> Counter:
    return Counter(*_COUNTER.unpack(record))


@dataclass(frozen=True, slots=True)
class Run:
    """Reserved numbers from `first` to the one it is filed under."""

    first: int
    session: int


def pack_run(r: Run) -> bytes:
    return _RUN.pack(r.first, r.session)


def unpack_run(record: bytes) -> Run:
    return Run(*_RUN.unpack(record))


@dataclass(slots=True)
class Session:
    """Who a client was. An ended session stays on record, so that nothing of it ever runs."""

    epoch: int = 1
    acked_below: int = 0
    ended_ns: int = 0
    uid: int = 0
    gid: int = 0
    kind: int = 0
    client: str = ""
    leases: bool = False
    exclusive: bool = False
    range: int = 0
    """Of the numbers of its files (core/ids.py); 0: it has none."""
    used: int = 0
    runs: tuple[tuple[int, int], ...] = ()
    """First and last of the generations that it has reserved and not used."""
    fence_owed: bool = False


def pack_session(s: Session) -> bytes:
    flags = _LEASES * s.leases | _FENCE_OWED * s.fence_owed | _EXCLUSIVE * s.exclusive
    head = _SESSION.pack(
        s.epoch, s.acked_below, s.ended_ns, s.uid, s.gid, s.kind, flags, s.range, s.used,
        len(s.runs),
    )  # fmt: skip
    runs = b"".join(_GENERATIONS.pack(*run) for run in s.runs)
    return head + runs + s.client.encode()


def unpack_session(record: bytes) -> Session:
    epoch, acked_below, ended_ns, uid, gid, kind, flags, range_, used, runs = _SESSION.unpack_from(
        record
    )
    end = _SESSION.size + runs * _GENERATIONS.size
    return Session(
        epoch, acked_below, ended_ns, uid, gid, kind, record[end:].decode(),
        bool(flags & _LEASES), bool(flags & _EXCLUSIVE), range_, used,
        tuple(_GENERATIONS.iter_unpack(record[_SESSION.size : end])), bool(flags & _FENCE_OWED),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Debt:
    """What the data daemons of `chains` have to be told: see the key for whom and what. `place`
    is where the inode was filed then."""

    size: int
    place: int
    chains: tuple[int, ...]


def pack_debt(d: Debt) -> bytes:
    return _DEBT.pack(d.size, d.place) + pack_chains(d.chains)


def unpack_debt(record: bytes) -> Debt:
    size, place = _DEBT.unpack_from(record)
    return Debt(size, place, unpack_chains(record[_DEBT.size :]))


@dataclass(slots=True)
class Cache:
    """A bounded cache directory. `uid` and `gid`: on whose behalf files go."""

    bytes_max: int
    policy: int
    ttl_s: int = 0
    uid: int = 0
    gid: int = 0
    bytes: int = 0
    files: int = 0
    next: int = 1
    small_bytes: int = 0
    evicted_files: int = 0
    evicted_bytes: int = 0


def pack_cache(c: Cache) -> bytes:
    return _CACHE.pack(
        c.bytes_max, c.ttl_s, c.bytes, c.files, c.next, c.small_bytes, c.evicted_files,
        c.evicted_bytes, c.uid, c.gid, c.policy,
    )  # fmt: skip


def unpack_cache(record: bytes) -> Cache:
    (
        bytes_max, ttl_s, used, files, next_, small_bytes, evicted_files, evicted_bytes, uid, gid,
        policy,
    ) = _CACHE.unpack(record)  # fmt: skip
    return Cache(
        bytes_max, policy, ttl_s, uid, gid, used, files, next_, small_bytes, evicted_files,
        evicted_bytes,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CacheFile:
    """A file as its cache knows it. `queue`: its place in the one of S3-FIFO that it is in."""

    root: int
    name: bytes
    size: int
    used_ns: int
    uses: int
    policy: int
    temporary: bool = False
    queue: int = 0
    main: bool = False


def pack_cache_file(f: CacheFile) -> bytes:
    flags = _TEMPORARY * f.temporary | _MAIN * f.main
    return _CACHE_FILE.pack(f.root, f.size, f.used_ns, f.queue, f.uses, f.policy, flags) + f.name


def unpack_cache_file(record: bytes) -> CacheFile:
    root, size, used_ns, queue, uses, policy, flags = _CACHE_FILE.unpack_from(record)
    name = record[_CACHE_FILE.size :]
    return CacheFile(
        root, name, size, used_ns, uses, policy, bool(flags & _TEMPORARY), queue,
        bool(flags & _MAIN),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Walk:
    """A directory that came to a cache or left it with what it held: how far that is done."""

    root: int
    again: bool = False
    """Directories that belong to it already, too: its policy is another."""
    after: bytes = b""


def pack_walk(w: Walk) -> bytes:
    return _WALK.pack(w.root, w.again) + w.after


def unpack_walk(record: bytes) -> Walk:
    root, again = _WALK.unpack_from(record)
    return Walk(root, bool(again), record[_WALK.size :])


@dataclass(slots=True)
class State:
    """Changes with every commit. `map_bytes` was allocated when it was written: a shorter file has
    been cut. The tallies make an absent record visible: a table whose
    records do not add up has lost some, or was put together from two moments."""

    commit: int = 0
    time_ns: int = 0
    map_bytes: int = 0
    ranges: int = 0
    """Given to sessions so far."""
    next_generation: int = GENERATION_HALF
    counts: list[int] = field(default_factory=lambda: [0] * len(Table))
    sums: list[int] = field(default_factory=lambda: [0] * len(Table))


def pack_state(s: State) -> bytes:
    tallies = zip(s.counts, s.sums, strict=True)
    head = _STATE.pack(s.commit, s.time_ns, s.map_bytes, s.ranges, s.next_generation)
    return head + b"".join(_TALLY.pack(c, h) for c, h in tallies)


def unpack_state(record: bytes) -> State:
    commit, time_ns, map_bytes, ranges, generation = _STATE.unpack_from(record)
    tallies = list(_TALLY.iter_unpack(record[_STATE.size :]))
    tallies += [(0, 0)] * (len(Table) - len(tallies))  # tables that there were not yet
    counts, sums = [c for c, _ in tallies], [h for _, h in tallies]
    return State(commit, time_ns, map_bytes, ranges, generation, counts, sums)


def copy_state(s: State) -> State:
    return replace(s, counts=s.counts.copy(), sums=s.sums.copy())


def pack_identity(i: Identity) -> bytes:
    return _IDENTITY.pack(i.format, i.node_id) + i.cluster_id.encode()


def unpack_identity(record: bytes) -> Identity:
    version, node_id = _IDENTITY.unpack_from(record)
    return Identity(record[_IDENTITY.size :].decode(), "metad", node_id, version)
