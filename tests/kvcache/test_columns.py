"""The columns under the tables: index, lines, ghosts and rankings against plain ones; and what a
block costs in memory."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superfs.core.kvcache.digests import NONE, DigestIndex
from superfs.core.kvcache.lines import Ghost, Lines
from superfs.core.kvcache.ranking import Ranking

changes = st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=300)


def digest(number: int) -> bytes:
    return blake2b(number.to_bytes(8, "little"), digest_size=16).digest()


@given(changes=changes)
def test_the_index_is_a_dictionary(changes: list[tuple[bool, int]]) -> None:
    index, model = DigestIndex(), dict[bytes, int]()
    for add, number in changes:
        key = digest(number)
        if add and key not in model:
            row = index.add(key)
            assert row not in model.values()
            model[key] = row
        elif not add and key in model:
            index.remove(model.pop(key))
        assert len(index) == len(model)
    for number in range(61):
        assert index.find(digest(number)) == model.get(digest(number), NONE)
    for key, row in model.items():
        assert index.key(row) == key
    assert index.rows <= 61, "rows that were given back are given again"


def test_the_index_where_cells_are_crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One part, cells that run round its end: removal must leave everybody to be found."""
    monkeypatch.setattr("superfs.core.kvcache.digests.PARTS", 1)
    monkeypatch.setattr("superfs.core.kvcache.digests.PART_BITS", 0)
    index = DigestIndex()
    rows = {number: index.add(digest(number)) for number in range(2000)}
    for number in range(0, 2000, 3):
        index.remove(rows.pop(number))
    for number in range(2000):
        assert index.find(digest(number)) == rows.get(number, NONE)


@given(changes=changes)
def test_lines(changes: list[tuple[bool, int]]) -> None:
    lines = Lines(2)
    model: tuple[list[int], list[int]] = ([], [])
    for add, row in changes:
        there = [line for line in model if row in line]
        if add and not there:
            lines.append(row, row % 2)
            model[row % 2].append(row)
        elif not add and there:
            lines.remove(row)
            there[0].remove(row)
        assert [list(lines.rows(0)), list(lines.rows(1))] == list(model)
        assert lines.counts == [len(line) for line in model]
        assert lines.head(0) == (model[0][0] if model[0] else NONE)


@given(changes=changes)
def test_a_ghost_remembers_so_many(changes: list[tuple[bool, int]]) -> None:
    ghost, model = Ghost(7), OrderedDict[bytes, tuple[int, int]]()
    for time, (add, number) in enumerate(changes):
        key = digest(number)
        if add and key not in model:
            model[key] = (number, time)
            oldest = model.popitem(last=False)[1] if len(model) > 7 else None
            assert ghost.add(key, number, time) == oldest
        elif not add:
            assert ghost.pop(key) == model.pop(key, None)
        assert ghost.known() == list(model.values())
        assert len(ghost) == len(model)


@given(changes=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=200))
def test_a_ranking_is_sorted(changes: list[tuple[int, int]]) -> None:
    ranks: dict[int, tuple[int, int]] = {}
    ranking = Ranking(lambda row: ranks[row])
    there: set[int] = set()
    for row, rank in changes:
        if rank:
            ranks[row] = (rank, row)
            ranking.put(row)
            there.add(row)
        else:
            ranking.discard(row)
            there.discard(row)
        assert ranking.first() == min(there, key=ranks.__getitem__, default=NONE)
    order = []
    while (row := ranking.first()) != NONE:
        order.append(row)
        ranking.discard(row)
    assert order == sorted(there, key=ranks.__getitem__)


COSTS = """
import os, resource, sys
from hashlib import blake2b
from pathlib import Path
from superfs.core.kvcache.policy import make_policy
from superfs.core.kvcache.table import BlockTable
from superfs.data.kvcache.places import Place, Places

class Slab:
    granules_of = staticmethod(lambda length: 1)

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

count, policy, chain, before = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), resident()
table = BlockTable(make_policy(policy, count), count)
places, slab, parent = Places(table), Slab(), None
for number in range(count):
    if number % chain == 0:
        parent = None
    key = blake2b(number.to_bytes(8, "little"), digest_size=16).digest()
    block = table.insert(key, parent, 1)
    place = Place(slab, number, 1, 1)
    places.enter(block, place)
    places.commit(block, place, number)
    table.unpin(block)
    parent = block
print((resident() - before) / count)
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["lru", "lfu", "s3-fifo", "hazard"])
@pytest.mark.parametrize("chain", [1, 64])
def test_what_a_block_costs(policy: str, chain: int) -> None:
    """In memory that is really taken, whether each is a prompt of its own or few are. So many
    blocks that what the interpreter and the first tables take besides hardly counts."""
    command = [sys.executable, "-c", COSTS, "240000", policy, str(chain)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(found.stdout) <= 150, "bytes a block"
