"""Looking at blocks one by one, in memory and on disk, without using them."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from harness.kvbench import LAYOUT, singles
from superfs.core.errors import Code, FsError
from superfs.core.kvcache.keys import Fingerprint, KeyChain
from superfs.data.kvcache import browse

if TYPE_CHECKING:
    from harness.kvbench import DiskBench
    from superfs.data.kvcache.namespaces import Namespace

CHAIN = KeyChain(Fingerprint("w", "float32", 1, 1, 1, block_tokens=1))


def keys_of(listing: browse.Listing) -> list[bytes]:
    raw = bytes(listing.keys)
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def test_what_stays_comes_once_whatever_goes_and_comes(bench: DiskBench, space: Namespace) -> None:
    rng = random.Random(4)
    roots = singles(14)
    for round_ in range(60):
        stay = rng.sample(roots[:8], 5)
        for key in roots:
            bench.pool.remove(space, [key])
        for key in stay:
            bench.put(space, [key])
        seen: list[bytes] = []
        after = 0
        while True:
            found = browse.listed(space, after, 1 + round_ % 3)
            seen += keys_of(found)
            assert len(found.lengths) == len(found.afters) == len(keys_of(found)) <= 1 + round_ % 3
            other = rng.choice(roots[8:])
            if rng.random() < 0.5:
                bench.pool.remove(space, [other])
            else:
                bench.put(space, [other])
            after = found.next
            if not after:
                break
        assert sorted(key for key in seen if key in roots[:8]) == sorted(stay)


def test_one_answer_looks_at_so_many_rows(
    bench: DiskBench, space: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browse, "ROWS_MAX", 2)
    roots = singles(9)
    for key in roots:
        bench.put(space, [key])
    for key in roots[:-1]:
        bench.pool.remove(space, [key])
    answers: list[list[bytes]] = []
    after = 0
    while not answers or after:
        found = browse.listed(space, after, 0)
        answers.append(keys_of(found))
        after = found.next
    assert answers == [[], [], [], [], [roots[-1]]]
    assert browse.listed(space, 2**40, 0) == browse.Listing(), "beyond everything"


async def contents(bench: DiskBench, space: Namespace, key: bytes) -> bytes:
    return await browse.contents(bench.pool, bench.disk, bench.threads, space, key)


def test_pending_blocks_are_not_there(bench: DiskBench, space: Namespace) -> None:
    (key,) = CHAIN.keys([1])
    ((code, number, _),) = bench.pool.start(1, space, b"", [key], [100])
    assert code is Code.OK
    assert browse.listed(space, 0, 0).lengths == browse.lengths(space, []) == []
    assert browse.lengths(space, [key]) == [0]
    with pytest.raises(FsError, match="no such block"):
        asyncio.run(contents(bench, space, key))
    bench.finish(number, 1)
    assert browse.lengths(space, [key]) == [100]
    assert len(asyncio.run(contents(bench, space, key))) == 100


def test_another_namespace_has_none_of_it(bench: DiskBench, space: Namespace) -> None:
    keys = CHAIN.keys([1, 2])
    bench.put(space, keys)
    other = bench.pool.open("other", LAYOUT, 0, "lru")
    assert browse.listed(other, 0, 0) == browse.Listing()
    assert browse.lengths(other, keys) == [0, 0]
    with pytest.raises(FsError, match="no such block"):
        asyncio.run(contents(bench, other, keys[0]))


def test_looking_is_no_use(bench: DiskBench, space: Namespace) -> None:
    keys = CHAIN.keys([1, 2])
    bench.put(space, keys)
    before = [(block.last, block.uses) for block in map(space.table.blocks.__getitem__, keys)]
    browse.listed(space, 0, 0)
    browse.lengths(space, keys)
    asyncio.run(contents(bench, space, keys[1]))
    after = [(block.last, block.uses) for block in map(space.table.blocks.__getitem__, keys)]
    assert before == after
    assert (space.asked, bench.pool.leases) == (0, {})


def test_damage_in_memory_is_read_from_disk(bench: DiskBench, space: Namespace) -> None:
    keys = CHAIN.keys([1, 2])
    bench.put(space, keys)
    bench.write_behind()
    right = asyncio.run(contents(bench, space, keys[0]))
    place = space.places[keys[0]]
    bench.pool.slab.write(place.at, 3, b"\xff\x00\xff")
    assert asyncio.run(contents(bench, space, keys[0])) == right
    assert keys[1] not in space.places, "it went from memory, with what was behind it"
    shelved = space.on_disk(keys[0])
    assert shelved is not None
    shelved.slab.write(shelved.at, 3, b"\xff\x00\xff")
    with pytest.raises(FsError, match="no such block"):
        asyncio.run(contents(bench, space, keys[0]))
    assert browse.lengths(space, keys) == [0, 0]
