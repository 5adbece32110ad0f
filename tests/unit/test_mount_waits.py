"""Who is to end does not wait for a daemon; what comes of his request is put right."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from harness.front import OUT, Front, front
from harness.memmount import TOP, ctx
from superfs.mount.desk import waits
from superfs.mount.desk.protocol import ENTRY_BYTES, Op
from superfs.mount.desk.waits import fate_of

if TYPE_CHECKING:
    from collections.abc import Callable

MKNOD = 8
DYING, ASKED, FINE = (True, False), (False, True), (False, False)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "PATIENCE_S", 0.01)
    monkeypatch.setattr(waits, "LOOK_S", 0.002)


async def interrupted(f: Front, op: int, body: bytes, fate: tuple[bool, bool]) -> int:
    """A request that went on to pyfuse3, for whose process a signal has come."""
    f.desk._waits._fate = lambda _: fate
    unique = await f.send(op, TOP, body)
    assert await f.handed_on() == (op, unique)
    await f.send(Op.INTERRUPT, 0, struct.pack("=Q", unique))
    return unique


async def quiet(f: Front) -> bool:
    """Whether the kernel is told nothing, in many times the patience."""
    with trio.move_on_after(0.1):
        await trio.lowlevel.wait_readable(f.kernel)
        return False
    return True


async def settled(done: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not done():
            await trio.testing.wait_all_tasks_blocked(0.001)


@pytest.mark.parametrize("op", [Op.LOOKUP, MKNOD])
async def test_who_is_killed_has_an_answer(op: int) -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"hello")
        counted = f.world.table[number].nlookup
        unique = await interrupted(f, op, b"name\0", DYING)
        assert await f.answer(unique) == (errno.EINTR, b"")
        # The look-up is answered later, and was counted; the kernel does not know.
        f.world.table[number].nlookup += 1
        entry = struct.pack("=Q", number).ljust(ENTRY_BYTES, b"\0")
        f.behind.send(OUT.pack(OUT.size + len(entry), 0, unique) + entry)
        await settled(lambda: not len(f.desk._waits))
        assert f.world.table[number].nlookup == counted
        assert await quiet(f)


@pytest.mark.parametrize(("op", "fate"), [(Op.LOOKUP, FINE), (MKNOD, FINE), (MKNOD, ASKED)])
async def test_others_wait(op: int, fate: tuple[bool, bool]) -> None:
    """A program that catches a signal does not expect mkdir(2) to fail because of it."""
    async with front() as f:
        unique = await interrupted(f, op, b"name\0", fate)
        assert await quiet(f)
        f.behind.send(OUT.pack(16, -errno.EEXIST, unique))
        assert await f.answer(unique) == (errno.EEXIST, b"")
        assert not len(f.desk._waits)


async def test_a_second_signal_may_kill() -> None:
    async with front() as f:
        unique = await interrupted(f, MKNOD, b"name\0", ASKED)
        assert await quiet(f)
        f.desk._waits._fate = lambda _: DYING
        assert await f.answer(unique) == (errno.EINTR, b"")


async def test_who_is_asked_to_end_and_only_wants_to_know_something() -> None:
    async with front() as f:
        unique = await interrupted(f, Op.LOOKUP, b"name\0", ASKED)
        assert await f.answer(unique) == (errno.EINTR, b"")


async def test_what_was_opened_for_nobody_is_closed() -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"hello")
        opened = await f.world.ops.open(number, os.O_RDONLY, ctx())
        unique = await interrupted(f, Op.OPEN, struct.pack("=II", os.O_TRUNC, 0), DYING)
        assert await f.answer(unique) == (errno.EINTR, b"")
        f.behind.send(OUT.pack(32, 0, unique) + struct.pack("=QII", opened.fh, 0, 0))
        await settled(lambda: f.world.table[number].file is None)
        assert not f.world.services.handles.table


async def test_a_write_that_waits() -> None:
    """It is a task of the desk, whose answer nobody takes."""
    async with front() as f:
        await f.ask(Op.GETATTR, TOP, bytes(16))
        gate = trio.Event()

        async def answer() -> tuple[bytes, ...]:
            await gate.wait()
            return (OUT.pack(16, 0, 7),)

        f.desk._waits._fate = lambda _: DYING
        header = struct.pack("=IIQQIIIHH", 40, Op.WRITE, 7, 1, 0, 0, os.getpid(), 0, 0)
        f.desk._start(7, answer(), header)
        await f.send(Op.INTERRUPT, 0, struct.pack("=Q", 7))
        assert await f.answer(7) == (errno.EINTR, b"")
        gate.set()
        await settled(lambda: not len(f.desk._waits))
        assert await quiet(f)


def test_the_fate_of_a_process() -> None:
    """Signals that it has blocked or ignores are not for it to end."""
    assert fate_of(os.getpid()) == FINE
    assert fate_of(0) == FINE
    program = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # who is started in the background ignores it
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            os.kill(child.pid, signal.SIGSTOP)  # what comes now stays pending
            for number in (signal.SIGTERM, signal.SIGHUP):
                os.kill(child.pid, number)
            assert fate_of(child.pid) == FINE
            os.kill(child.pid, signal.SIGINT)
            assert fate_of(child.pid) == ASKED
        finally:
            child.kill()
