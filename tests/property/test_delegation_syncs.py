"""Syncs that share parts of the log, with whatever happens meanwhile: each ends, and who is told
that all is well finds at the daemon everything that was there when he asked."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from superfs.client.delegation import journal
from superfs.core.errors import Code, FsError
from superfs.rpc.pending import run_sync
from unit.test_delegation_ends import Scene

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from superfs.rpc.pending import Pending

STEPS = 80
VERBS = ["create", "create", "unlink", "sync", "sync", "answer", "answer", "timer", "kill"]
ENDS = ["drained", "refused", "no space", "recalled", "expired", "closed"]


@dataclass
class Sync:
    coro: Coroutine[Any, Any, None]
    names: frozenset[bytes]
    """That were there when it began."""
    waits_for: Pending[Any] | None = None


@dataclass
class World:
    scene: Scene = field(default_factory=Scene)
    names: set[bytes] = field(default_factory=set)
    syncs: list[Sync] = field(default_factory=list)
    made: int = 0
    synced: int = 0
    failures: list[Code] = field(default_factory=list)

    def __post_init__(self) -> None:
        scene = self.scene
        scene.client.retry_timeout_s = 30.0
        run_sync(scene.meta.sync(), timeout_s=5)
        scene.server.held, scene.server.held_verbs = [], frozenset(["log"])

    def create(self) -> None:
        self.made += 1
        name = b"%d" % self.made
        self.scene.create(name)
        self.names.add(name)

    def unlink(self, name: bytes) -> None:
        run_sync(self.scene.meta.unlink(self.scene.mine, name), timeout_s=5)
        self.names.discard(name)

    def begin(self) -> None:
        self.syncs.append(Sync(self.scene.meta.sync(), frozenset(self.names)))
        self.go_on()

    def answer(self) -> None:
        """One log; there is never more than one under way."""
        held = self.scene.server.held
        assert held is not None
        assert len(held) <= 1
        if held:
            self.scene.server.answer(held.pop())
            self.go_on()

    def ring(self) -> None:
        timers, self.scene.client.background.timers = self.scene.client.background.timers, []
        for timer in timers:
            timer()
        self.go_on()

    def go_on(self) -> None:
        """Whoever can, as often as he can."""
        for sync in self.syncs.copy():
            while sync.waits_for is None or sync.waits_for.done:
                try:
                    sync.waits_for = sync.coro.send(None)
                except StopIteration:
                    self.syncs.remove(sync)
                    self.synced += 1
                    still = sync.names & self.names
                    assert still <= set(self.scene.names()), "not at the daemon"
                    break
                except FsError as error:
                    self.syncs.remove(sync)
                    self.failures.append(error.code)
                    break

    def drain(self) -> None:
        while self.scene.server.held:
            self.answer()

    def end(self, how: str) -> None:
        scene = self.scene
        waiting = len(self.syncs)
        if how in ("refused", "no space"):
            scene.server.refuses = Code.LOG_REFUSED if how == "refused" else Code.NO_SPACE
        elif how == "recalled":
            confirmed = scene.recall(whole=True)
            self.drain()
            assert confirmed
        elif how == "expired":
            scene.client.shipping.broken()
            scene.client.hello(session=2)
            assert self.scene.state.is_synced
        elif how == "closed":
            scene.client.is_closed = True
            scene.client.shipping.closed()
        self.go_on()
        self.drain()
        assert not self.syncs, "somebody waits for ever"
        if how in ("drained", "recalled"):
            assert not self.failures
            self.begin()
            self.drain()
            assert not self.syncs
            assert self.names == set(scene.names())
        elif how in ("expired", "closed"):
            assert len(self.failures) == waiting
        assert set(self.failures) <= {Code.IO}


@pytest.mark.allow_log("lost: ", "session", "UNAVAILABLE")
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("seed", range(12))
def test_each_sync_ends_and_is_true(seed: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(journal, "PART_ENTRIES", rng.choice([2, 5, 512]))
    world = World()
    for _ in range(rng.randrange(STEPS)):
        verb = rng.choice(VERBS)
        if verb == "create" and not world.scene.state.is_full:
            world.create()
        elif verb == "unlink" and world.names and not world.scene.state.is_full:
            world.unlink(rng.choice(sorted(world.names)))
        elif verb == "sync":
            world.begin()
        elif verb == "answer":
            world.answer()
        elif verb == "timer":
            world.ring()
        elif verb == "kill" and world.syncs:
            world.syncs.pop(rng.randrange(len(world.syncs))).coro.close()
    world.end(how)
