"""Numbers of directories that a client makes by itself are those that the daemon comes to: also
where a directory of that number has another name by now, or is removed and still open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from superfs.client.delegation import overlay
from superfs.rpc.pending import run_sync
from unit.delegation_world import WHO
from unit.test_delegation_in_flight import ref
from unit.test_delegation_links import Two

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Ref


class Numbered(Two):
    def __init__(self) -> None:
        super().__init__()
        self.first = self.mkdir(b"d")
        self.sync()

    def mkdir(self, name: bytes) -> Ref:
        return ref(run_sync(self.meta.mkdir(self.mine, name, 0o755), timeout_s=5).attr)

    def rename(self, old: bytes, into: Ref, new: bytes) -> None:
        run_sync(self.meta.rename(self.mine, old, into, new), timeout_s=5)

    def rmdir(self, name: bytes) -> None:
        run_sync(self.meta.rmdir(self.mine, name), timeout_s=5)

    def again(self) -> None:
        """One more of the same name."""
        assert self.mkdir(b"d").ino != self.first.ino
        self.check()

    def check(self) -> None:
        self.sync()
        assert self.state.losses.files == 0
        assert self.server.store.findings() == []


@pytest.fixture
def world() -> Numbered:
    return Numbered()


@pytest.mark.parametrize("to", ["here", "there"])
def test_it_has_another_name_and_is_another_clients(world: Numbered, to: str) -> None:
    world.take(world.first)
    world.rename(b"d", world.mine if to == "here" else world.other, b"old")
    world.again()


def test_it_has_another_name_and_is_removed_before_the_log_comes(world: Numbered) -> None:
    world.rename(b"d", world.other, b"old")
    world.mkdir(b"d")
    world.take(world.first, world.other)
    world.server.store.do("rmdir", WHO, world.other, b"old")
    world.check()


def test_the_daemon_has_removed_it_and_somebody_has_it_open(world: Numbered) -> None:
    world.take(world.first)
    world.server.store.opened[world.first.ino] = {9}
    world.rmdir(b"d")
    world.again()


def test_it_is_removed_here_and_somebody_has_it_open(world: Numbered) -> None:
    world.take(world.first)
    world.server.store.opened[world.first.ino] = {9}
    world.server.grant(world.first.ino)
    for name in (b"1", b"2", b"3"):
        run_sync(world.meta.create(world.first, name, 0o100644), timeout_s=5)
        run_sync(world.meta.unlink(world.first, name), timeout_s=5)
    before = world.server.messages
    world.rmdir(b"d")
    assert world.server.messages == before, "it is done here"
    world.again()


def test_another_is_renamed_over_it_while_somebody_has_it_open(world: Numbered) -> None:
    world.mkdir(b"new")
    world.take(world.first)
    world.server.store.opened[world.first.ino] = {9}
    world.rename(b"new", world.mine, b"d")
    world.rmdir(b"d")
    world.again()


def test_of_too_many_none_is_predicted(world: Numbered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "TAKEN_MAX", 1)
    for name in (b"d", b"e"):
        directory = world.first if name == b"d" else world.mkdir(name)
        world.sync()
        world.take(directory)
        world.rename(name, world.other, name)
    before = world.server.messages
    world.mkdir(b"f")
    assert world.server.messages == before + 1
    world.again()
