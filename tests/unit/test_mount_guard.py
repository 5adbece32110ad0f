"""The guard's process, with a socket pair for /dev/fuse."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.memmount import TOP, ctx, leased
from harness.waiting import wait_until
from superfs.client.leases import lease_clock
from superfs.core.attrs import Attr
from superfs.mount import guard as guard_module
from superfs.mount.encode import Validity
from superfs.mount.files import OpenFile
from superfs.mount.guard import FIRST, FORGET_NAMES, GUARDED_S, SLOTS, Guard, Unguarded
from superfs.mount.leases import Lease
from superfs.mount.nodes import Node
from superfs.mount.watched import NEW_PER_SWEEP, WATCHED_MAX, Watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE, DIRECTORY = 0o100644, 0o040755


@pytest.fixture
def guarded() -> Iterator[tuple[Guard, socket.socket]]:
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kernel.settimeout(10)
    guard = Guard(device.fileno())
    with kernel, device:
        assert guard.start()
        assert kernel.recv(100) == FORGET_NAMES  # whether it can be told
        try:
            yield guard, kernel
        finally:
            guard.close()


def dropped(number: int) -> bytes:
    return struct.pack("=IiQQqq", 40, 2, 0, number, -1, 0)


def test_names_and_open_files_are_forgotten_when_nobody_renews(
    guarded: tuple[Guard, socket.socket],
) -> None:
    guard, kernel = guarded
    slots = [guard.opened(number) for number in (5, 6, 2**63 + 7)]
    guard.closed(slots[1])
    until = lease_clock() + 0.2
    guard.good_until(until)
    assert kernel.recv(100) == FORGET_NAMES
    assert lease_clock() >= until
    assert {kernel.recv(100), kernel.recv(100)} == {dropped(5), dropped(2**63 + 7)}
    wait_until(lambda: guard.acted == 1, "it says so")


def test_once_for_each_end(guarded: tuple[Guard, socket.socket]) -> None:
    guard, kernel = guarded
    for times in (1, 2):
        guard.good_until(lease_clock() - 1)
        assert kernel.recv(100) == FORGET_NAMES
        wait_until(lambda n=times: guard.acted == n, "it acted once")  # type: ignore[misc]
    guard.good_until(0)
    guard.good_until(lease_clock() + 1000)
    kernel.setblocking(False)
    with pytest.raises(BlockingIOError):
        kernel.recv(100)


def test_one_that_was_killed_is_replaced(guarded: tuple[Guard, socket.socket]) -> None:
    guard, kernel = guarded
    first = guard.pid
    os.kill(first, signal.SIGTERM)  # meant for the mount and its processes together
    os.kill(first, signal.SIGKILL)

    def replaced() -> bool:
        guard.good_until(lease_clock() + 1000)
        return guard.pid != first

    wait_until(replaced, "there is another one")
    guard.good_until(lease_clock() - 1)
    assert kernel.recv(100) == FORGET_NAMES


@pytest.mark.allow_log("cannot be started")
def test_one_that_cannot_be_replaced(
    guarded: tuple[Guard, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel was told for long is taken back, and the mount goes on."""
    guard, kernel = guarded
    guard.opened(5)
    first = guard.pid
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere")
        os.kill(first, signal.SIGKILL)

        def given_up() -> bool:
            guard.good_until(lease_clock() + 1000)
            return not guard.is_on

        wait_until(given_up, "nothing is told for long")
        assert (kernel.recv(100), kernel.recv(100)) == (FORGET_NAMES, dropped(5))
        guard.good_until(lease_clock() + 1000)
    guard.good_until(lease_clock() + 1000)
    assert guard.is_on
    assert guard.pid != first


@pytest.mark.allow_log("cannot be started")
def test_one_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    device = os.open(os.devnull, os.O_RDWR)
    monkeypatch.setattr(sys, "executable", "/nowhere")
    guard = Guard(device)
    guard.good_until(lease_clock() + 1000)
    guard.start()
    assert not guard.is_on
    guard.close()
    os.close(device)


def test_a_kernel_that_cannot_be_told() -> None:
    read_only = os.open(os.devnull, os.O_RDONLY)
    guard = Guard(read_only)
    assert not guard.start()
    assert not guard.is_on
    guard.close()
    os.close(read_only)


def test_more_open_files_than_slots() -> None:
    device = os.open(os.devnull, os.O_RDWR)
    guard = Guard(device)
    slots = [guard.opened(n + 1) for n in range(SLOTS)]
    assert sorted(slots)[0] > 0
    assert len(set(slots)) == SLOTS
    assert guard.opened(1) == -1
    guard.closed(-1)
    guard.closed(slots[7])
    assert guard.opened(9) == slots[7]
    guard.close()
    os.close(device)


