"""The save plan: which rank writes which bytes of which shard. No IO, no torch.

Ranks that sent equal descriptions are planned together, so that the work depends on how many
different descriptions there are, not on how many ranks. What several hold is dealt evenly by raw
byte ranges (`balance`); what one holds, that one writes. A plan covers every byte of every tensor
exactly once, or it is not made.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from superfs.checkpoint import balance
from superfs.checkpoint.boxes import Box, overlapping
from superfs.checkpoint.holdings import ITEM_BYTES, Held, Holding, Kind, tensor_bytes
from superfs.checkpoint.limits import aligned
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.checkpoint.boxes import Ints

RANKS_NAMED_MAX = 8


class Piece(NamedTuple):
    """Bytes [start, stop) of a shard, in the file of the rank that writes them."""

    holding: int  # the shard, as the place in the writing rank's description
    start: int
    stop: int
    file_offset: int


@dataclass(slots=True)
class Shard:
    box: Box
    bytes: int
    holders: dict[int, int]  # description -> place in it
    placed: list[tuple[int, int]] = field(default_factory=list)  # (rank, which of its pieces)


@dataclass(slots=True)
class Tensor:
    name: str
    rank: int  # whose own it is; -1: everybody's
    dtype: str
    shape: Ints
    shards: list[Shard]


class Replica(NamedTuple):
    """A plain tensor that several ranks hold: whether they hold the same has to be seen."""

    name: str
    places: dict[int, int]  # description -> place in it


@dataclass(slots=True)
class Plan:
    tensors: list[Tensor]
    same: dict[str, str]  # tied: stored under the other name
    pieces: list[list[Piece]]  # of each rank, by file offset
    replicas: list[Replica]

    def file_bytes(self, rank: int) -> int:
        pieces = self.pieces[rank]
        if not pieces:
            return 0
        last = pieces[-1]
        return last.file_offset + last.stop - last.start

    def loads(self) -> list[int]:
        return [sum(piece.stop - piece.start for piece in pieces) for pieces in self.pieces]


def make(world_size: int, held: Sequence[Held]) -> Plan:
    same = _ties(held)
    tensors = _tensors(held, same)
    for tensor in tensors.values():
        _check_cover(tensor, held)
    pieces: list[list[Piece]] = [[] for _ in range(world_size)]
    plan = Plan(list(tensors.values()), same, pieces, _replicas(tensors.values(), held))
    _place(plan, world_size, held)
    return plan


def named(ranks: Sequence[int]) -> str:
    """Ranks, as an error names them."""
    listed = ", ".join(map(str, sorted(ranks)[:RANKS_NAMED_MAX]))
    more = len(ranks) - RANKS_NAMED_MAX
    return f"rank{'s' if len(ranks) > 1 else ''} {listed}" + (
        f" and {more} more" if more > 0 else ""
    )


# ---- merging what ranks hold --------------------------------------------------------------------


def _ties(held: Sequence[Held]) -> dict[str, str]:
    """Tied for everybody who holds them, or not at all: name -> the name that is stored."""
    tied: dict[str, str | None] = {}
    for one in held:
        for holding in one.description:
            first = one.description[holding.tied_to] if holding.tied_to >= 0 else None
            fits = first is not None and (first.shape, first.kind) == (holding.shape, holding.kind)
            name = first.name if first is not None and fits else None
            if tied.setdefault(holding.name, name) != name:
                tied[holding.name] = None
    return {
        name: first
        for name, first in tied.items()
        if first is not None and tied.get(first) is None and first != name
    }


def _tensors(held: Sequence[Held], same: dict[str, str]) -> dict[tuple[str, int], Tensor]:
    tensors: dict[tuple[str, int], Tensor] = {}
    shards: dict[tuple[str, int, Box], Shard] = {}
    first_holder: dict[str, tuple[Holding, int]] = {}
    for number, one in enumerate(held):
        for place, holding in enumerate(one.description):
            first, by = first_holder.setdefault(holding.name, (holding, number))
            own = holding.kind is Kind.OWN
            if _traits(holding) != _traits(first):
                raise FsError(Code.INVALID, _unlike(first, held[by], holding, one))
            if holding.name in same:
                continue
            for rank in one.ranks if own else (-1,):
                tensor = tensors.get((holding.name, rank))
                if tensor is None:
                    tensor = Tensor(holding.name, rank, holding.dtype, holding.shape, [])
                    tensors[holding.name, rank] = tensor
                key = (holding.name, rank, holding.box)
                shard = shards.get(key)
                if shard is None:
                    shard = shards[key] = Shard(holding.box, holding.bytes, {})
                    tensor.shards.append(shard)
                shard.holders.setdefault(number, place)
    return tensors


def _traits(holding: Holding) -> tuple[object, ...]:
    """What all holdings of one name have in common; of each rank's own it is only that it is so."""
    return () if holding.kind is Kind.OWN else (holding.dtype, holding.shape)


