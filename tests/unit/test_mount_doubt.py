"""Names that the kernel may still believe: what it is told about files while it does."""

from __future__ import annotations

import errno
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pyfuse3
import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from harness.memmount import TOP, World, ctx, errno_of
from superfs.client.codec import pack_names
from superfs.core.ids import ROOT
from superfs.core.namespace.txn import Caller, Ref
from superfs.mount.recalls import Recalls
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT_REF = Ref(ROOT, 0, ROOT)
NOBODY = Caller(0, 0)


@asynccontextmanager
async def slow_kernel() -> AsyncIterator[tuple[World, Recalls]]:
    """Under a lease; the kernel drops no name before the end."""
    w = World(attr_timeout_s=0.0, entry_timeout_s=0.0)
    w.meta.grants = True
    recalls = Recalls()
    recalls.extended(w.now + 20)
    hold = trio.Event()

    def wait(_parent: int, _name: bytes, _deleted: int = 0) -> None:
        trio.from_thread.run(hold.wait)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(w.services.run)
        nursery.start_soon(recalls.run, w.services.mounted)
        await settled()
        await w.write(b"first", b"")  # its number is the one that the kernel's root has
        w.kernel.invalidate_entry = wait  # type: ignore[method-assign,assignment]
        yield w, recalls
        hold.set()
        nursery.cancel_scope.cancel()


async def settled() -> None:
    heard = trio.Event()
    trio.lowlevel.current_trio_token().run_sync_soon(heard.set)
    await heard.wait()
    await wait_all_tasks_blocked()


async def recall(recalls: Recalls, *names: bytes, whole: bool = False) -> None:
    told = meta_pb2.Recall(lease=ROOT, names=pack_names(names), whole=whole)
    recalls.recalled(meta_pb2.Invalidate(number=1, recalls=[told]), lambda: None)
    await settled()


@pytest.mark.parametrize("whole", [False, True])
async def test_a_name_that_was_looked_up_again_is_in_no_doubt(whole: bool) -> None:
    """The kernel asks twice and no more: whoever opens a file that nobody touched would fail."""
    async with slow_kernel() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        await recall(recalls, b"a", whole=whole)
        assert (await w.ops.lookup(TOP, b"a", ctx())).st_ino == ino
        await w.ops.getattr(ino, ctx())
        info = await w.ops.open(ino, os.O_RDONLY, ctx())
        await w.ops.release(info.fh)


async def test_the_kernel_may_not_keep_attributes_of_what_is_in_doubt() -> None:
    """It would answer by the old name too, without a question."""
    async with slow_kernel() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        await w.meta.rename(ROOT_REF, b"a", ROOT_REF, b"b", flags=0, keep=False, caller=NOBODY)
        await recall(recalls, b"a", b"b")
        entry = await w.ops.lookup(TOP, b"b", ctx())
        assert (entry.st_ino, entry.attr_timeout) == (ino, 0)


async def test_who_has_it_open_lets_nobody_else_in_by_the_old_name() -> None:
    async with slow_kernel() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        info = await w.ops.open(ino, os.O_RDONLY, ctx())
        await recall(recalls, b"a")
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await w.ops.open(ino, os.O_RDONLY, ctx())
        assert errno_of(caught) == errno.ESTALE
        await w.ops.release(info.fh)


async def test_the_kernel_moves_what_it_believes() -> None:
    """And may be wrong: the name then stands for another file than the one that was renamed."""
    w = World(attr_timeout_s=0.0, entry_timeout_s=0.0)
    await w.write(b"a", b"old")
    await w.write(b"b", b"new")
    await w.meta.rename(ROOT_REF, b"b", ROOT_REF, b"a", flags=0, keep=False, caller=NOBODY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(w.services.run)
        await w.ops.rename(TOP, b"a", TOP, b"c", 0, ctx())
        with trio.move_on_after(2):
            while (TOP, b"c") not in w.kernel.names:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert (TOP, b"c") in w.kernel.names


async def test_a_look_up_ends_the_doubt_also_where_much_is_changed() -> None:
    """The kernel looks up once and asks again; then it fails."""
    async with slow_kernel() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        await recall(recalls, b"a")
        find = w.meta.find_name
        root = w.services.mounted.nodes.root

        async def busy(*args: object, **options: object) -> object:
            outcome = await find(*args, **options)
            w.services.mounted.cache.changed(root, b"b")
            return outcome

        w.meta.find_name = busy  # type: ignore[method-assign,assignment]
        assert (await w.ops.lookup(TOP, b"a", ctx())).entry_timeout == 0
        await w.ops.getattr(ino, ctx())
