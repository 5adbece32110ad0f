"""Tables and policies against plain models, with random trees, pins and removals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kvmodels import PlainTable
from superfs.core.errors import FsError
from superfs.core.kvcache.policy import RANKS, make_policy
from superfs.core.kvcache.table import Block, BlockTable

KEYS = 40


def key_of(number: int) -> bytes:
    return number.to_bytes(16, "little")


def number_of(key: bytes) -> int:
    return int.from_bytes(key, "little")


def tree(number: int) -> list[int]:
    """The chain of a leaf in a fixed tree: 40's parent is 13, that one's 4, 1."""
    found = [number]
    while found[-1] > 1:
        found.append((found[-1] + 1) // 3)
    return found[::-1]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.integers(1, KEYS)),
        st.tuples(st.just("pin"), st.integers(1, KEYS)),
        st.tuples(st.just("unpin"), st.integers(1, KEYS)),
        st.tuples(st.just("remove"), st.integers(1, KEYS)),
    ),
    min_size=1,
    max_size=120,
)


class Pair:
    """The same done to the table and to its model; they must agree on everything."""

    def __init__(self, policy: str, capacity: int, leaf_first: bool) -> None:
        made = make_policy(policy, capacity)
        self.table = BlockTable(made, capacity, leaf_first=leaf_first)
        self.model = PlainTable(policy, capacity, leaf_first)

    def use(self, leaf: int) -> None:
        parent: Block | None = None
        for depth, key in enumerate(tree(leaf)):
            block = self.table.blocks.get(key_of(key))
            if block is not None:
                self.table.touch(block)
                self.model.touch(key)
            else:
                block = self._insert(key, parent, depth)
                if block is None:
                    return
            parent = block if self.table.leaf_first else None

    def _insert(self, key: int, parent: Block | None, depth: int) -> Block | None:
        table, model = self.table, self.model
        plain = None if parent is None else model.blocks[number_of(parent.key)]
        held = plain is not None and plain.pinned
        if parent is not None and plain is not None:
            table.pin(parent)
            plain.pinned = True
        for gone in table.make_room(1):
            assert number_of(gone.key) == model.evict()
        fits = table.fits(1)
        assert fits or model.evict() is None
        block = None
        if fits:
            block = table.insert(key_of(key), parent, 1, depth=depth)
            table.unpin(block)
            model.insert(key, None if plain is None else plain.key, depth)
        if parent is not None and plain is not None:
            table.unpin(parent)
            plain.pinned = held
        return block

    def pin(self, key: int) -> None:
        if key in self.model.blocks and not self.model.blocks[key].pinned:
            self.table.pin(self.table.blocks[key_of(key)])
            self.model.blocks[key].pinned = True

    def unpin(self, key: int) -> None:
        if key in self.model.blocks and self.model.blocks[key].pinned:
            self.table.unpin(self.table.blocks[key_of(key)])
            self.model.blocks[key].pinned = False

    def remove(self, key: int) -> None:
        if key in self.model.blocks:
            for block in self.table.remove(self.table.blocks[key_of(key)]):
                self.model.drop(number_of(block.key))

    def check(self) -> None:
        table, model = self.table, self.model
        assert {number_of(key) for key in table.blocks} == model.blocks.keys()
        assert table.used == len(table) <= table.capacity
        for block in table.blocks.values():
            key = number_of(block.key)
            plain = model.blocks[key]
            assert (block.last, block.uses, block.depth) == (plain.last, plain.uses, plain.depth)
            assert block.evictable == model.may_go(plain)
            if table.leaf_first and block.depth:
                parent = tree(key)[-2]
                assert table.blocks[key_of(parent)] == block.parent, "a child without its parent"


@pytest.mark.parametrize("leaf_first", [True, False], ids=["leaf-first", "reference"])
@pytest.mark.parametrize("policy", [*RANKS, "s3-fifo"])
@settings(max_examples=60)
@given(capacity=st.integers(1, 15), steps=steps)
def test_equal_to_a_plain_model(
    policy: str, leaf_first: bool, capacity: int, steps: list[tuple[str, int]]
) -> None:
    pair = Pair(policy, capacity, leaf_first)
    for verb, key in steps:
        getattr(pair, verb)(key)
        pair.check()


def test_a_whole_branch_is_removed() -> None:
    table = BlockTable(make_policy("lru", 9), 9)
    keys = [key_of(number) for number in range(6)]
    root = table.insert(keys[0], None, 1)
    middle = table.insert(keys[1], root, 1)
    leaves = [table.insert(key, middle, 1) for key in keys[2:4]]
    other = table.insert(keys[4], root, 1)
    gone = table.remove(middle)
    assert set(gone) == {middle, *leaves}
    assert gone[-1] == middle
    assert table.blocks == {keys[0]: root, keys[4]: other}
    assert table.used == 2
    assert table.chain(other) == [root, other]
    assert table.resident([keys[0], keys[4], keys[5], keys[0]]) == [root, other]
    assert table.roots() == [root]


def test_no_such_policy() -> None:
    with pytest.raises(FsError, match="lru"):
        make_policy("best", 1)


def test_sizes_count() -> None:
    table = BlockTable(make_policy("lru", 10), 10)
    for number, size in enumerate((4, 4, 2)):
        table.unpin(table.insert(key_of(number), None, size))
    assert [number_of(block.key) for block in table.make_room(5)] == [0, 1]
    assert table.used == 2
    assert [number_of(block.key) for block in table.make_room(11)] == [2]
    assert not table.fits(11)
