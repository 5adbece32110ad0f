"""Bounded cache directories under operations at random, against their rules and a scan.

After each transaction: no cache has more in it than its bound, and the index is what a scan of the
namespace comes to (fsck). Directories are made, moved in and out, become caches and are none again,
while they are still being walked, a few entries at a time.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from superfs.core.attrs import unpack_attr
from superfs.core.cachedirs import CACHE_XATTR, POLICIES, CacheSettings
from superfs.core.ids import ROOT as ROOT_INO
from superfs.daemon.clock import ManualClock
from superfs.meta import cachetxn, records
from superfs.meta.cachecheck import check_caches
from superfs.meta.fsck import check_store
from superfs.meta.keys import Table, parse_id, parse_inode
from unit.meta_caches import filed, use
from unit.meta_node import TestClient, make, running, world

if TYPE_CHECKING:
    from superfs.meta.node import MetaNode

NAMES = [b"a", b"b", b"c", b"d"]
PICK = st.integers(0, 30)
STEP = st.tuples(st.integers(0, 11), PICK, PICK, st.integers(0, 3), st.integers(0, 3))


class Model:
    def __init__(self, node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        self.node = node
        self.client = client
        self.clock = clock

    def directories(self) -> list[dict[str, int]]:
        with self.node.environment.reading() as rows:
            found = [
                (parse_id(key), records.unpack_directory(record).attr.generation)
                for key, record in rows.scan(Table.DIRECTORY, b"")
            ]
        return [{"ino": ino, "generation": generation} for ino, generation in sorted(found)]

    def files(self) -> list[Any]:
        with self.node.environment.reading() as rows:
            return [
                unpack_attr(record)
                for key, record in rows.scan(Table.INODE, b"")
                if parse_inode(key)[0] != parse_inode(key)[1]
            ]

    async def step(self, kind: int, pick: int, other: int, first: int, second: int) -> None:
        self.clock.advance(0.001 * (first + 1))
        directories, files = self.directories(), self.files()
        here, there = directories[pick % len(directories)], directories[other % len(directories)]
        name, to = NAMES[first], NAMES[second]
        do = self.client.do
        if kind <= 2:
            body = {"dir": here, "name": name, "mode": 0o100644, "inline": b"x" * (other + 1)}
            await do(create=body)
        elif kind == 3:
            await do(mkdir={"dir": here, "name": name, "mode": 0o755})
        elif kind == 4:
            await do(unlink={"dir": here, "name": name})
        elif kind == 5:
            await do(remove_tree={"dir": here, "name": name})
        elif kind <= 7:
            await do(
                rename={"old_dir": here, "old_name": name, "new_dir": there, "new_name": to,
                        "flags": 2 * (other % 5 == 0)}
            )  # fmt: skip
        elif kind == 8 and files:
            await use(self.client, files[pick % len(files)], self.node.now_ns())
        elif kind == 9 and files:
            attr = files[pick % len(files)]
            inode = {"ino": attr.ino, "generation": attr.generation, "place": attr.place}
            if second:
                writes = [{"offset": attr.size, "data": b"y" * other}]
                await do(publish={"inode": inode, "writes": writes})
            else:
                await do(link={"inode": inode, "dir": there, "name": to})
        elif kind == 10 and here["ino"] != ROOT_INO:
            value = CacheSettings(20 + 10 * other, POLICIES[second % 3]).pack()
            await do(setxattr={"inode": here, "name": CACHE_XATTR, "value": value})
        elif kind == 11:
            await do(removexattr={"inode": here, "name": CACHE_XATTR})
        self.check()

    def check(self) -> None:
        with self.node.environment.reading() as rows:
            assert list(check_caches(rows)) == []
            for _, record in rows.scan(Table.CACHE, b""):
                cache = records.unpack_cache(record)
                assert not cache.bytes_max or cache.bytes <= cache.bytes_max


async def run(steps: list[tuple[int, int, int, int, int]], pause: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        clock = ManualClock()
        async with running(make(Path(directory)), given=world(clock)) as node:
            client = TestClient(node)
            await client.hello()
            for index, step in enumerate(steps):
                await Model(node, client, clock).step(*step)
                if index % pause == 0:
                    await filed(node)
            await filed(node)
            with node.environment.reading() as rows:
                assert list(check_store(rows)) == []
                assert not rows.state.counts[Table.CACHEWALK]
                assert {parse_id(key) for key in rows.keys(Table.CACHE, b"")} == {
                    parse_inode(key[:16])[1]
                    for key in rows.keys(Table.XATTR, b"")
                    if key[16:] == CACHE_XATTR
                }


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=60), pause=st.integers(1, 10))
def test_no_cache_is_over_its_bound_and_the_index_is_what_a_scan_says(
    steps: list[tuple[int, int, int, int, int]], pause: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cachetxn, "WALK_ENTRIES", 2)
        asyncio.run(run(steps, pause))