def _unlike(first: Holding, one: Held, second: Holding, other: Held) -> str:
    def words(holding: Holding) -> str:
        own = " of its own" if holding.kind is Kind.OWN else ""
        return f"{holding.dtype} {list(holding.shape)}{own}"

    return (
        f"tensor {first.name!r} is {words(first)} on {named(one.ranks)} and {words(second)} on "
        f"{named(other.ranks)}; if every rank is to store its own, declare it: "
        f"per_rank=[{first.name!r}]"
    )


def _check_cover(tensor: Tensor, held: Sequence[Held]) -> None:
    """Every byte of the tensor in exactly one shard."""
    boxes = [shard.box for shard in tensor.shards]
    both = overlapping(boxes)
    if both is not None:
        raise FsError(
            Code.INVALID,
            f"tensor {tensor.name!r}: ranks hold parts of it that overlap without being equal: "
            f"{_words(both[0])} and {_words(both[1])}",
        )
    stored = sum(shard.bytes for shard in tensor.shards)
    wanted = tensor_bytes(tensor.dtype, tensor.shape)
    if stored != wanted:
        ranks = sorted({r for s in tensor.shards for d in s.holders for r in held[d].ranks})
        raise FsError(
            Code.INVALID,
            f"tensor {tensor.name!r}: its parts on {named(ranks)} have {stored} bytes of {wanted}",
        )


def _words(box: Box) -> str:
    return f"{list(box.sizes)} at {list(box.offsets)}"


def _replicas(tensors: Iterable[Tensor], held: Sequence[Held]) -> list[Replica]:
    found = []
    for tensor in tensors:
        for shard in tensor.shards:
            places = {
                number: place
                for number, place in shard.holders.items()
                if held[number].description[place].kind is Kind.PLAIN
            }
            if sum(len(held[number].ranks) for number in places) > 1:
                found.append(Replica(tensor.name, places))
    return found


# ---- dealing bytes to ranks ---------------------------------------------------------------------


def _place(plan: Plan, world_size: int, held: Sequence[Held]) -> None:
    groups: dict[tuple[int, ...], list[Shard]] = defaultdict(list)
    loads, at = [0] * world_size, [0] * world_size
    description_of = {rank: number for number, one in enumerate(held) for rank in one.ranks}

    def put(rank: int, shard: Shard, start: int, stop: int) -> None:
        piece = Piece(shard.holders[description_of[rank]], start, stop, at[rank])
        shard.placed.append((rank, len(plan.pieces[rank])))
        plan.pieces[rank].append(piece)
        at[rank] = aligned(at[rank] + stop - start)

    for tensor in plan.tensors:
        for shard in tensor.shards:
            numbers = tuple(shard.holders)
            if not shard.bytes:
                continue
            if tensor.rank < 0 and (len(numbers) > 1 or len(held[numbers[0]].ranks) > 1):
                groups[numbers].append(shard)
                continue
            rank = tensor.rank if tensor.rank >= 0 else held[numbers[0]].ranks[0]
            put(rank, shard, 0, shard.bytes)
            loads[rank] += shard.bytes
    many = [
        (sorted(rank for number in numbers for rank in held[number].ranks), shards)
        for numbers, shards in groups.items()
    ]
    many.sort(key=lambda group: len(group[0]))
    for ranks, shards, runs in _deal(many, loads):
        for rank, run in zip(ranks, runs, strict=True):
            for number, start, stop in run:
                put(rank, shards[number], start, stop)


def _deal(
    many: list[tuple[list[int], list[Shard]]], loads: list[int]
) -> list[tuple[list[int], list[Shard], list[list[tuple[int, int, int]]]]]:
    """Cuts group after group; what a cut had to be off by, the later groups make up for."""
    sizes = [sum(shard.bytes for shard in shards) for _, shards in many]
    groups = [(ranks, size) for (ranks, _), size in zip(many, sizes, strict=True)]
    quotas = balance.level(groups, loads)
    now: list[float] = list(loads)
    for (ranks, _), quota in zip(groups, quotas, strict=True):
        for rank, amount in zip(ranks, quota, strict=True):
            now[rank] += amount
    done = []
    for (ranks, shards), size, quota in zip(many, sizes, quotas, strict=True):
        for rank, amount in zip(ranks, quota, strict=True):
            now[rank] -= amount
        anew = balance.pour(size, [now[rank] for rank in ranks])
        runs = balance.cut([shard.bytes for shard in shards], anew)
        for rank, run in zip(ranks, runs, strict=True):
            now[rank] += sum(stop - start for _, start, stop in run)
        done.append((ranks, shards, runs))
    return done


assert max(ITEM_BYTES.values()) <= 16, "cuts at ALIGN_BYTES keep every item whole"
