"""Save plans: every byte once, evenly, cut where it may be cut; boxes against plain indexing."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superfs.checkpoint import plan as planning
from superfs.checkpoint.boxes import Box, flat_range, overlapping, range_boxes, whole
from superfs.checkpoint.holdings import Held, Holding, Kind, decode, encode
from superfs.checkpoint.limits import (
    ALIGN_BYTES,
    BALANCE_SLACK_BYTES,
    BALANCE_SLACK_RATIO,
    MIB,
    PIECE_BYTES_MIN,
)
from superfs.core.errors import FsError

DTYPES = st.sampled_from(["float32", "bfloat16", "uint8", "complex128"])
SMALL = st.integers(0, 2 * PIECE_BYTES_MIN)
LARGE = st.integers(0, 24 * MIB)


@st.composite
def states(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SMALL | LARGE) -> list[Held]:
    """A world of up to six ranks, tensors held by any subset of it."""
    world = draw(st.integers(1, 6))
    descriptions: list[list[Holding]] = [[] for _ in range(world)]
    for number in range(draw(st.integers(1, 12))):
        ranks = draw(st.sets(st.integers(0, world - 1), min_size=1))
        shape = draw(
            st.tuples(sizes)
            | st.tuples(st.just(1), sizes)
            | st.tuples(st.just(3), sizes.map(lambda n: n // 3))
        )
        dtype = draw(DTYPES)
        for rank in ranks:
            holding = Holding(f"t{number}", dtype, shape, whole(shape), Kind.SHARD)
            descriptions[rank].append(holding)
    return [Held(description, (rank,)) for rank, description in enumerate(descriptions)]


def optimum(held: list[Held]) -> float:
    """By definition: no set of ranks can write what only it holds any faster than evenly."""
    sizes: dict[str, tuple[int, frozenset[int]]] = {}
    for one in held:
        for holding in one.description:
            size, ranks = sizes.get(holding.name, (holding.bytes, frozenset()))
            sizes[holding.name] = (size, ranks | set(one.ranks))
    best = 0.0
    world = range(len(held))
    for count in range(1, len(held) + 1):
        for chosen in itertools.combinations(world, count):
            inside = sum(size for size, ranks in sizes.values() if ranks <= set(chosen))
            best = max(best, inside / count)
    return best


def check(made: planning.Plan, held: list[Held]) -> None:
    """Every byte of every shard exactly once, by somebody who holds it, in files without overlap,
    cut where it may be cut."""
    for tensor in made.tensors:
        item = {"float32": 4, "bfloat16": 2, "uint8": 1, "complex128": 16}[tensor.dtype]
        for shard in tensor.shards:
            placed = [(r, made.pieces[r][n]) for r, n in shard.placed]
            at = 0
            for rank, piece in sorted(placed, key=lambda p: p[1].start):
                description = next(one for one in held if rank in one.ranks).description
                holding = description[piece.holding]
                assert (holding.name, holding.box) == (tensor.name, shard.box)
                assert piece.start == at
                assert piece.start % item == 0
                whole_shard = piece.stop - piece.start == shard.bytes
                assert whole_shard or piece.stop - piece.start >= PIECE_BYTES_MIN
                at = piece.stop
            assert at == shard.bytes
    for pieces in made.pieces:
        end = 0
        for piece in pieces:
            assert piece.file_offset % ALIGN_BYTES == 0
            assert piece.file_offset >= end
            end = piece.file_offset + piece.stop - piece.start


@settings(deadline=None)
@given(states())
def test_every_byte_once_and_evenly(held: list[Held]) -> None:
    made = planning.make(len(held), held)
    check(made, held)
    best = optimum(held)
    slack = BALANCE_SLACK_BYTES if best < 64 * MIB else BALANCE_SLACK_RATIO * best
    assert max(made.loads()) <= best + slack


@pytest.mark.parametrize("world", [1, 2, 3, 7, 32, 1000])
def test_one_huge_tensor_and_thousands_of_small_ones(world: int) -> None:
    mine = [Holding("huge", "bfloat16", (1, 2**35), whole((1, 2**35)), Kind.SHARD)]
    mine += [Holding(f"s{n}", "float32", (n,), whole((n,)), Kind.SHARD) for n in range(3000)]
    mine += [
        Holding(f"o{n}", "float32", (3, 1000 * n), whole((3, 1000 * n)), Kind.SHARD)
        for n in range(300)
    ]
    held = [Held(mine, tuple(range(world)))]
    made = planning.make(world, held)
    check(made, held)
    assert max(made.loads()) <= 1.02 * sum(h.bytes for h in mine) / world


def test_bytes_that_one_rank_has_to_write_count() -> None:
    shared = Holding("shared", "uint8", (60 * MIB,), whole((60 * MIB,)), Kind.SHARD)
    alone = Holding("alone", "uint8", (20 * MIB,), whole((20 * MIB,)), Kind.SHARD)
    held = [Held([shared, alone], (0,)), Held([shared], (1, 2, 3))]
    assert planning.make(4, held).loads() == [20 * MIB] * 4


def test_replicas_over_overlapping_sets_of_ranks() -> None:
    """A grid of 2 x 2: some shards are replicated along one side of it, some along the other."""

    def holding(name: str) -> Holding:
        return Holding(name, "uint8", (64 * MIB,), whole((64 * MIB,)), Kind.SHARD)

    held = [Held([holding(f"row{r // 2}"), holding(f"col{r % 2}")], (r,)) for r in range(4)]
    loads = planning.make(4, held).loads()
    assert max(loads) <= 64 * MIB + BALANCE_SLACK_BYTES


def test_equal_ranks_are_planned_as_one() -> None:
    mine = [
        Holding(f"t{n}", "float32", (n * 999,), whole((n * 999,)), Kind.PLAIN) for n in range(40)
    ]
    together = planning.make(4, [Held(mine, (0, 1, 2, 3))])
    apart = planning.make(4, [Held(mine, (r,)) for r in range(4)])
    assert together.pieces == apart.pieces
    assert [len(r.places) for r in together.replicas] == [1] * 40


def test_tied_for_all_is_stored_once_and_tied_for_some_twice() -> None:
    one = Holding("embed", "float32", (8, 4), whole((8, 4)), Kind.PLAIN)
    tied = Holding("head", "float32", (8, 4), whole((8, 4)), Kind.PLAIN, tied_to=0)
    loose = Holding("head", "float32", (8, 4), whole((8, 4)), Kind.PLAIN)
    made = planning.make(2, [Held([one, tied], (0, 1))])
    assert made.same == {"head": "embed"}
    assert [t.name for t in made.tensors] == ["embed"]
    made = planning.make(2, [Held([one, tied], (0,)), Held([one, loose], (1,))])
    assert made.same == {}
    assert [t.name for t in made.tensors] == ["embed", "head"]


def test_each_rank_its_own() -> None:
    def own(size: int) -> Holding:
        return Holding("rng", "uint8", (size,), whole((size,)), Kind.OWN)

    made = planning.make(3, [Held([own(10)], (0, 2)), Held([own(20)], (1,))])
    assert [(t.rank, t.shape) for t in made.tensors] == [(0, (10,)), (2, (10,)), (1, (20,))]
    assert made.loads() == [10, 20, 10]


def test_what_does_not_fit_together_is_refused_by_name() -> None:
    def holding(dtype: str, shape: tuple[int, ...], box: Box) -> Holding:
        return Holding("model.w", dtype, shape, box, Kind.SHARD)

    left, right = Box((0, 0), (4, 2)), Box((0, 2), (4, 2))
    fine = holding("float32", (4, 4), left), holding("float32", (4, 4), right)
    planning.make(2, [Held([fine[0]], (0,)), Held([fine[1]], (1,))])
    for other, words in (
        (holding("float32", (4, 5), right), r"float32 \[4, 4\] on rank 0 and .*\[4, 5\]"),
        (holding("bfloat16", (4, 4), right), "bfloat16"),
        (holding("float32", (4, 4), Box((0, 1), (4, 2))), "overlap"),
        (holding("float32", (4, 4), Box((0, 2), (4, 1))), "48 bytes of 64"),
    ):
        with pytest.raises(FsError, match=words) as caught:
            planning.make(2, [Held([fine[0]], (0,)), Held([other], (1,))])
        assert "model.w" in str(caught.value)


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), max_size=4), st.data())
def test_a_range_is_the_boxes_it_is_cut_into(shape: list[int], data: st.DataObject) -> None:
    sizes = tuple(shape)
    total = math.prod(sizes)
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    boxes = range_boxes(start, stop, sizes)
    assert len(boxes) <= max(1, 2 * len(sizes) - 1)
    at = start
    for box in boxes:
        assert flat_range(box, sizes) == (at, at + box.volume)
        at += box.volume
    assert at == stop
    assert overlapping(boxes) is None


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_a_contiguous_box_is_known_as_one(shape: list[int], data: st.DataObject) -> None:
    sizes = tuple(shape)
    offsets = tuple(data.draw(st.integers(0, n - 1)) for n in sizes)
    lengths = tuple(data.draw(st.integers(1, n - o)) for n, o in zip(sizes, offsets, strict=True))
    box = Box(offsets, lengths)
    ranges = [range(o, o + n) for o, n in zip(offsets, lengths, strict=True)]
    indexes = []
    for place in itertools.product(*ranges):
        flat = 0
        for index, size in zip(place, sizes, strict=True):
            flat = flat * size + index
        indexes.append(flat)
    contiguous = indexes == list(range(indexes[0], indexes[0] + len(indexes)))
    expected = (indexes[0], indexes[0] + len(indexes)) if contiguous else None
    assert flat_range(box, sizes) == expected


def test_a_description_survives_the_wire() -> None:
    mine = [
        Holding("ü.w", "float8_e4m3fn", (3, 4), Box((1, 0), (2, 4)), Kind.SHARD),
        Holding("step", "int64", (), Box((), ()), Kind.PLAIN, tied_to=0),
    ]
    paths: dict[str, list[str | int]] = {"ü.w": ["ü", "w"], "step": ["a", 0, "step"]}
    assert decode(encode(mine, paths)) == (mine, paths)
