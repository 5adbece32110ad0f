"""What a mount remembers stays under its bound, and what nobody uses goes back."""

from __future__ import annotations

import errno
import os
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from harness.memmount import TOP, World, ctx
from superfs.core.ids import ROOT
from superfs.core.limits import MIB
from superfs.mount.budget import FLOOR_BYTES, Budget
from superfs.mount.desk.device import Notices
from superfs.mount.leases import ENDED_MAX, NEVER, Leases
from superfs.mount.memory import FORGOTTEN_S, NAME_BYTES, NODE_BYTES, TICK_S, Memory
from superfs.mount.recalls import Recalls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

BASE = 60 * MIB


# ---- the bound


def test_what_fits_is_remembered() -> None:
    budget = Budget(512 * MIB, BASE)
    assert budget.excess(BASE, 0) == 0
    assert budget.excess(400 * MIB, 340 * MIB) == 0
    assert budget.excess(440 * MIB, 400 * MIB) > 0, "an eighth is kept free"


def test_a_process_that_grows_all_the_same_remembers_less() -> None:
    budget = Budget(512 * MIB, BASE)
    ceiling = budget.ceiling
    assert budget.excess(470 * MIB, 200 * MIB) > 0, "the estimate is too low"
    assert budget.ceiling < 200 * MIB < ceiling
    lower = budget.ceiling
    assert budget.excess(470 * MIB, 100 * MIB) == 0, "freed memory is used again before it grows"
    assert budget.ceiling == lower
    budget.excess(490 * MIB, lower)
    assert budget.ceiling == lower - 20 * MIB
    budget.excess(200 * MIB, 100 * MIB)
    assert budget.ceiling == ceiling, "it has shrunk"


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), max_size=50))
def test_something_is_always_remembered(looks: list[tuple[int, int]]) -> None:
    budget = Budget(96 * MIB, BASE)
    for resident, remembered in looks:
        excess = budget.excess(resident * MIB, remembered * MIB)
        assert FLOOR_BYTES <= budget.ceiling < 96 * MIB
        assert excess == 0 or remembered * MIB > budget.ceiling


def test_the_kernel_is_asked_in_its_own_form() -> None:
    out, into = os.pipe()
    Notices(into, lambda: None).prune([5, 2**63])
    os.close(into)
    with open(out, "rb") as message:
        assert message.read() == struct.pack("=IiQIIQQQ", 48, 9, 0, 2, 0, 0, 5, 2**63)


# ---- leases


def test_giving_back_is_a_recall() -> None:
    leases = Leases()
    leases.extend(20.0)
    asked = leases.clock
    lease = leases.granted(7, asked)
    assert lease is not None
    assert leases.give_back([7, 8]) == [7], "what is not held does not go back"
    assert lease.until == 0.0
    assert leases.granted(7, asked) is None, "its answer may have been given before"
    assert leases.granted(7, leases.clock) is not None, "a new one, asked for after"
    assert leases.held() == [7]


def test_leases_that_are_over_take_no_memory_for_long() -> None:
    leases = Leases()
    leases.extend(20.0)
    for number in range(3 * ENDED_MAX):
        asked = leases.clock
        assert leases.granted(number, asked) is not None
        leases.give_back([number])
        assert leases.granted(number, asked) is None
    assert len(leases) <= ENDED_MAX + 1


# ---- a mount


