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
    counts, sums = [c for c, _ in tallies], [h for _, h in tallies]
    return State(commit, time_ns, map_bytes, ranges, generation, counts, sums)


def copy_state(s: State) -> State:
    return replace(s, counts=s.counts.copy(), sums=s.sums.copy())


def pack_identity(i: Identity) -> bytes:
    return _IDENTITY.pack(i.format, i.node_id) + i.cluster_id.encode()


def unpack_identity(record: bytes) -> Identity:
    version, node_id = _IDENTITY.unpack_from(record)
    return Identity(record[_IDENTITY.size :].decode(), "metad", node_id, version)
