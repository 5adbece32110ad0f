"""An inode lives as long as the kernel knows it: what a look-up found before a rename or an unlink
of this mount can be opened and read behind it, or is said to be gone at once."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from harness.memmount import TOP, World, ctx, errno_of
from superfs.rpc.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable


def slowly(call: Callable[..., Any], gate: Pending[None]) -> Callable[..., Any]:
    async def wrapped(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        await gate
        return await call(*args, **options)

    return wrapped


async def test_what_a_rename_replaces_can_still_be_opened_by_who_has_found_it() -> None:
    """Between the look-up and the open of a reader a writer replaces the file, as it does again
    and again; the kernel asks once more after ESTALE, and only once."""
    w = World()
    for round_ in range(3):
        await w.write(b"new", b"contents")
        found = None
        if round_:
            found = (await w.ops.lookup(TOP, b"current", ctx())).st_ino
            await w.write(b"another", b"")  # nothing is remembered of the name across that
        await w.ops.rename(TOP, b"new", TOP, b"current", 0, ctx())
        await w.services.mounted.opens.settle()
        w.now += 2
        if found is not None:
            assert w.meta.store.orphans
            info = await w.ops.open(found, os.O_RDONLY, ctx())
            assert await w.ops.read(info.fh, 0, 8) == b"contents"
            await w.ops.release(info.fh)
            await w.ops.forget([(found, w.table[found].nlookup)])
            await w.services.mounted.opens.settle()
        assert not w.meta.store.orphans
    assert not +w.meta.held


async def test_what_was_replaced_is_let_go_when_the_kernel_forgets_it() -> None:
    w = World()
    old = await w.write(b"a", b"old")
    await w.write(b"b", b"new")
    await w.ops.rename(TOP, b"b", TOP, b"a", 0, ctx())
    opens = w.services.mounted.opens
    await opens.settle()
    assert w.meta.store.orphans, "the kernel knows it"
    await w.ops.forget([(old, 1)])
    await opens.settle()
    assert not w.meta.store.orphans
    assert not +w.meta.held


async def test_what_the_kernel_does_not_forget_is_let_go_in_the_end() -> None:
    """A second name that another client took away may hold it in the kernel for very long."""
    w = World()
    await w.write(b"a", b"old")
    await w.write(b"b", b"new")
    await w.ops.rename(TOP, b"b", TOP, b"a", 0, ctx())
    w.now += 3600
    await w.services.mounted.opens.settle()
    assert not w.meta.store.orphans


async def test_an_open_waits_for_the_unlink_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It succeeds for good or fails at once; never an open file that nothing can be read from."""
    w = World()
    ino = await w.write(b"a", b"x")
    gate: Pending[None] = Pending()
    monkeypatch.setattr(w.meta, "unlink", slowly(w.meta.unlink, gate), raising=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(w.ops.unlink, TOP, b"a", ctx())
        await wait_all_tasks_blocked()

        async def late() -> None:
            with pytest.raises(pyfuse3.FUSEError) as error:
                await w.ops.open(ino, os.O_RDONLY, ctx())
            assert errno_of(error) == errno.ESTALE, "the kernel looks the name up again"

        nursery.start_soon(late)
        await wait_all_tasks_blocked()
        gate.complete(None)
    with pytest.raises(pyfuse3.FUSEError) as again:
        await w.ops.open(ino, os.O_RDONLY, ctx())
    assert errno_of(again) == errno.ESTALE


async def test_an_unlink_of_a_name_not_remembered_keeps_what_is_open() -> None:
    w = World()
    info, entry = await w.ops.create(TOP, b"a", 0o644, os.O_RDWR, ctx())
    await w.ops.write(info.fh, 0, b"data")
    w.services.mounted.cache.changed(w.table[TOP], b"a")
    await w.ops.unlink(TOP, b"a", ctx())
    assert (await w.ops.getattr(entry.st_ino, ctx())).st_nlink == 0
    assert await w.ops.read(info.fh, 0, 10) == b"data"
    await w.ops.release(info.fh)
    await w.ops.forget([(entry.st_ino, 1)])
    await w.services.mounted.opens.settle()
    assert not w.meta.store.orphans
