"""Contents of small files fetched before they are read, and never told when they are not so any
more (docs/decisions/0015-contents-fetched-ahead.md)."""

from __future__ import annotations

import os
import random

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from harness.memdir import FILES, directory
from harness.memmount import TOP, ctx, fields, wanted
from superfs.client.columns import SmallFiles
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.core.namespace.txn import Caller, Ref
from superfs.core.namespace.verbs import VERBS
from superfs.mount import lookups
from superfs.mount.contents import ENTRY_BYTES
from superfs.rpc.pending import Pending
from superfs.v1 import meta_pb2

# ---- fetched ahead


async def test_files_read_in_order_take_few_messages() -> None:
    async with directory() as d:
        await d.read_in_order(FILES)
        assert d.asked_alone == 1, "the first"
        assert d.w.meta.calls["get_small"] <= 4
        assert sorted(d.w.meta.fetched) == d.names[1:], "each once"
        d.w.meta.calls.clear()
        await d.read_in_order(FILES)
        assert d.asked_alone == 2
        assert not d.w.meta.calls


async def test_a_file_with_several_names_in_one_directory_is_fetched_once() -> None:
    async with directory(40, listed=False) as d:
        for name in d.names[3:30]:
            d.run("link", d.ref(d.names[2]), Ref(ROOT, 1, ROOT), name + b" again")
        every = sorted([*d.names, *(name + b" again" for name in d.names[3:30])])
        d.names, files = every, d.names
        await d.list()
        for name in every:
            first = files[2] if name.endswith(b"again") else name
            assert await d.read(name) == b"contents of " + first
        assert len(d.w.meta.fetched) == len(set(d.w.meta.fetched))


async def test_one_file_alone_brings_no_others() -> None:
    async with directory() as d:
        assert await d.read(d.names[50]) == b"contents of " + d.names[50]
        assert await d.read(d.names[20]) == b"contents of " + d.names[20]
        assert d.w.meta.calls["get_small"] == 0


async def test_files_read_in_any_order_take_few_messages() -> None:
    async with directory(400) as d:
        order = d.names[:]
        random.Random(3).shuffle(order)
        for name in order:
            assert await d.read(name) == b"contents of " + name
        assert d.asked_alone + d.w.meta.calls["get_small"] < 40


@pytest.mark.parametrize("shuffled", [False, True])
async def test_nobody_needs_to_list_the_directory(
    monkeypatch: pytest.MonkeyPatch, shuffled: bool
) -> None:
    """Names become known by look-ups, some at a time."""
    monkeypatch.setattr(lookups, "PAGE_ENTRIES", 100)
    async with directory(1000, listed=False) as d:
        order = d.names[:]
        if shuffled:
            random.Random(3).shuffle(order)
        for name in order:
            assert await d.read(name) == b"contents of " + name
        asked = d.asked_alone + sum(d.w.meta.calls.values())
        assert asked < (500 if shuffled else 60)


async def test_who_reads_directory_after_directory_gets_each_at_once() -> None:
    async with directory(1) as d:
        w = d.w
        for number in range(8):
            made = await w.ops.mkdir(TOP, b"d%d" % number, 0o755, ctx())
            inos = [await w.write(b"%d" % i, b"contents", parent=made.st_ino) for i in range(6)]
            w.meta.calls.clear()
            w.meta.made.clear()
            for ino in inos:
                fh = (await w.ops.open(ino, os.O_RDONLY, ctx())).fh
                assert await w.ops.read(fh, 0, 4096) == b"contents"
                await w.ops.release(fh)
            asked = w.meta.calls["get_small"], d.asked_alone
            assert asked == ((1, 1) if number < 4 else (1, 0)), number


async def test_a_read_that_memory_answers_needs_no_open_file_of_its_own() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        fh = await d.open(d.names[5])
        handle = d.w.services.handles.get(fh)
        assert d.w.services.files.read_now(handle, 0, 8) == b"contents"
        assert d.w.services.files.read_now(handle, 12, 100) == d.names[5]
        assert d.w.services.files.read_now(handle, 500, 100) == b""
        assert handle.file.contents is None


async def test_a_second_reader_waits_for_the_window_that_is_under_way() -> None:
    async with directory() as d:
        await d.read_in_order(1)
        d.w.meta.held_back["get_small"] = Pending()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(d.read, d.names[1])
            await wait_all_tasks_blocked()
            for name in d.names[2:5]:
                nursery.start_soon(d.read, name)
            await wait_all_tasks_blocked()
            assert d.w.meta.calls["get_small"] == 1
            d.w.meta.held_back.pop("get_small").complete(None)
        assert d.asked_alone == 1


async def test_without_room_nothing_is_fetched_ahead() -> None:
    async with directory(contents_cache_mib=0) as d:
        await d.read_in_order(FILES)
        assert d.asked_alone == FILES
        assert d.w.meta.calls["get_small"] == 0


