"""Bounded cache directories in a metadata daemon: what stays, what goes, and what is counted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from superfs.core.cachedirs import CACHE_XATTR, CacheSettings, is_temporary
from superfs.core.cachedirs import parse_settings as parsed
from superfs.core.errors import Code, FsError
from superfs.core.namespace.create import create
from superfs.core.namespace.mkdir import mkdir as make_directory
from superfs.core.namespace.rename import rename
from superfs.core.namespace.touch import touch
from superfs.core.namespace.txn import Caller, Ref
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
    use,
    with_node,
)
from unit.meta_node import ROOT, TestClient, everybody_had_a_turn, ref

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.daemon.clock import ManualClock
    from superfs.meta import cachetxn
    from superfs.meta.node import MetaNode

KIB = 1024
SECOND_NS = 10**9


def test_settings_round_trip() -> None:
    for settings in (CacheSettings(1), CacheSettings(1 << 40, "s3-fifo", 86_400)):
        assert parsed(settings.pack()) == settings


@pytest.mark.parametrize(
    "value",
    [
        b"", b"bytes=0 policy=lru ttl=0", b"bytes=-1 policy=lru ttl=0", b"bytes=1 policy=x ttl=0",
        b"bytes=1 policy=lru", b"bytes=1 policy=lru ttl=1e9", b"\xff\xfe", b"bytes=\xb2 ttl=1",
        b"bytes=99999999999999999999 policy=lru ttl=0", b"bytes=1 policy=lru ttl=0 more=1",
    ],
)  # fmt: skip
def test_settings_that_are_refused(value: bytes) -> None:
    with pytest.raises(FsError) as error:
        parsed(value)
    assert error.value.code is Code.INVALID


@pytest.mark.parametrize(
    ("name", "temporary"),
    [(b".x", True), (b"x.tmp", True), (b"x.part", True), (b"x.bin.tmp.77", True),
     (b"x", False), (b"tmp", False), (b"x.tmpl", False), (b"part.bin", False)],
)  # fmt: skip
def test_temporary_names(name: bytes, temporary: bool) -> None:
    assert is_temporary(name) is temporary


def test_the_bound_holds_and_the_oldest_goes(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 10 * KIB)
        for number in range(40):
            clock.advance(1)
            await put(client, directory, b"f%02d" % number, KIB)
            cache = cache_of(node, directory)
            assert cache is not None
            assert cache.bytes == min(number + 1, 10) * KIB
        assert names(node, directory) == [b"f%02d" % number for number in range(30, 40)]
        assert await usage(client, directory) == {
            "bytes": 10 * KIB, "files": 10, "evicted_files": 30, "evicted_bytes": 30 * KIB,
            "filing": 0,
        }  # fmt: skip
        assert sizes(node) == 10 * KIB

    with_node(tmp_path, run)


def test_what_was_used_stays(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 4 * KIB)
        attrs = [await put(client, directory, b"%d" % n, KIB) for n in range(4)]
        clock.advance(10)
        await use(client, attrs[0], node.now_ns())
        clock.advance(10)
        await put(client, directory, b"4", KIB)
        assert names(node, directory) == [b"0", b"2", b"3", b"4"]

    with_node(tmp_path, run)


def test_lfu_keeps_what_is_used_often(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 3 * KIB, "lfu")
        often, once, last = [await put(client, directory, b"%d" % n, KIB) for n in range(3)]
        for attr in (often, often, once, last):
            clock.advance(1)
            await use(client, attr, node.now_ns())
        clock.advance(1)
        await put(client, directory, b"new", KIB)  # never used: goes itself
        assert names(node, directory) == [b"0", b"1", b"2"]
        await use(client, last, node.now_ns())
        clock.advance(1)
        attr = await put(client, directory, b".new", KIB)
        await client.good(
            rename={"old_dir": directory, "old_name": b".new", "new_dir": directory,
                    "new_name": b"n"}
        )  # fmt: skip
        assert attr.size == KIB
        assert names(node, directory) == [b"0", b"2", b"n"] or names(node, directory) == [
            b"0", b"1", b"2",
        ]  # fmt: skip

    with_node(tmp_path, run)


def test_s3_fifo_lets_a_scan_pass_by(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 20 * KIB, "s3-fifo")
        hot = [await put(client, directory, b"hot%d" % n, KIB) for n in range(5)]
        for attr in hot:
            clock.advance(1)
            await use(client, attr, node.now_ns())
        for number in range(100):
            clock.advance(1)
            await put(client, directory, b"scan%03d" % number, KIB)
        kept = names(node, directory)
        assert len(kept) == 20
        assert [name for name in kept if name.startswith(b"hot")] == [
            b"hot%d" % n for n in range(5)
        ]
        # What comes back soon after it has left is not new.
        gone = b"scan%03d" % 78
        assert gone not in kept
        await put(client, directory, gone, KIB)
        with node.environment.reading() as rows:
            found = rows.state.counts[Table.CACHERANK]
        assert found == 40

    with_node(tmp_path, run)


def test_a_file_that_grows_counts(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 4 * KIB)
        await put(client, directory, b"old", KIB)
        clock.advance(1)
        attr = await put(client, directory, b"new", KIB)
        clock.advance(1)
        write = {"offset": 0, "data": b"y" * 4 * KIB}
        await client.good(publish={"inode": ref(attr), "size": 4 * KIB, "writes": [write]})
        assert names(node, directory) == [b"new"]
        await client.good(setattr={"inode": ref(attr), "mask": 8, "size": 100})
        assert (await usage(client, directory))["bytes"] == 100

    with_node(tmp_path, run)


def test_temporary_files_count_and_stay(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 3 * KIB)
        await put(client, directory, b"a.tmp", 2 * KIB)
        for name in (b"b", b"c", b"d"):
            clock.advance(1)
            await put(client, directory, name, KIB)
        assert names(node, directory) == [b"a.tmp", b"d"]
        clock.advance(1)
        await client.good(
            rename={"old_dir": directory, "old_name": b"a.tmp", "new_dir": directory,
                    "new_name": b"a"}
        )  # fmt: skip
        clock.advance(1)
        await put(client, directory, b"e", KIB)
        assert names(node, directory) == [b"a", b"e"]

    with_node(tmp_path, run)


def test_files_open_for_writing_stay_until_they_are_closed(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 2 * KIB)
        first = await put(client, directory, b"a", KIB)
        reader = await put(client, directory, b"b", KIB)
        await client.good(open={"inode": ref(first), "write": True})
        await client.good(open={"inode": ref(reader)})
        clock.advance(1)
        await put(client, directory, b"c", KIB)
        assert names(node, directory) == [b"a", b"c"]
        # Who has it open for reading still does.
        assert (await client.good(getattr={"inode": ref(reader)})).attr.nlink == 0
        clock.advance(1)
        await client.good(release={"inodes": [ref(first), ref(reader)]})
        await put(client, directory, b"d", KIB)
        assert names(node, directory) == [b"c", b"d"]

    with_node(tmp_path, run)


def test_a_second_name_takes_a_file_out(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 2 * KIB)
        attr = await put(client, directory, b"a", KIB)
        await client.good(link={"inode": ref(attr), "dir": ROOT, "name": b"too"})
        assert (await usage(client, directory))["files"] == 0
        for name in (b"b", b"c", b"d"):
            clock.advance(1)
            await put(client, directory, name, KIB)
        assert names(node, directory) == [b"a", b"c", b"d"]

    with_node(tmp_path, run)


def test_what_is_not_used_for_long_goes(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 1 << 30, ttl_s=60)
        attrs = [await put(client, directory, b"%d" % n, 1) for n in range(3)]
        clock.advance(40)
        await use(client, attrs[1], node.now_ns())
        clock.advance(40)
        assert node.caches._due() == {directory["ino"]}
        await node.caches._make_room(node.caches._due())
        assert names(node, directory) == [b"1"]
        assert node.caches._due() == set()

    with_node(tmp_path, run)


def test_another_bound_and_another_policy(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await mkdir(client, b"s", directory)
        await set_cache(client, directory, 20 * KIB)
        for number in range(10):
            clock.advance(1)
            await put(client, directory, b"%d" % number, KIB)
        for policy in ("s3-fifo", "lfu", "lru", "s3-fifo"):
            await set_cache(client, directory, 20 * KIB, policy)
            await filed(node)
            sound(node)
        await set_cache(client, directory, 3 * KIB, "lru")
        await filed(node)
        assert names(node, directory) == [b"7", b"8", b"9", b"s"]

    with_node(tmp_path, run)


def test_who_may_set_it_and_on_whose_behalf_files_go(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        theirs = await mkdir(client, b"c")
        await client.good(setattr={"inode": theirs, "mask": 7, "mode": 0o777, "uid": 7, "gid": 7})
        stranger = TestClient(node, 2, "user", 8)
        await stranger.hello()
        value = CacheSettings(2 * KIB).pack()
        body = {"inode": theirs, "name": CACHE_XATTR, "value": value}
        assert await code(stranger, setxattr=body) == Code.NOT_PERMITTED
        file = ref(await put(client, ROOT, b"f", 1))
        assert await code(client, setxattr={**body, "inode": file}) == Code.NOT_DIRECTORY
        assert await code(client, setxattr={**body, "value": b"x"}) == Code.INVALID
        await client.good(setxattr=body)
        roots = await mkdir(client, b"r", theirs)  # nobody but root may remove anything there
        await put(client, roots, b"kept", KIB)
        for number in range(4):
            clock.advance(1)
            await put(client, theirs, b"%d" % number, KIB)
        assert names(node, roots) == [b"kept"]
        assert names(node, theirs) == [b"3", b"r"]
        assert not (await client.good(listxattr={"inode": theirs})).data

    with_node(tmp_path, run)


def test_an_operation_that_is_undone_leaves_nothing(tmp_path: Path) -> None:
    async def run(node: MetaNode, client: TestClient, clock: ManualClock) -> None:
        directory = await mkdir(client, b"c")
        await set_cache(client, directory, 10 * KIB)
        await put(client, directory, b"there", 1)
        at = Ref(directory["ino"], directory["generation"])

        def fails(txn: cachetxn.CachingTxn) -> None:
            caller = Caller()
            with contextlib.suppress(FsError), txn.all_or_nothing():
                make_directory(txn, caller, at, b"s", 0o755)
                create(txn, caller, at, b"f", 0o100644, inline=b"x")
                rename(txn, caller, at, b"there", at, b"elsewhere")
                raise FsError(Code.BUSY)
            touch(txn, caller, [(Ref(file.ino, file.generation, at.ino), txn.now_ns)])

        file = (await client.good(lookup={"dir": directory, "name": b"there"})).attr
        clock.advance(10)
        await node.committer.run(fails)  # type: ignore[arg-type]
        await everybody_had_a_turn()
        assert (await usage(client, directory))["files"] == 1
        sound(node)
        await mkdir(client, b"s", directory)
        await put(client, directory, b"f", 1)
        assert (await usage(client, directory))["files"] == 2

    with_node(tmp_path, run)
