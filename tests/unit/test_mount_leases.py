"""What a mount repeats under leases, and how it stops (docs/decisions/0012-shared-leases.md)."""

from __future__ import annotations

import errno
import os

import pyfuse3
import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from harness.memmount import TOP, ctx, errno_of, leased
from superfs.client.codec import pack_names
from superfs.core.ids import ROOT
from superfs.mount.leases import INODES_MAX, NEVER, Leases
from superfs.mount.recalls import Recalls
from superfs.v1 import meta_pb2


class Acks:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


async def settled() -> None:
    """What the connection has said so far is dealt with."""
    heard = trio.Event()
    trio.lowlevel.current_trio_token().run_sync_soon(heard.set)
    await heard.wait()
    await wait_all_tasks_blocked()


def message(
    *names: bytes, lease: int = ROOT, inos: tuple[int, ...] = (), whole: bool = False
) -> meta_pb2.Invalidate:
    recall = meta_pb2.Recall(lease=lease, names=pack_names(names), inos=inos, whole=whole)
    return meta_pb2.Invalidate(number=1, recalls=[recall])


# ---- the table


def test_an_answer_that_was_asked_before_a_recall_comes_under_nothing() -> None:
    leases = Leases()
    assert leases.granted(7, leases.clock) is None, "no word from the daemon yet"
    leases.extend(20.0)
    asked = leases.clock
    lease = leases.granted(7, asked)
    assert lease is not None
    assert lease.until == 20.0
    leases.recall(7, whole=False)
    assert leases.granted(7, asked) is None
    assert lease.until == 20.0, "what was not recalled stands"
    assert leases.granted(7, leases.clock) is lease
    assert leases.granted(8, asked) is not None, "another lease"


def test_attributes_come_under_a_lease_of_which_others_were_recalled_since() -> None:
    leases = Leases()
    leases.extend(20.0)
    asked = leases.clock
    leases.recall(7, whole=False, inos=[7, 71])
    assert leases.granted(7, asked) is None, "a name"
    assert leases.granted(7, asked, 71) is None
    assert leases.granted(7, asked, 7) is None, "its own"
    assert leases.granted(7, asked, 72) is not None
    between = leases.clock
    leases.recall(7, whole=False, inos=[72])
    assert leases.granted(7, asked, 72) is None
    assert leases.granted(7, between, 72) is None
    assert leases.granted(7, between, 71) is not None
    leases.recall(7, whole=False, inos=range(1000, 1000 + INODES_MAX))
    assert leases.granted(7, between, 73) is None, "nobody remembers"
    asked = leases.clock
    assert leases.granted(7, asked, 73) is not None
    leases.recall(7, whole=True)
    assert leases.granted(7, asked, 73) is None
    assert leases.granted(7, leases.clock, 73) is not None


def test_a_recall_of_what_is_not_held_yet_counts() -> None:
    leases = Leases()
    leases.extend(20.0)
    asked = leases.clock
    leases.recall(7, whole=False)
    assert leases.granted(7, asked) is None


def test_what_a_whole_recall_ended_never_comes_back() -> None:
    leases = Leases()
    leases.extend(20.0)
    old = leases.granted(7, leases.clock)
    assert old is not None
    leases.recall(7, whole=True)
    new = leases.granted(7, leases.clock)
    leases.extend(30.0)
    assert old.until == 0.0
    assert new is not None
    assert new.until == 30.0


def test_a_lapse_ends_all_and_what_was_asked_before() -> None:
    leases = Leases()
    leases.extend(20.0)
    asked = leases.clock
    old = leases.granted(7, asked)
    assert old is not None
    leases.lapse()
    leases.extend(50.0)
    assert old.until == 0.0
    assert leases.granted(7, asked) is None
    assert leases.granted(9, asked) is None
    assert leases.granted(7, leases.clock) is not None
    assert NEVER.until == 0.0


# ---- the mount


async def test_repeats_without_asking_until_the_lease_ends() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        await w.ops.lookup(TOP, b"a", ctx())
        with pytest.raises(pyfuse3.FUSEError):
            await w.ops.lookup(TOP, b"b", ctx())
        w.meta.calls.clear()
        entry = await w.ops.lookup(TOP, b"a", ctx())
        assert entry.entry_timeout == pytest.approx(20, abs=0.1)
        assert entry.attr_timeout == pytest.approx(20, abs=0.1)
        await w.ops.getattr(ino, ctx())
        with pytest.raises(pyfuse3.FUSEError):
            await w.ops.lookup(TOP, b"b", ctx())
        assert not w.meta.calls
        recalls.extended(w.now + 40)
        await settled()
        w.now += 39
        assert (await w.ops.lookup(TOP, b"a", ctx())).entry_timeout <= 1
        assert not w.meta.calls
        w.now += 2
        assert (await w.ops.lookup(TOP, b"a", ctx())).entry_timeout == 0
        assert w.meta.calls == {"lookup": 1}