class On(Unguarded):
    """With as many slots as it is given."""

    is_on = True

    def __init__(self, slots: int = SLOTS) -> None:
        self.free = list(range(slots))
        self.numbers: dict[int, int] = {}

    def opened(self, number: int) -> int:
        slot = self.free.pop() if self.free else -1
        if slot >= 0:
            self.numbers[slot] = number
        return slot

    def closed(self, slot: int) -> None:
        if slot >= 0:
            del self.numbers[slot]
            self.free.append(slot)


def validity(guard: Unguarded) -> Validity:
    return Validity(guard, Watched(guard, lambda _: True))


@pytest.mark.parametrize("mode", [FILE, DIRECTORY])
def test_how_long_the_kernel_believes(mode: int) -> None:
    node = Node(7, 7, 1, 7, attr=Attr(7, 1, 7, mode, 1, 0, 0))
    node.lease = node.named = Lease(7, until=120.0)
    bounded, guarded = validity(Unguarded()), validity(On())
    assert 0 < bounded.attr_s(node, 100.0) < 20
    assert 0 < bounded.entry_s(node, 100.0) < 20
    assert guarded.entry_s(node, 100.0) == GUARDED_S
    assert guarded.attr_s(node, 100.0) == GUARDED_S
    for either in (bounded, guarded):
        assert either.attr_s(node, 120.0) == either.entry_s(node, 120.0) == 0
    if mode == FILE:
        node.file = OpenFile(node)  # that the guard does not know of
        assert guarded.attr_s(node, 100.0) < 20
        node.file = None
    node.lease = node.named = Lease(until=120.0)  # for a time, under no lease
    assert guarded.attr_s(node, 100.0) < 20
    assert guarded.entry_s(node, 100.0) < 20


def test_the_guard_knows_directories_until_the_kernel_forgets_them() -> None:
    guard = On()
    alive = {1, 2}
    watched = Watched(guard, alive.__contains__)
    assert watched.watch(1)
    assert watched.watch(2)
    assert watched.watch(1)
    assert sorted(guard.numbers.values()) == sorted(watched) == [1, 2]
    watched.forget(1)
    watched.forget(99)
    assert list(guard.numbers.values()) == [2]
    for number in range(100, 100 + NEW_PER_SWEEP):  # answers that did not find room
        alive.discard(number - 1)
        alive.add(number)
        assert watched.watch(number)
    assert len(guard.numbers) < 10


def test_directories_that_the_guard_has_no_place_for() -> None:
    node = Node(7, 7, 1, 7, attr=Attr(7, 1, 7, DIRECTORY, 1, 0, 0))
    node.lease = node.named = Lease(7, until=120.0)
    assert validity(On(slots=0)).attr_s(node, 100.0) < 20
    guard = On()
    watched = Watched(guard, lambda _: True)
    assert all(watched.watch(number) for number in range(WATCHED_MAX))
    assert not watched.watch(WATCHED_MAX)
    assert guard.free, "for open files"


async def test_no_answer_about_a_directory_outlives_a_change_in_it() -> None:
    """One that is older and comes later: the kernel counts what it is told to drop."""
    async with leased() as (w, _):
        mounted = w.services.mounted
        mounted.watched = Watched(On(), mounted.nodes.is_alive)
        assert mounted.watched.watch(TOP)
        w.kernel.attrs.clear()
        await w.ops.mkdir(TOP, b"d", 0o755, ctx())
        assert TOP in w.kernel.attrs


HALF_DEAD = """
import ctypes, os, subprocess, sys, threading

def rest() -> None:
    while "Z" not in open("/proc/self/stat").read().rpartition(")")[2]:
        pass
    command = [sys.executable, *sys.argv[1:5], str(os.getpid()), "", ""]
    guard = subprocess.Popen(command, close_fds=False)
    try:
        print(guard.wait(20), flush=True)
    finally:
        guard.kill()
    os._exit(0)

threading.Thread(target=rest).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_mount_that_was_killed_before_its_guard_could_listen(tmp_path: Path) -> None:
    """A thread that cannot end keeps its pipe open, and it the parent."""
    memory = tmp_path / "memory"
    memory.write_bytes(bytes(8 * (FIRST + SLOTS)))
    with memory.open("r+b") as file:
        descriptors = [os.open(os.devnull, os.O_RDWR), file.fileno(), *os.pipe()]
        device, mapped, pipe, other_end = descriptors
        for fd in descriptors:
            os.set_inheritable(fd, True)
        words = [guard_module.__file__, str(device), str(mapped), str(pipe)]
        done = subprocess.run(
            [sys.executable, "-c", HALF_DEAD, *words],
            pass_fds=descriptors, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        for fd in (device, pipe, other_end):
            os.close(fd)
    assert done.stdout == "0\n", done.stderr
