"""Clients that keep what leases let them keep never answer anything older than what any client
has been told before.

Each client follows the rules of docs/decisions/0012 on a real daemon, and as badly as they allow:
what is pushed and answered lies in its inbox until it gets round to it, it goes silent, says hello
again, gives leases back. Commits are announced late. Changes take effect in the order in which
they are submitted, so that every name and every file has a history; what is answered has to be
one of the values from the last one that anybody was told of before.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from property.lease_clients import CLIENTS, NAME, Client, Key, Line, Shared, Value, check
from superfs.daemon.clock import ManualClock
from unit.meta_leases import Late
from unit.meta_node import ROOT, TestClient, make, running, world

if TYPE_CHECKING:
    from superfs.meta.node import MetaNode

KINDS = (
    ["ask"] * 16
    + ["handle"] * 6
    + ["pause"] * 6
    + ["quiet"] * 3
    + ["mode"] * 2
    + ["create", "unlink", "rename", "hello", "time", "late", "announce", "return"]
)
STEPS = 300


class Play:
    """One sequence of steps."""

    def __init__(self, node: MetaNode, clock: ManualClock, directory: Any) -> None:  # noqa: ANN401
        self.node, self.clock = node, clock
        self.shared = Shared()
        self.clients = [Client(node, 1 + n, self.shared, clock) for n in range(CLIENTS)]
        self.lines: list[Line] = []
        self.dirs = [int(ROOT["ino"]), int(directory.ino)]
        self.late: Late | None = None

    def key(self, number: int) -> Key:
        """Of a name, or of a file that somebody has heard of."""
        name: Key = ("name", self.dirs[number & 1], NAME)
        if number & 4:
            inos = [a.value for a in self.shared.answers if a.key == name and a.value]
            if inos:
                return ("mode", inos[-1] or 0, b"")
        return name

    async def step(self, what: str, client: Client, number: int) -> None:
        line = client.line
        assert line is not None
        entry = {"dir": {"ino": self.dirs[number & 1]}, "name": NAME}
        fresh = len(self.shared.changes) % 512
        if what == "ask":
            line.ask(self.key(number))
        elif what == "handle":
            for _ in range(min(len(line.inbox), 1 + number % 8)):
                line.inbox.popleft()()
        elif what == "mode" and self.key(number | 4)[0] == "mode":
            ino = self.key(number | 4)[1]
            inode = {"ino": ino, "place": self.shared.places.get(ino, 0)}
            line.change("setattr", {"inode": inode, "mask": 1, "mode": fresh})
        elif what == "create":
            line.change("create", {**entry, "mode": 0o100000 | fresh, "exclusive": True})
        elif what == "unlink":
            line.change("unlink", entry)
        elif what == "rename":
            new = {"ino": self.dirs[number >> 2 & 1]}
            body = {"old_dir": entry["dir"], "old_name": entry["name"], "new_dir": new}
            line.change("rename", {**body, "new_name": NAME})
        elif what == "return":
            line.give_back(self.dirs[number & 1])
        elif what == "hello" and number % 4 == 0:
            self.release()
            await client.hello()
            self.lines.append(client.line or line)
        elif what == "time":
            self.clock.advance(number % 16)
            for other in self.clients:
                if other.line is not None and number >> 4:
                    other.line.keep_alive()
            self.node.lessor.tick(self.clock.monotonic())
        elif what == "late" and self.late is None:
            self.late = Late(self.node)
        elif what == "announce":
            self.release()
        elif what == "pause":
            await asyncio.sleep(0.003)
        elif what == "quiet":
            await self.quiet()
        await asyncio.sleep(0)

    def release(self) -> None:
        if self.late is not None:
            self.late.release()
            self.late = None

    async def quiet(self) -> None:
        """Everybody catches up, so that there is something to repeat."""
        self.release()
        for _ in range(5):
            await asyncio.sleep(0.002)
            for client in self.clients:
                while client.line is not None and client.line.inbox:
                    client.line.inbox.popleft()()

    async def end(self) -> None:
        """Everybody does all that is left to do."""
        tasks = {task for line in self.lines for task in line.tasks}
        async with asyncio.timeout(20):
            while not all(task.done() for task in tasks):
                self.release()
                for client in self.clients:
                    if client.line is None or client.line.closed:
                        await client.hello()
                        continue
                    while client.line.inbox:
                        client.line.inbox.popleft()()
                await asyncio.sleep(0.001)
        for task in tasks:
            task.result()


async def play(made: Any, steps: list[tuple[str, int, int]]) -> int:  # noqa: ANN401
    clock = ManualClock()
    async with running(made, given=world(clock)) as node:
        maker = TestClient(node, 99)
        directory = (await maker.good(mkdir={"dir": ROOT, "name": b"d", "mode": 0o755})).attr
        played = Play(node, clock, directory)
        start: dict[Key, Value] = {}
        attr = (await maker.create(NAME, mode=0o100777)).attr
        start["name", attr.place, NAME] = attr.ino
        start["mode", attr.ino, b""] = attr.mode & 0o777
        for client in played.clients:
            await client.hello()
            assert client.line is not None
            played.lines.append(client.line)
        try:
            for what, who, number in steps:
                await played.step(what, played.clients[who], number)
        finally:
            await played.end()
        check(played.shared, start)
        return sum(client.uses for client in played.clients)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32))
def test_nobody_repeats_what_is_out_of_date(seed: int) -> None:
    rng = random.Random(seed)
    steps = [(rng.choice(KINDS), rng.randrange(CLIENTS), rng.randrange(32)) for _ in range(STEPS)]
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(None):
        asyncio.run(play(make(Path(directory)), steps))