class Pruned:
    """A kernel that forgets what it is asked to, but what is in use."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.works = True
        self.asked: list[int] = []
        self.in_use: set[int] = set()

    def __call__(self, inodes: Sequence[int]) -> None:
        if not self.works:
            raise OSError(errno.EINVAL, "an older kernel")
        self.asked += inodes
        trio.from_thread.run(self.forget, [n for n in inodes if n not in self.in_use])

    async def forget(self, numbers: list[int]) -> None:
        table = self.world.table
        await self.world.ops.forget([(n, table[n].nlookup) for n in numbers if n in table])


class Remembering:
    def __init__(self, world: World, memory: Memory, pruned: Pruned) -> None:
        self.world, self.memory, self.pruned = world, memory, pruned
        self.resident = BASE

    @property
    def known(self) -> set[int]:
        return set(self.world.table) - {TOP}

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.world.now += TICK_S
            await self.memory.tick()

    async def directory(self, name: bytes, files: int) -> tuple[int, list[int]]:
        """Made, with files, all known to the kernel."""
        made = await self.world.ops.mkdir(TOP, name, 0o755, ctx())
        inos = [await self.world.write(b"%d" % i, b"", parent=made.st_ino) for i in range(files)]
        return made.st_ino, inos

    def limit_to(self, inodes: int) -> None:
        """So many more fit than there are."""
        self.memory.budget.ceiling = self.memory.remembered + inodes * (NODE_BYTES + NAME_BYTES)
        self.memory.budget._most = lambda: self.memory.budget.ceiling  # type: ignore[method-assign]


@asynccontextmanager
async def remembering() -> AsyncIterator[Remembering]:
    w = World(attr_timeout_s=0.0, entry_timeout_s=0.0)
    w.meta.grants = True
    pruned = Pruned(w)
    w.kernel.prune = pruned.__call__  # type: ignore[method-assign]
    recalls = Recalls()
    recalls.extended(w.now + 1_000_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(w.services.mounted.notify.run)
        nursery.start_soon(recalls.run, w.services.mounted)
        await trio.testing.wait_all_tasks_blocked()
        await w.write(b"first", b"")  # its number is the one that the kernel's root has
        r = Remembering(w, w.services.memory, pruned)
        r.memory._resident = lambda: r.resident
        yield r
        nursery.cancel_scope.cancel()


def lookups(w: World) -> int:
    return w.meta.calls["lookup"] + w.meta.calls["read_dir"] + w.meta.calls["getattr"]


async def test_what_the_kernel_has_forgotten_is_remembered_for_a_while() -> None:
    async with remembering() as r:
        w, mounted = r.world, r.world.services.mounted
        directory, inos = await r.directory(b"d", 3)
        await w.ops.forget([(ino, 1) for ino in (*inos, directory)])
        await r.pass_time(FORGOTTEN_S / 2)
        w.meta.calls.clear()
        await w.ops.lookup(TOP, b"d", ctx())
        await w.ops.lookup(directory, b"1", ctx())
        assert lookups(w) == 0
        await w.ops.forget([(directory, 1), (inos[1], 1)])
        await r.pass_time(FORGOTTEN_S + 3)
        assert directory not in mounted.cache.places
        assert directory in w.meta.returned
        assert ROOT not in w.meta.returned, "the kernel has the root"
        assert r.memory.returned == len(w.meta.returned)
        assert directory not in mounted.leases.held()


async def test_a_lease_stays_while_the_kernel_has_one_file_of_it() -> None:
    async with remembering() as r:
        w = r.world
        directory, inos = await r.directory(b"d", 3)
        await w.ops.forget([(directory, 1), (inos[0], 1), (inos[2], 1)])
        await r.pass_time(2 * FORGOTTEN_S)
        assert w.meta.returned == []
        await w.ops.forget([(inos[1], 1)])
        await r.pass_time(FORGOTTEN_S + 2)
        assert w.meta.returned == [directory]


async def test_a_file_that_moved_goes_with_its_new_directory() -> None:
    async with remembering() as r:
        w = r.world
        old, inos = await r.directory(b"old", 1)
        new, _ = await r.directory(b"new", 0)
        await w.ops.rename(old, b"0", new, b"0", 0, ctx())
        await w.ops.forget([(old, 1), (new, 1)])
        await r.pass_time(FORGOTTEN_S + 2)
        assert w.meta.returned == [old], "the kernel has a file under the lease of the other"
        await w.ops.forget([(inos[0], 1)])
        await r.pass_time(FORGOTTEN_S + 2)
        assert sorted(w.meta.returned) == sorted([old, new])


async def test_a_file_that_is_forgotten_while_it_is_open_counts_until_it_is_closed() -> None:
    async with remembering() as r:
        w = r.world
        directory, inos = await r.directory(b"d", 1)
        info = await w.ops.open(inos[0], 0, ctx())
        await w.ops.forget([(inos[0], 1), (directory, 1)])
        await r.pass_time(FORGOTTEN_S + 2)
        assert w.meta.returned == []
        await w.ops.release(info.fh)
        await r.pass_time(FORGOTTEN_S + 2)
        assert w.meta.returned == [directory]


async def test_leases_of_what_was_only_listed_go_back_too() -> None:
    async with remembering() as r:
        w = r.world
        directory, _ = await r.directory(b"d", 0)
        below = await w.ops.mkdir(directory, b"e", 0o755, ctx())
        await w.ops.forget([(below.st_ino, 1), (directory, 1)])
        await r.pass_time(FORGOTTEN_S + 2)
        assert sorted(w.meta.returned) == sorted([directory, below.st_ino])


async def test_what_the_kernel_does_not_hold_is_forgotten_first() -> None:
    async with remembering() as r:
        w = r.world
        used, files = await r.directory(b"used", 5)
        directory, inos = await r.directory(b"d", 5)
        await w.ops.forget([(ino, 1) for ino in (*inos, directory)])
        r.limit_to(-3)
        await r.memory.tick()
        assert directory not in w.services.mounted.cache.places
        assert not r.pruned.asked, "and that was enough"
        assert {used, *files} <= r.known


async def test_the_least_recently_used_directory_goes_first() -> None:
    async with remembering() as r:
        w = r.world
        first, firsts = await r.directory(b"first one", 5)
        second, seconds = await r.directory(b"second", 5)
        await r.pass_time(1)
        await w.ops.lookup(first, b"1", ctx())
        await w.ops.forget([(firsts[1], 1)])
        r.limit_to(-3)
        await r.memory.tick()
        assert not r.known & set(seconds)
        assert r.known >= {*firsts, first, second} - {firsts[1]}
        assert not set(r.pruned.asked) & set(firsts)
        assert r.memory.evicted >= len(seconds)
        w.meta.calls.clear()
        await w.ops.lookup(second, b"1", ctx())
        assert lookups(w) == 1, "one question brings it back"


async def test_open_files_and_full_directories_stay() -> None:
    async with remembering() as r:
        w = r.world
        directory, inos = await r.directory(b"d", 4)
        info = await w.ops.open(inos[0], 0, ctx())
        r.limit_to(-1000)
        await r.memory.tick()
        assert inos[0] not in r.pruned.asked
        assert directory not in r.pruned.asked, "it had something in it when its turn was"
        assert inos[0] in r.known
        await w.ops.release(info.fh)
        await r.memory.tick()
        assert inos[0] not in r.known


async def test_what_the_kernel_keeps_loses_its_attributes_and_nothing_else() -> None:
    async with remembering() as r:
        w = r.world
        directory, inos = await r.directory(b"d", 4)
        r.pruned.in_use = set(inos)
        r.limit_to(-1000)
        await r.memory.tick()
        assert set(inos) <= r.known
        assert all(w.table[ino].attr is None for ino in inos)
        mounted = w.services.mounted
        assert {n for n, _ in mounted.cache.names_of(w.table[directory])} == {
            b"0",
            b"1",
            b"2",
            b"3",
        }
        fh = await w.ops.opendir(directory, ctx())
        assert [n for n, _ in await w.list(fh)] == [b".", b"..", b"0", b"1", b"2", b"3"]
        assert (await w.ops.getattr(inos[2], ctx())).st_ino == inos[2]


async def test_a_listing_under_way_tells_what_lost_its_attributes() -> None:
    async with remembering() as r:
        w = r.world
        directory, inos = await r.directory(b"d", 4)
        fh = await w.ops.opendir(directory, ctx())
        assert [n for n, _ in await w.list(fh, limit=3)] == [b".", b"..", b"0"]
        for ino in inos:
            w.table[ino].lease, w.table[ino].attr, w.table[ino].packed = NEVER, None, None
        assert [n for n, _ in await w.list(fh, start=3)] == [b"1", b"2", b"3"]


async def test_an_older_kernel_is_told_to_drop_the_names_of_files() -> None:
    async with remembering() as r:
        w = r.world
        directory, _ = await r.directory(b"d", 2)
        below = await w.ops.mkdir(directory, b"e", 0o755, ctx())
        r.pruned.works = False
        r.limit_to(-1000)
        await r.memory.tick()
        assert (directory, b"0") in w.kernel.names
        assert (directory, b"e") not in w.kernel.names, "somebody may work in it"
        assert below.st_ino in r.known


async def test_a_listing_waits_while_memory_is_made() -> None:
    async with remembering() as r:
        mounted = r.world.services.mounted
        mounted.crowded = trio.Event()
        waited = trio.Event()

        async def wait() -> None:
            await mounted.room()
            waited.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not waited.is_set()
            mounted.crowded.set()
            await waited.wait()


@pytest.mark.parametrize("value", [0, 95, 2**40])
def test_impossible_bounds_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="memory_max must be between 96"):
        World(memory_max=value)