async def test_a_window_that_fails_leaves_every_file_to_itself() -> None:
    async with directory() as d:
        await d.read_in_order(1)
        d.w.meta.fail["get_small"] = FsError(Code.IO)
        assert await d.read(d.names[1]) == b"contents of " + d.names[1]
        assert d.asked_alone == 2


async def test_what_is_kept_is_bounded() -> None:
    async with directory(3000, contents_cache_mib=1) as d:
        contents = d.w.services.mounted.contents
        for start in (0, 1000, 2000):
            for name in d.names[start : start + 600]:
                assert await d.read(name) == b"contents of " + name
                assert contents.bytes_kept <= contents.bytes_max == 1 << 20
                assert contents.bytes_kept >= len(contents) * ENTRY_BYTES
        kept = [node for node in d.w.services.mounted.nodes.all_alive() if node.whole is not None]
        assert len(kept) == len(contents)


# ---- never stale


async def test_recalled_between_fetch_and_read() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        d.another_writes(d.names[5], b"written by another")
        await d.recall(d.names[5])
        assert await d.read(d.names[5]) == b"written by another"
        await d.read_in_order(5)
        assert d.w.services.mounted.contents.hits > 0


async def test_recalled_while_it_is_open() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        fh = await d.open(d.names[5])
        assert await d.w.ops.read(fh, 0, 4096) == b"contents of " + d.names[5]
        d.another_writes(d.names[5], b"written by another")
        await d.recall(d.names[5])
        assert await d.w.ops.read(fh, 0, 4096) == b"written by another"


async def test_an_answer_from_before_a_write_is_not_told() -> None:
    """Another client writes, and hears that everybody knows, while a window is on its way."""
    async with directory() as d:
        await d.read_in_order(1)
        d.w.meta.held_back["get_small"] = Pending()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(d.read, d.names[1])
            await wait_all_tasks_blocked()
            assert d.names[4] in d.w.meta.fetched
            d.another_writes(d.names[4], b"written by another")
            await d.recall(d.names[4])
            d.w.meta.held_back.pop("get_small").complete(None)
        assert await d.read(d.names[4]) == b"written by another"


async def test_own_writes_are_read() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        fh = await d.open(d.names[5], os.O_RDWR)
        assert await d.w.ops.read(fh, 0, 8) == b"contents"
        await d.w.ops.write(fh, 0, b"CONTENTS")
        assert d.peek(d.names[5]) is None
        assert await d.w.ops.read(fh, 0, 11) == b"CONTENTS of"
        assert await d.read(d.names[5]) == b"CONTENTS of " + d.names[5]
        await d.w.ops.flush(fh)
        await d.w.ops.release(fh)
        assert await d.read(d.names[5]) == b"CONTENTS of " + d.names[5]


async def test_own_truncation_by_path() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        for size in (8, 10):
            w = wanted(st_size=size)
            await d.w.ops.setattr(d.inos[d.names[5]], w, fields("size"), None, ctx())
            d.w.meta.data[d.inos[d.names[5]]][8:] = bytes(size - 8)
            assert await d.read(d.names[5]) == b"contents\0\0"[:size]


async def test_an_answer_from_before_an_own_truncation_is_not_told() -> None:
    async with directory() as d:
        await d.read_in_order(1)
        ino = d.inos[d.names[4]]
        d.w.meta.held_back["get_small"] = Pending()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(d.read, d.names[1])
            await wait_all_tasks_blocked()
            d.w.meta.held_back["setattr"] = Pending()
            w = wanted(st_size=8)
            nursery.start_soon(d.w.ops.setattr, ino, w, fields("size"), None, ctx())
            await wait_all_tasks_blocked()
            nursery.start_soon(d.read, d.names[30])
            nursery.start_soon(d.read, d.names[31])
            await wait_all_tasks_blocked()
            d.w.meta.held_back.pop("get_small").complete(None)
            await wait_all_tasks_blocked()
            assert d.peek(d.names[4]) is None, "it is done, and others may know"
            d.w.meta.held_back.pop("setattr").complete(None)
        assert await d.read(d.names[4]) == b"contents"


async def test_an_answer_from_before_an_own_truncation_that_comes_after_it() -> None:
    async with directory() as d:
        await d.read_in_order(1)
        held = d.w.meta.held_back["get_small"] = Pending()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(d.read, d.names[1])
            await wait_all_tasks_blocked()
            d.w.meta.fail["setattr"] = FsError(Code.IO, "nobody knows whether it was done")
            w = wanted(st_size=8)
            with pytest.raises(pyfuse3.FUSEError):
                await d.w.ops.setattr(d.inos[d.names[4]], w, fields("size"), None, ctx())
            held.complete(None)
        assert d.peek(d.names[4]) is None


