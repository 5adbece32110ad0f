"""When the leases of a mount end: with the connection, or by themselves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import trio

from harness.memmount import TOP, leased
from superfs.client.codec import pack_names
from superfs.core.ids import ROOT
from superfs.mount.guard import Unguarded
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    import pytest


async def test_the_hello_waits_until_the_loop_has_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("superfs.mount.recalls.LAPSE_WAIT_S", 0.0)
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        lapsed = threading.Thread(target=recalls.lapsed)
        lapsed.start()
        lapsed.join(0.2)  # the loop is at something else
        assert lapsed.is_alive()
        await trio.to_thread.run_sync(lapsed.join)
        assert ino in w.kernel.attrs


async def test_names_that_cannot_be_dropped_do_not_hold_up_the_hello(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A local process holds their directory, and waits for that hello."""
    monkeypatch.setattr("superfs.mount.recalls.LAPSE_WAIT_S", 0.01)
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        hold = trio.Event()

        def wait(_parent: int, _name: bytes, _deleted: int = 0) -> None:
            trio.from_thread.run(hold.wait)

        w.kernel.invalidate_entry = wait  # type: ignore[method-assign,assignment]
        root = w.services.mounted.nodes.root
        root.busy = 1
        await trio.to_thread.run_sync(recalls.lapsed)
        assert w.table[ino].doubts
        assert root.contention is not None
        hold.set()


async def test_with_the_lease_ends_what_the_kernel_was_told() -> None:
    """Also when it was told late: it counts from then."""
    async with leased() as (w, _):
        ino = await w.write(b"a", b"hello")
        w.now += 21
        while (TOP, b"a") not in w.kernel.names:
            await trio.lowlevel.checkpoint()
        assert ino in w.kernel.attrs
        assert not w.services.mounted.leases.until


class On(Unguarded):
    """`until`: what it was told."""

    is_on = True
    until = 0.0

    def good_until(self, until_s: float) -> None:
        self.until = until_s


async def test_where_the_kernel_can_be_told_to_forget_all_names_no_lock_is_waited_for() -> None:
    async with leased() as (w, recalls):
        w.services.mounted.guard = guard = On()
        recalls.extended(w.now + 20)
        ino = await w.write(b"a", b"hello")
        await trio.to_thread.run_sync(recalls.lapsed)
        assert ino in w.kernel.attrs
        assert (w.kernel.forgotten, w.kernel.names, guard.until) == (1, [], 0.0)
        assert not w.table[ino].doubts


async def test_nor_by_an_acknowledgement_that_has_waited_long_enough() -> None:
    async with leased() as (w, recalls):
        w.services.mounted.guard = On()
        await w.write(b"a", b"hello")
        hold, acknowledged = trio.Event(), trio.Event()

        def wait(_parent: int, _name: bytes, _deleted: int = 0) -> None:
            trio.from_thread.run(hold.wait)

        w.kernel.invalidate_entry = wait  # type: ignore[method-assign,assignment]
        told = meta_pb2.Recall(lease=ROOT, names=pack_names([b"a"]))
        recalls.recalled(meta_pb2.Invalidate(number=1, recalls=[told]), acknowledged.set)
        await acknowledged.wait()
        assert w.kernel.forgotten == 1
        hold.set()
