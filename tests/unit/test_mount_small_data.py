"""Small files on data daemons are fetched ahead like those that metad keeps."""

from __future__ import annotations

import random

import trio
from trio.testing import wait_all_tasks_blocked

from harness.memdir import FILES, directory
from superfs.core.errors import Code, FsError
from superfs.rpc.pending import Pending


async def test_files_read_in_order_take_few_messages() -> None:
    async with directory(spilled=True) as d:
        await d.read_in_order(FILES)
        assert d.asked_alone == 1, "the first"
        assert d.w.meta.calls["read_many"] <= 4
        assert not d.w.meta.calls["get_small"]


async def test_files_read_in_any_order_take_few_messages() -> None:
    async with directory(400, spilled=True) as d:
        order = d.names[:]
        random.Random(3).shuffle(order)
        for name in order:
            assert await d.read(name) == b"contents of " + name
        assert d.asked_alone + d.w.meta.calls["read_many"] < 40


async def test_more_than_there_is_room_for_is_fetched_once() -> None:
    """Windows that are under way have their room already."""
    size = 32 * 1024
    async with directory(200, spilled=True, contents_cache_mib=1) as d:
        for name in d.names:
            d.another_publishes(name, bytes(size))
        await d.recall(*d.names)
        await d.list()
        order = d.names[:]
        random.Random(3).shuffle(order)
        readers = [order[start::4] for start in range(4)]

        async def read(names: list[bytes]) -> None:
            for name in names:
                assert len(await d.read(name, size)) == size

        async with trio.open_nursery() as nursery:
            for names in readers:
                nursery.start_soon(read, names)
        services = d.w.services
        assert services.mounted.contents.wasted == 0
        assert services.prefetch.asked <= len(order)


async def test_of_both_kinds() -> None:
    async with directory() as d:
        for name in d.names[::3]:
            d.another_spills(name)
            await d.recall(name)
        await d.list()
        await d.read_in_order(FILES)
        assert d.asked_alone == 1
        assert d.w.meta.calls["read_many"] <= 4
        assert d.w.meta.calls["get_small"] <= 4


async def test_one_that_cannot_be_had_that_way_is_left_to_itself() -> None:
    async with directory(spilled=True) as d:
        await d.read_in_order(1)
        d.w.meta.fail["read_many"] = FsError(Code.STALE_DATA)
        await d.read_in_order(4)
        assert d.asked_alone >= 2


async def test_published_between_fetch_and_read() -> None:
    async with directory(spilled=True) as d:
        await d.read_in_order(3)
        assert d.peek(d.names[5]) is not None
        d.another_publishes(d.names[5], b"CONTENTS OF " + d.names[5])
        await d.recall(d.names[5])
        assert await d.read(d.names[5]) == b"CONTENTS OF " + d.names[5]


async def test_published_while_a_window_is_under_way() -> None:
    async with directory(spilled=True) as d:
        await d.read_in_order(1)
        held = d.w.meta.held_back["read_many"] = Pending()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(d.read, d.names[1])
            await wait_all_tasks_blocked()
            assert d.w.meta.calls["read_many"] == 1
            d.another_publishes(d.names[4], b"CONTENTS OF " + d.names[4])
            await d.recall(d.names[4])
            await d.w.services.mounted.fetch(d.node(d.names[4]))  # the new version is known
            held.complete(None)
        assert d.peek(d.names[4]) is None
        assert await d.read(d.names[4]) == b"CONTENTS OF " + d.names[4]


async def test_what_nobody_vouches_for_is_not_fetched() -> None:
    """A version is known under a lease or not at all."""
    async with directory(spilled=True) as d:
        await d.read_in_order(1)
        await d.recall(d.names[4])
        assert await d.read(d.names[1]) == b"contents of " + d.names[1]
        assert d.peek(d.names[3]) is not None
        assert d.node(d.names[4]).whole is None