async def test_an_answer_about_another_file_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its version may be the same: many files are made in one commit."""
    async with directory() as d:
        await d.read_in_order(1)
        ask = d.w.meta.get_small

        async def another(parent: Ref, names: list[bytes]) -> SmallFiles:
            answer = await ask(parent, names)
            rows = [(ino + 1, change, data) for ino, change, data in answer.rows]
            return SmallFiles(rows, answer.leases, answer.packed)

        monkeypatch.setattr(d.w.meta, "get_small", another)
        await d.read(d.names[1])
        assert all(d.peek(name) is None for name in d.names)


async def test_removed_and_made_again() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        await d.w.ops.unlink(TOP, d.names[5], ctx())
        await d.w.write(d.names[5], b"another file")
        assert await d.read(d.names[5]) == b"another file"


async def test_removed_while_a_window_is_under_way() -> None:
    async with directory() as d:
        await d.read_in_order(1)
        d.w.meta.held_back["get_small"] = Pending()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(d.read, d.names[1])
            await wait_all_tasks_blocked()
            await d.w.ops.unlink(TOP, d.names[4], ctx())
            await d.w.write(d.names[4], b"another file")
            d.w.meta.held_back.pop("get_small").complete(None)
        assert await d.read(d.names[4]) == b"another file"


async def test_a_name_that_became_another_file() -> None:
    """The listing that a window goes by is older than the directory."""
    async with directory() as d:
        await d.read_in_order(2)
        gone = d.inos[d.names[20]]
        d.another_removes(d.names[20])
        d.inos[d.names[20]] = d.another_makes(d.names[20], b"another file")
        recall = meta_pb2.Recall(lease=ROOT, whole=True)
        d.recalls.recalled(meta_pb2.Invalidate(number=1, recalls=[recall]), lambda: None)
        await wait_all_tasks_blocked()
        for name in d.names:
            expected = b"another file" if name == d.names[20] else b"contents of " + name
            assert await d.read(name) == expected
        d.inos[d.names[20]] = gone
        assert d.peek(d.names[20]) is None


async def test_a_file_with_several_names() -> None:
    async with directory() as d:
        d.w.meta.store.run(VERBS["link"], Caller(), d.ref(d.names[5]), Ref(ROOT, 1, ROOT), b"zz")
        d.inos[b"zz"] = d.inos[d.names[5]]
        await d.recall(d.names[5], b"zz")
        await d.read_in_order(8)
        assert await d.read(b"zz") == b"contents of " + d.names[5]
        d.another_writes(b"zz", b"written by another")
        recall = meta_pb2.Recall(lease=d.inos[b"zz"], inos=[d.inos[b"zz"]])
        d.recalls.recalled(meta_pb2.Invalidate(number=2, recalls=[recall]), lambda: None)
        await wait_all_tasks_blocked()
        assert await d.read(d.names[5]) == await d.read(b"zz") == b"written by another"


async def test_nothing_is_told_when_the_lease_has_ended() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        fh = await d.open(d.names[5])
        handle = d.w.services.handles.get(fh)
        d.w.now += 21
        assert d.w.services.files.read_now(handle, 0, 8) is None
        d.another_writes(d.names[5], b"written by another")
        assert await d.w.ops.read(fh, 0, 4096) == b"written by another"


async def test_nothing_is_told_after_the_connection_broke() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        d.another_writes(d.names[5], b"written by another")
        await trio.to_thread.run_sync(d.recalls.lapsed)
        assert await d.read(d.names[5]) == b"written by another"


async def test_what_another_client_removed_is_not_told() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        fh = await d.open(d.names[5])
        d.another_removes(d.names[5])
        await d.recall(d.names[5])
        handle = d.w.services.handles.get(fh)
        assert d.w.services.files.read_now(handle, 0, 8) is None


async def test_a_new_access_time_does_not_make_it_another_version() -> None:
    async with directory() as d:
        await d.read_in_order(3)
        node = d.w.services.mounted.nodes.alive(d.inos[d.names[5]])
        assert node is not None
        d.w.services.atimes._policy = "strictatime"
        d.w.services.atimes.touch(node)
        await d.w.services.atimes.ship()
        assert d.w.meta.calls["touch"] == 1
        await d.w.ops.getattr(d.inos[d.names[5]], ctx())
        assert d.peek(d.names[5]) == b"contents of " + d.names[5]


@pytest.mark.parametrize("size", [0, 8161])
async def test_what_has_no_small_contents_is_not_fetched(size: int) -> None:
    async with directory() as d:
        d.another_writes(d.names[3], bytes(size))
        await d.recall(d.names[3])
        await d.w.ops.lookup(TOP, d.names[3], ctx())
        for name in d.names[:3]:
            await d.read(name)
        assert d.names[4] in d.w.meta.fetched
        assert d.names[3] not in d.w.meta.fetched