async def test_a_recalled_name_is_asked_for_again() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        await w.write(b"b", b"")
        acks = Acks()
        recalls.recalled(message(b"a", b"new"), acks)
        while not acks.count or w.table[ino].doubts:
            await trio.lowlevel.checkpoint()
        assert w.kernel.names == [(TOP, b"a")], "it was never told of the other"
        w.meta.calls.clear()
        await w.ops.lookup(TOP, b"b", ctx())
        assert not w.meta.calls, "the rest stands"
        await w.ops.lookup(TOP, b"a", ctx())
        assert w.meta.calls == {"lookup": 1}
        await w.ops.getattr(ino, ctx())


async def test_a_recalled_inode_is_asked_for_again_and_the_kernel_too() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        w.now += 2
        w.kernel.attrs.clear()
        acks = Acks()
        recalls.recalled(message(inos=(ino,)), acks)
        await settled()
        assert acks.count == 1
        assert w.kernel.attrs == [ino]
        assert not w.kernel.pages, "nobody has it open"
        w.meta.calls.clear()
        assert (await w.ops.getattr(ino, ctx())).attr_timeout > 0
        assert w.meta.calls == {"getattr": 1}


async def test_what_the_kernel_has_listed_of_a_directory_goes_with_its_attributes() -> None:
    """Also where the mount has forgotten these, and all else about it, for want of memory."""
    async with leased() as (w, recalls):
        number = (await w.ops.mkdir(TOP, b"d", 0o755, ctx())).st_ino
        w.table[number].attr = None
        w.kernel.pages.clear()
        recalls.recalled(message(lease=number, inos=(number,)), Acks())
        await settled()
        assert w.kernel.pages == [number]


async def test_an_inode_that_only_a_listing_has_brought_is_found_too() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        await w.ops.forget([(ino, 1)])
        w.services.mounted.cache.places.clear()
        fh = await w.ops.opendir(TOP, ctx())
        await w.list(fh, limit=2)
        recalls.recalled(message(inos=(ino,)), Acks())
        await settled()
        w.meta.calls.clear()
        await w.ops.lookup(TOP, b"a", ctx())
        assert w.meta.calls == {"lookup": 1}


async def test_a_file_is_in_doubt_until_the_kernel_has_dropped_its_name() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        hold = trio.Event()

        def wait(_parent: int, _name: bytes, _deleted: int = 0) -> None:
            trio.from_thread.run(hold.wait)

        w.kernel.invalidate_entry = wait  # type: ignore[method-assign,assignment]
        acks = Acks()
        w.services.mounted.nodes.root.busy = 1
        recalls.recalled(message(b"a"), acks)
        while not acks.count:  # nothing waits for ever for a lock that may wait for us
            await trio.lowlevel.checkpoint()
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await w.ops.getattr(ino, ctx())
        assert errno_of(caught) == errno.ESTALE
        hold.set()
        while w.table[ino].doubts:
            await trio.lowlevel.checkpoint()
        await w.ops.getattr(ino, ctx())


async def test_where_nobody_holds_the_directory_the_name_is_dropped_first() -> None:
    async with leased() as (w, recalls):
        await w.write(b"a", b"hello")
        hold = trio.Event()

        def wait(_parent: int, _name: bytes, _deleted: int = 0) -> None:
            trio.from_thread.run(hold.wait)

        w.kernel.invalidate_entry = wait  # type: ignore[method-assign,assignment]
        acks = Acks()
        recalls.recalled(message(b"a"), acks)
        await settled()
        assert not acks.count
        hold.set()
        while not acks.count:
            await trio.lowlevel.checkpoint()


async def test_who_has_it_open_goes_on() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        info = await w.ops.open(ino, os.O_RDONLY, ctx())
        w.table[ino].doubts = {(TOP, b"a"): trio.Event()}
        await w.ops.getattr(ino, ctx())
        recalls.recalled(message(inos=(ino,)), Acks())
        while w.kernel.pages != [ino]:
            await trio.lowlevel.checkpoint()
        await w.ops.release(info.fh)


async def test_the_name_of_a_directory_is_dropped_before_the_acknowledgement() -> None:
    async with leased() as (w, recalls):
        await w.ops.mkdir(TOP, b"d", 0o755, ctx())
        hold = trio.Event()

        def wait(_parent: int, _name: bytes, _deleted: int = 0) -> None:
            trio.from_thread.run(hold.wait)

        w.kernel.invalidate_entry = wait  # type: ignore[method-assign,assignment]
        acks = Acks()
        recalls.recalled(message(b"d"), acks)
        await settled()
        assert acks.count == 0
        hold.set()
        while not acks.count:
            await trio.lowlevel.checkpoint()


