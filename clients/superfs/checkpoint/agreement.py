"""What ranks tell each other before a save, and whether it fits together. No IO, no torch.

Before every save each rank sends one `Record` of a fixed size. If all keys are known from before
and all contents agree, that is all. Otherwise `Details` go to the coordinator, who plans, compares,
and answers each rank.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import xxhash

from superfs.checkpoint import holdings
from superfs.checkpoint.plan import named
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.checkpoint.plan import Plan

_RECORD = struct.Struct("<BB6x16s16sQQ8x")
RECORD_BYTES = _RECORD.size


@dataclass(frozen=True, slots=True)
class Record:
    failed: bool  # this rank cannot take part; it says why next
    busy: bool  # an earlier save of this rank is not over
    key: bytes  # of its description and options
    cache: bytes  # of all plans that it remembers
    contents: int  # of plain tensors, whole or sampled
    objects: int  # of what is not a tensor

    def pack(self) -> bytes:
        return _RECORD.pack(
            self.failed, self.busy, self.key, self.cache, self.contents, self.objects
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Record:
        failed, busy, key, cache, contents, objects = _RECORD.unpack(raw)
        return cls(bool(failed), bool(busy), key, cache, contents, objects)


@dataclass(frozen=True, slots=True)
class Details:
    description: bytes | None  # None: a lower rank with the same key sends it
    contents: dict[int, int]  # place of a plain tensor in the description -> hash
    objects: dict[str, int]  # name -> hash of its encoding


@dataclass(frozen=True, slots=True)
class Agreed:
    """What each rank is told."""

    objects: tuple[str, ...] = ()  # of what several hold, those that this rank writes
    pieces: list[tuple[int, ...]] | None = None  # None: as remembered


@dataclass(slots=True)
class State:
    """What a rank brings to a save, tensors aside."""

    description: holdings.Description
    paths: dict[str, list[str | int]]
    objects: dict[str, str] = field(default_factory=dict)  # name -> encoded
    own_objects: dict[str, str] = field(default_factory=dict)


def global_key(records: Sequence[Record]) -> bytes:
    return xxhash.xxh3_128_digest(b"".join(record.key for record in records))


def cache_key(keys: Iterable[bytes]) -> bytes:
    return xxhash.xxh3_128_digest(b"".join(keys))


def objects_hash(objects: dict[str, int]) -> int:
    text = "\0".join(f"{name}={value}" for name, value in objects.items())
    return xxhash.xxh3_64_intdigest(text.encode())


def contents_hash(contents: dict[int, int]) -> int:
    return xxhash.xxh3_64_intdigest(b"".join(value.to_bytes(8) for value in contents.values()))


def senders(records: Sequence[Record]) -> list[bool]:
    """Which ranks send their description: the first with each key."""
    first: dict[bytes, int] = {}
    for rank, record in enumerate(records):
        first.setdefault(record.key, rank)
    return [first[record.key] == rank for rank, record in enumerate(records)]


def held(
    records: Sequence[Record], details: Sequence[Details]
) -> tuple[list[holdings.Held], dict[str, list[str | int]]]:
    """The descriptions with who sent them, and the paths of all names."""
    by_key: dict[bytes, list[int]] = defaultdict(list)
    for rank, record in enumerate(records):
        by_key[record.key].append(rank)
    found = []
    paths: dict[str, list[str | int]] = {}
    for ranks in by_key.values():
        encoded = details[ranks[0]].description
        assert encoded is not None, "the first rank with a key sends what it stands for"
        description, its_paths = holdings.decode(encoded)
        found.append(holdings.Held(description, tuple(ranks)))
        paths |= its_paths
    return found, paths


def compare_contents(
    plan: Plan, groups: Sequence[tuple[int, ...]], details: Sequence[Details]
) -> None:
    """FsError if a plain tensor that several ranks hold is not the same on all of them. `groups`:
    the ranks of each description."""
    for replica in plan.replicas:
        found: dict[int, list[int]] = defaultdict(list)
        for number, place in replica.places.items():
            for rank in groups[number]:
                value = details[rank].contents.get(place)
                if value is not None:
                    found[value].append(rank)
        if len(found) > 1:
            raise FsError(Code.INVALID, _differs("tensor", replica.name, found))


def refuse_two_kinds(plan: Plan, details: Sequence[Details]) -> None:
    """FsError if a name is a tensor on one rank and none on another: only one would be found."""
    tensors = {tensor.name for tensor in plan.tensors if tensor.rank < 0} | plan.same.keys()
    for rank, detail in enumerate(details):
        both = next((name for name in detail.objects if name in tensors), None)
        if both is not None:
            raise FsError(
                Code.INVALID,
                f"{both!r} is a tensor on other ranks, and not on {named([rank])}: give one of "
                f"them another name, or declare it: per_rank=[{both!r}]",
            )


def compare_objects(details: Sequence[Details]) -> list[tuple[str, ...]]:
    """For each rank the objects that it writes: the lowest holder does. FsError if holders
    differ."""
    found: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for rank, detail in enumerate(details):
        for name, value in detail.objects.items():
            found[name][value].append(rank)
    kept: list[list[str]] = [[] for _ in details]
    for name, values in found.items():
        if len(values) > 1:
            raise FsError(Code.INVALID, _differs("object", name, values))
        [ranks] = values.values()
        kept[ranks[0]].append(name)
    return [tuple(names) for names in kept]


def _differs(what: str, name: str, found: dict[int, list[int]]) -> str:
    groups = sorted(found.values(), key=lambda ranks: (-len(ranks), ranks))
    words = ", ".join(f"one on {named(ranks)}" for ranks in groups[:4])
    return (
        f"{what} {name!r} should be the same on all ranks and is not: {words}. If every rank is to "
        f"store its own, declare it: per_rank=[{name!r}]"
    )
