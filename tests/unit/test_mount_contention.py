"""A directory that this mount and others change at the same time, and what this mount is about to
change: what others may know already is not told from memory, here or by the kernel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyfuse3
import pytest
import trio

from harness.memmount import ROOT_REF, TOP, World, ctx, fields, leased, recall, wanted
from superfs.core.errors import Code, FsError
from superfs.mount.contention import CONTENDED_S, Contention
from superfs.rpc.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable

EXCHANGE = 2


class Slow:
    """A verb whose answer comes when `go` is set, and what it does before."""

    def __init__(self, world: World, verb: str) -> None:
        self._go: Pending[None] = Pending()
        self.done = trio.Event()
        self._call: Callable[..., Any] = getattr(world.meta, verb)
        setattr(world.meta, verb, self)

    async def __call__(self, *args: object, **options: object) -> object:
        outcome = await self._call(*args, **options)
        self.done.set()
        await self._go
        return outcome

    def go(self) -> None:
        self._go.complete(None)


# ---- contention


def test_what_the_kernel_may_believe() -> None:
    contention = Contention(100.0, 120.0)
    assert contention.may_be_believed(b"a", 119.0)
    contention.dropped(b"a")
    assert not contention.may_be_believed(b"a", 119.0)
    assert contention.may_be_believed(b"b", 119.0)
    assert not contention.may_be_believed(b"b", 120.0)
    contention.moved_in(b"a", 130.0)
    assert contention.may_be_believed(b"a", 129.0)
    assert contention.until == 100.0 + CONTENDED_S
    contention.goes_on(105.0)
    assert contention.until == 105.0 + CONTENDED_S


async def test_the_kernel_is_given_no_names_to_keep() -> None:
    async with leased() as (w, recalls):
        await w.write(b"a", b"hello")
        await w.write(b"b", b"hello")
        assert (await w.ops.lookup(TOP, b"b", ctx())).entry_timeout > 0
        root = w.services.mounted.nodes.root
        root.busy = 1
        await recall(recalls, b"a")
        root.busy = 0
        w.kernel.names.clear()
        w.meta.calls.clear()
        entry = await w.ops.lookup(TOP, b"b", ctx())
        assert (entry.entry_timeout, entry.attr_timeout > 0) == (0, True)
        assert not w.meta.calls, "we may repeat it"
        assert (await w.ops.lookup(TOP, b"a", ctx())).entry_timeout == 0
        assert await listed_timeouts(w) == {b"a": 0, b"b": 0, b"first": 0}
        await recall(recalls, b"a", b"b")
        assert w.kernel.names == [(TOP, b"b")], "what it was given before"
        await recall(recalls, b"a", b"b")
        assert w.kernel.names == [(TOP, b"b")], "there is nothing to be dropped"
        w.now += CONTENDED_S + 1
        assert (await w.ops.lookup(TOP, b"b", ctx())).entry_timeout > 0


async def listed_timeouts(w: World) -> dict[bytes, float]:
    found: dict[bytes, float] = {}

    def reply(_token: object, name: bytes, entry: pyfuse3.EntryAttributes, _cookie: int) -> bool:
        found[name] = entry.entry_timeout
        return True

    fh = await w.ops.opendir(TOP, ctx())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyfuse3, "readdir_reply", reply)
        await w.ops.readdir(fh, 0, None)  # type: ignore[arg-type]
    await w.ops.releasedir(fh)
    return {name: timeout for name, timeout in found.items() if not name.startswith(b".")}


async def test_an_acknowledgement_that_had_to_wait_too_long_is_a_sign_of_it() -> None:
    async with leased() as (w, recalls):
        await w.write(b"a", b"hello")
        hold = trio.Event()

        def wait(_parent: int, _name: bytes, _deleted: int = 0) -> None:
            trio.from_thread.run(hold.wait)

        w.kernel.invalidate_entry = wait  # type: ignore[method-assign,assignment]
        await recall(recalls, b"a")
        assert w.services.mounted.nodes.root.contention is not None
        hold.set()


async def test_one_directory_does_not_wait_for_another() -> None:
    async with leased() as (w, _):
        await w.write(b"a", b"hello")
        made = await w.ops.mkdir(TOP, b"d", 0o755, ctx())
        await w.write(b"x", b"1", parent=made.st_ino)
        hold = trio.Event()

        def wait(parent: int, _name: bytes, _deleted: int = 0) -> None:
            if parent == made.st_ino:
                trio.from_thread.run(hold.wait)

        w.kernel.invalidate_entry = wait  # type: ignore[method-assign,assignment]
        inside = w.services.mounted.nodes.table[made.st_ino]
        w.services.mounted.drop_names(inside, [(b"x", None)])
        dropped = w.services.mounted.drop_names(w.services.mounted.nodes.root, [(b"a", None)])
        assert dropped is not None
        await dropped.wait()
        assert w.services.mounted.notify.is_dropping(made.st_ino, b"x")
        hold.set()


async def test_what_is_renamed_while_the_kernel_may_believe_something_else() -> None:
    """It exchanges what it believes, whatever our memory says by now."""
    async with leased() as (w, _):
        for name in (b"a", b"b"):
            await w.write(name, name)
        root, hold = w.services.mounted.nodes.root, trio.Event()

        def wait(parent: int, name: bytes, _deleted: int = 0) -> None:
            trio.from_thread.run(hold.wait)
            w.kernel.names.append((parent, name))

        w.kernel.invalidate_entry = wait  # type: ignore[method-assign,assignment]
        w.services.mounted.drop_names(root, [(b"b", None)])
        await w.ops.rename(TOP, b"a", TOP, b"b", EXCHANGE, ctx())
        hold.set()
        while w.services.mounted.notify.is_dropping(TOP, b"a"):
            await trio.lowlevel.checkpoint()
        assert (TOP, b"a") in w.kernel.names


async def test_a_late_answer_does_not_hide_what_the_kernel_was_told() -> None:
    async with leased() as (w, recalls):
        slow = Slow(w, "find_name")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(missing, w, b"a")
            await slow.done.wait()
            await recall(recalls, b"a")
            await w.meta.create(ROOT_REF, b"a", 0o100644)
            assert b"a" in await listed_timeouts(w)
            slow.go()
        await recall(recalls, b"a")
        assert (TOP, b"a") in w.kernel.names


async def missing(w: World, name: bytes) -> None:
    with pytest.raises(pyfuse3.FUSEError):
        await w.ops.lookup(TOP, name, ctx())


# ---- changes of our own that are under way


async def test_attributes_that_are_being_changed_are_asked_for() -> None:
    async with leased() as (w, _):
        ino = await w.write(b"a", b"hello")
        slow = Slow(w, "setattr")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chmod, w, ino)
            await slow.done.wait()
            assert ino in w.kernel.attrs, "nor may the kernel tell them"
            w.meta.calls.clear()
            entry = await w.ops.getattr(ino, ctx())
            assert w.meta.calls == {"getattr": 1}
            assert (entry.st_mode & 0o777, entry.attr_timeout) == (0o600, 0)
            slow.go()
        w.meta.calls.clear()
        assert (await w.ops.getattr(ino, ctx())).attr_timeout > 0
        assert not w.meta.calls


async def chmod(w: World, ino: int) -> None:
    entry = await w.ops.setattr(ino, wanted(st_mode=0o100600), fields("mode"), None, ctx())
    assert entry.st_mode & 0o777 == 0o600


async def test_an_append_that_is_under_way() -> None:
    """Who reads elsewhere may have seen it already."""
    async with leased() as (w, _):
        ino = await w.write(b"a", b"hello")
        info = await w.ops.open(ino, os.O_WRONLY | os.O_APPEND, ctx())
        w.kernel.attrs.clear()
        w.meta.fail["getattr"] = FsError(Code.IO)  # with which an append begins here
        with pytest.raises(pyfuse3.FUSEError):
            await w.ops.write(info.fh, 5, b"more")
        assert ino in w.kernel.attrs
        await w.ops.release(info.fh)


async def test_a_name_that_is_being_removed() -> None:
    async with leased() as (w, _):
        await w.write(b"a", b"hello")
        slow = Slow(w, "unlink")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.ops.unlink, TOP, b"a", ctx())
            await slow.done.wait()
            w.meta.calls.clear()
            await missing(w, b"a")
            assert w.meta.calls["lookup"] == 1
            slow.go()


@pytest.mark.parametrize("listing", [False, True])
async def test_what_was_asked_about_a_name_that_is_being_removed_is_not_kept(listing: bool) -> None:
    async with leased() as (w, _):
        await w.write(b"a", b"hello")
        unlink, begun = w.meta.unlink, trio.Event()
        go: Pending[None] = Pending()

        async def late(*args: object, **options: object) -> object:
            begun.set()
            await go
            return await unlink(*args, **options)

        w.meta.unlink = late  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.ops.unlink, TOP, b"a", ctx())
            await begun.wait()
            if listing:
                timeouts = await listed_timeouts(w)
                assert timeouts[b"a"] == 0
            entry = await w.ops.lookup(TOP, b"a", ctx())
            assert (entry.entry_timeout, entry.attr_timeout) == (0, 0)
            w.meta.calls.clear()
            await w.ops.lookup(TOP, b"a", ctx())
            assert w.meta.calls["lookup"] == 1
            go.complete(None)
        await missing(w, b"a")


async def test_the_other_name_of_what_is_being_removed() -> None:
    """Whoever removes may be killed, and the kernel not know what became of it."""
    async with leased() as (w, _):
        ino = await w.write(b"a", b"hello")
        await w.ops.link(ino, TOP, b"b", ctx())
        w.kernel.attrs.clear()
        slow = Slow(w, "unlink")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.ops.unlink, TOP, b"a", ctx())
            await slow.done.wait()
            assert ino in w.kernel.attrs
            for entry in (await w.ops.getattr(ino, ctx()), await w.ops.lookup(TOP, b"b", ctx())):
                assert entry.attr_timeout == 0
            slow.go()
        assert (await w.ops.getattr(ino, ctx())).st_nlink == 1


@pytest.mark.parametrize("verb", ["unlink", "rename"])
async def test_a_change_of_another_inode_than_was_believed(verb: str) -> None:
    """Somebody else has moved another file to the name, a moment before; the kernel knows that
    file by a second name."""
    async with leased() as (w, _):
        old, new = await w.write(b"a", b"old"), await w.write(b"b", b"new")
        await w.ops.link(new, TOP, b"c", ctx())
        await w.meta.rename(ROOT_REF, b"b", ROOT_REF, b"a", flags=0, keep=False)
        w.kernel.attrs.clear()
        if verb == "unlink":
            await w.ops.unlink(TOP, b"a", ctx())
        else:
            await w.ops.rename(TOP, b"a", TOP, b"d", 0, ctx())
        assert {old, new} <= set(w.kernel.attrs)