async def test_a_new_directory_is_known_to_be_empty() -> None:
    async with leased() as (w, _):
        made = await w.ops.mkdir(TOP, b"d", 0o755, ctx())
        w.meta.calls.clear()
        with pytest.raises(pyfuse3.FUSEError):
            await w.ops.lookup(made.st_ino, b"x", ctx())
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await w.ops.lookup(made.st_ino, b"x" * 256, ctx())
        assert errno_of(caught) == errno.ENAMETOOLONG, "not: there is none"
        ino = await w.write(b"x", b"1", parent=made.st_ino)
        assert (await w.ops.lookup(made.st_ino, b"x", ctx())).st_ino == ino
        assert [n for n, _ in await w.list(await w.ops.opendir(made.st_ino, ctx()))] == [
            b".", b"..", b"x",
        ]  # fmt: skip
        await w.ops.unlink(made.st_ino, b"x", ctx())
        with pytest.raises(pyfuse3.FUSEError):
            await w.ops.lookup(made.st_ino, b"x", ctx())
        assert w.meta.calls["lookup"] == w.meta.calls["read_dir"] == 0


async def test_a_directory_that_is_asked_about_again_and_again_is_learned_whole() -> None:
    async with leased() as (w, _):
        for i in range(9):
            await w.write(b"%d" % i, b"")
        w.services.mounted.cache.places.clear()
        w.meta.calls.clear()
        for i in range(9):
            await w.ops.lookup(TOP, b"%d" % i, ctx())
        with pytest.raises(pyfuse3.FUSEError):
            await w.ops.lookup(TOP, b"none", ctx())
        assert sum(w.meta.calls.values()) == 4
        assert w.meta.calls["read_dir"] == 1


async def test_a_recall_while_a_question_is_under_way() -> None:
    """The answer is given, and not kept."""
    async with leased() as (w, recalls):
        await w.write(b"a", b"")
        w.services.mounted.cache.unsure(w.services.mounted.nodes.root, b"a")
        find = w.meta.find_name

        async def slow(*args: object, **options: object) -> object:
            outcome = await find(*args, **options)
            assert outcome.attr is not None
            recalls._recall(message(b"a", inos=(outcome.attr.ino,)), Acks())
            return outcome

        w.meta.find_name = slow  # type: ignore[method-assign,assignment]
        entry = await w.ops.lookup(TOP, b"a", ctx())
        assert (entry.entry_timeout, entry.attr_timeout) == (0, 0)
        w.meta.calls.clear()
        await w.ops.lookup(TOP, b"a", ctx())
        assert w.meta.calls == {"lookup": 1}


async def test_a_whole_recall_takes_all_of_one_directory() -> None:
    async with leased() as (w, recalls):
        made = await w.ops.mkdir(TOP, b"d", 0o755, ctx())
        inside = await w.write(b"x", b"1", parent=made.st_ino)
        outside = await w.write(b"y", b"1")
        recalls.recalled(message(lease=made.st_ino, whole=True), Acks())
        await settled()
        w.meta.calls.clear()
        await w.ops.getattr(outside, ctx())
        await w.ops.lookup(TOP, b"y", ctx())
        assert not w.meta.calls
        while w.table[inside].doubts:
            await trio.lowlevel.checkpoint()
        await w.ops.getattr(inside, ctx())
        assert w.meta.calls == {"getattr": 1}


async def test_a_broken_connection_ends_everything_before_the_next_hello() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        await w.ops.mkdir(TOP, b"d", 0o755, ctx())
        await trio.to_thread.run_sync(recalls.lapsed)
        assert ino in w.kernel.attrs
        assert (TOP, b"d") in w.kernel.names
        while w.table[ino].doubts:
            await trio.lowlevel.checkpoint()
        assert (TOP, b"a") in w.kernel.names
        w.meta.calls.clear()
        assert (await w.ops.lookup(TOP, b"a", ctx())).entry_timeout == 0, "nothing is granted yet"
        recalls.extended(w.now + 20)
        await settled()
        await w.ops.lookup(TOP, b"a", ctx())
        assert w.meta.calls == {"lookup": 2}
        await w.ops.lookup(TOP, b"a", ctx())
        assert w.meta.calls == {"lookup": 2}


async def test_before_and_after_its_life_everything_is_acknowledged() -> None:
    recalls, acks = Recalls(), Acks()
    recalls.recalled(message(b"a"), acks)
    assert acks.count == 1
    recalls.lapsed()
    async with leased() as (_, recalls):
        pass
    recalls.recalled(message(b"a"), acks)
    await settled()
    assert acks.count == 2
