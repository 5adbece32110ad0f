"""When the leases of a mount end: with the connection, or by themselves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import trio

from harness.memmount import TOP, leased

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
