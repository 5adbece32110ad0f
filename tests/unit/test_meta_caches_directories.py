"""Bounded cache directories in a metadata daemon: directories in them, that come to be them, that
are moved in and out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from superfs.core.attrs import Flag
from superfs.core.cachedirs import CACHE_XATTR, USAGE_XATTR
from superfs.meta import cachetxn, evicting
from superfs.meta.keys import Table
from unit.meta_caches import (
    cache_of,
    code,
    filed,
    mkdir,
    names,
    put,
    set_cache,
    sizes,
    sound,
    usage,
    with_node,
)
from unit.meta_node import ROOT, TestClient

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from superfs.daemon.clock import ManualClock
    from superfs.meta.node import MetaNode

KIB = 1024
SECOND_NS = 10**9


def test_subdirectories_belong_to_it(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 3 * KIB)
        below = await mkdir(client, b"d", await mkdir(client, b"s", directory))
        for number in range(6):
            clock.advance(1)
            await put(client, below if number % 2 else directory, b"%d" % number, KIB)
        assert names(node, directory) == [b"4", b"s"]
        assert names(node, below) == [b"3", b"5"]
        attr = (await client.good(getattr={"inode": below})).attr
        assert attr.flags & Flag.CACHED

    with_node(tmp_path, run)


def test_a_directory_that_holds_much_becomes_a_cache_and_is_none_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cachetxn, "WALK_ENTRIES", 7)
    monkeypatch.setattr(evicting, "STEPS_MAX", 5)

    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        below = await mkdir(client, b"d", directory)
        for number in range(60):
            clock.advance(1)
            await put(client, below if number % 2 else directory, b"%02d" % number, KIB)
        await set_cache(client, directory, 20 * KIB)
        await settled(node, directory, 20 * KIB)
        kept = [n for n in (*names(node, directory), *names(node, below)) if n != b"d"]
        assert len(kept) == 20
        await client.good(removexattr={"inode": directory, "name": CACHE_XATTR})
        await filed(node)
        assert cache_of(node, directory) is None
        assert await code(client, getxattr={"inode": directory, "name": USAGE_XATTR}) != 0
        with node.environment.reading() as rows:
            for table in (Table.CACHED, Table.CACHEFILE, Table.CACHERANK, Table.CACHEWALK):
                assert rows.state.counts[table] == 0
        for number in range(30):
            await put(client, below, b"more%02d" % number, KIB)
        assert sizes(node) == 50 * KIB
        assert not (await client.good(getattr={"inode": below})).attr.flags & Flag.CACHED

    with_node(tmp_path, run)


async def settled(node: MetaNode, directory: dict[str, int], bytes_max: int) -> None:
    for _ in range(100):
        await filed(node)
        cache = cache_of(node, directory)
        if cache is not None and cache.bytes <= bytes_max:
            return
    raise AssertionError(cache_of(node, directory))


def test_directories_that_are_moved_in_and_out(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        cache = await mkdir(client, b"c")
        other = await mkdir(client, b"o")
        await set_cache(client, cache, 100 * KIB)
        await set_cache(client, other, 100 * KIB)
        tree = await mkdir(client, b"t")
        below = await mkdir(client, b"s", tree)
        for number in range(4):
            await put(client, tree, b"%d" % number, KIB)
            await put(client, below, b"%d" % number, KIB)

        async def used() -> tuple[int, int]:
            await filed(node)
            sound(node)
            found = [await usage(client, directory) for directory in (cache, other)]
            return found[0]["bytes"] // KIB, found[1]["bytes"] // KIB

        async def move(old: dict[str, int], new: dict[str, int], name: bytes = b"t") -> None:
            await client.good(
                rename={"old_dir": old, "old_name": name, "new_dir": new, "new_name": name}
            )

        assert await used() == (0, 0)
        await move(ROOT, cache)
        assert await used() == (8, 0)
        await move(cache, other)
        assert await used() == (0, 8)
        # There and back before anybody has looked.
        gate = asyncio.ensure_future(move(other, ROOT))
        again = asyncio.ensure_future(move(ROOT, other))
        await asyncio.gather(gate, again)
        assert await used() == (0, 8)
        await move(tree, cache, b"3")  # one file
        assert await used() == (1, 7)
        await move(tree, cache, b"s")
        assert await used() == (5, 3)
        await move(cache, other, b"s")
        await client.good(remove_tree={"dir": other, "name": b"t"})
        assert await used() == (1, 4)
        await move(ROOT, other, b"c")  # a cache stays one wherever it lies
        assert await used() == (1, 4)
        await client.good(removexattr={"inode": cache, "name": CACHE_XATTR})
        await filed(node)
        assert (await usage(client, other))["bytes"] == 5 * KIB

    with_node(tmp_path, run)


def test_a_cache_that_is_removed(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 10 * KIB)
        below = await mkdir(client, b"d", directory)
        await put(client, below, b"x", KIB)
        await client.good(
            rename={"old_dir": directory, "old_name": b"d", "new_dir": ROOT, "new_name": b"d"}
        )
        await client.good(remove_tree={"dir": ROOT, "name": b"c"})
        await filed(node)
        with node.environment.reading() as rows:
            for table in (Table.CACHE, Table.CACHED, Table.CACHEFILE, Table.CACHEWALK):
                assert rows.state.counts[table] == 0

    with_node(tmp_path, run)
