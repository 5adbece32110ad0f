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
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from superfs.core.errors import Code
from superfs.core.tokens import Grant
from superfs.daemon.clock import ManualClock
from superfs.v1 import meta_pb2
from unit.meta_leases import Late
from unit.meta_node import ROOT, TestClient, make, running, world

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.meta.node import MetaNode

CLIENTS = 2
LEASE_S = 20.0
OWN = 0  # no lease
Key = tuple[str, int, bytes]
"""("name", directory, name) has an inode or None for a value, ("mode", inode, b"") a mode."""
Value = int | None


@dataclass
class Change:
    """A mutation, in the order of submission."""

    verb: str
    body: dict[str, Any]
    reply: meta_pb2.BatchReply | None = None


@dataclass
class Answer:
    """Something that a client was told or told itself, and when: `since` is the last change that
    anybody had been told of before, `until` the last one that was submitted."""

    key: Key
    value: Value
    since_commit: int
    since_change: int
    until: int
    cached: bool


Floor = dict[int, tuple[int, int]]
"""By lease: the last commit and the last change that were told of."""


@dataclass
class Shared:
    """What an outside observer writes down."""

    changes: list[Change] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    floors: list[Floor] = field(default_factory=lambda: [{} for _ in range(CLIENTS)])
    """Who asks now must not be told anything older. An answer counts for the others when it is
    sent, for its own client when that gets round to it: until then both are under way."""

    def told(self, clients: set[int], leases: set[int], commit: int, change: int) -> None:
        for floor in (self.floors[client] for client in clients):
            for lease in leases:
                before = floor.get(lease, (0, -1))
                floor[lease] = (max(before[0], commit), max(before[1], change))


class Client:
    """The rules of the client, and an inbox."""

    def __init__(self, node: MetaNode, session: int, shared: Shared, clock: ManualClock) -> None:
        self.node, self.shared, self.clock = node, shared, clock
        self.grant = Grant("host", "test", session_id=session)
        self.number = session - 1
        self.seq = 0
        self.uses = 0
        self.line: Line | None = None

    async def hello(self) -> None:
        self.line = None
        line = Line(self)
        hello = meta_pb2.Hello(protocol=1, leases=True)
        sent = self.clock.monotonic()
        await self.node.hello(self.grant, hello, line)
        line.renewed = sent
        self.line = line


class Line:
    """One stream of a client, with all that it keeps under it."""

    def __init__(self, client: Client) -> None:
        self.client, self.node = client, client.node
        self.closed = False
        self.changing = 0
        self.renewed = 0.0
        self.inbox: deque[Callable[[], None]] = deque()
        self.kept: dict[Key, tuple[int, Value]] = {}  # key -> lease, value
        self.epochs: dict[int, int] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    # ---- what comes

    def push(self, invalidate: meta_pb2.Invalidate) -> None:
        def handle() -> None:
            for recall in invalidate.recalls:
                names = _names(recall.names)
                self._forget(recall.lease, None if recall.whole else {*names, *recall.inos})
            session = self.client.grant.session_id
            self.node.lessor.acknowledged(session, self, invalidate.number)

        self.inbox.append(handle)

    def close(self, reason: str) -> None:
        self.closed = True

    def _forget(self, lease: int, things: set[int | bytes] | None) -> None:
        self.epochs[lease] = self.epochs.get(lease, 0) + 1
        for key, (under, _) in list(self.kept.items()):
            thing = key[2] if key[0] == "name" else key[1]
            if under == lease and (things is None or thing in things):
                del self.kept[key]

    def _change(self, open_by: int) -> None:
        """Of what this client does itself it is not told: from asking to the answer it may repeat
        nothing, for others may have seen it already."""
        self.changing += open_by
        self.epochs[OWN] = self.epochs.get(OWN, 0) + 1
        self.kept.clear()

    # ---- what goes

    def keep_alive(self) -> None:
        if not self.closed:
            self.renewed = self.client.clock.monotonic()
            self.node.keep_alive(self.client.grant, self)

    def give_back(self, lease: int) -> None:
        self._forget(lease, None)
        self.node.lessor.returned(self.client.grant.session_id, self, [lease])

    def ask(self, key: Key) -> None:
        """From memory if that may be, else of the daemon."""
        shared = self.client.shared
        good = self.client.clock.monotonic() < self.renewed + LEASE_S
        if good and key in self.kept:
            lease, value = self.kept[key]
            self.client.uses += 1
            commit, change = shared.floors[self.client.number].get(lease, (0, -1))
            until = len(shared.changes)
            shared.answers.append(Answer(key, value, commit, change, until, cached=True))
            return
        if key[0] == "name":
            look = meta_pb2.Lookup(dir={"ino": key[1]}, name=key[2])
            self._send(meta_pb2.Op(lookup=look), key, -1)
        else:
            inode = {"ino": key[1], "place": shared.places.get(key[1], 0)}
            self._send(meta_pb2.Op(getattr={"inode": inode}), key, -1)

    def change(self, verb: str, body: dict[str, Any]) -> None:
        self.client.seq += 1
        shared = self.client.shared
        shared.changes.append(Change(verb, body))
        self._change(+1)
        op = meta_pb2.Op(seq=self.client.seq, **{verb: body})
        self._send(op, None, len(shared.changes) - 1)

    def _send(self, op: meta_pb2.Op, key: Key | None, change: int) -> None:
        if self.closed:
            if change >= 0:
                self.client.shared.changes.pop()
                self.client.seq -= 1
            return
        before = dict(self.epochs)
        mine = self.client.number
        since = dict(self.client.shared.floors[mine])
        answer = self.node.submit(self.client.grant, meta_pb2.Batch(ops=[op]), self)

        async def wait() -> None:
            reply = await answer
            shared = self.client.shared
            shared.places[reply.results[0].attr.ino] = reply.results[0].attr.place
            if change >= 0:
                shared.changes[change].reply = reply
            found = _told(op, key, reply.results[0])
            for told, (value, leases) in found.items():
                if change < 0:
                    floor = since.get(min(leases), (0, -1))
                    until = len(shared.changes)
                    shared.answers.append(Answer(told, value, *floor, until, cached=False))
            touched = {lease for _, leases in found.values() for lease in leases}
            touched |= _directories(op)
            # A change is one moment in time, its commit may be several.
            moment = (reply.commit if change < 0 else 0, change)
            shared.told(set(range(CLIENTS)) - {mine}, touched, *moment)

            def handle() -> None:
                shared.told({mine}, touched, *moment)
                self._handle(found, reply, before, change)

            self.inbox.append(handle)

        task = asyncio.ensure_future(wait())
        self.tasks.add(task)

    def _handle(
        self,
        found: dict[Key, tuple[Value, set[int]]],
        reply: meta_pb2.BatchReply,
        before: dict[int, int],
        change: int,
    ) -> None:
        now = dict(self.epochs)
        if change >= 0:
            self._change(-1)
        for key, (value, leases) in found.items():
            lease = min(leases)
            unchanged = all(before.get(n, 0) == now.get(n, 0) for n in (lease, OWN))
            if unchanged and not self.changing and lease in reply.leases:
                self.kept[key] = (lease, value)


def _names(column: bytes) -> list[bytes]:
    names = []
    while column:
        length = int.from_bytes(column[:2], "little")
        names.append(column[2 : 2 + length])
        column = column[2 + length :]
    return names


def _directories(op: meta_pb2.Op) -> set[int]:
    verb = op.WhichOneof("verb") or ""
    body = getattr(op, verb)
    if verb == "rename":
        return {body.old_dir.ino, body.new_dir.ino}
    return {body.dir.ino} if verb in ("lookup", "create", "unlink") else set()


def _told(
    op: meta_pb2.Op, key: Key | None, result: meta_pb2.Result
) -> dict[Key, tuple[Value, set[int]]]:
    """Keys, their values, and the lease of each."""
    found: dict[Key, tuple[Value, set[int]]] = {}
    verb = op.WhichOneof("verb")
    if verb == "lookup" and key is not None:
        if result.code == Code.NOT_FOUND:
            found[key] = (None, {key[1]})
        elif not result.code:
            found[key] = (result.attr.ino, {key[1]})
    if verb == "create" and not result.code:
        found["name", op.create.dir.ino, op.create.name] = (result.attr.ino, {op.create.dir.ino})
    attr = result.attr
    if not result.code and attr.nlink and verb in ("lookup", "getattr", "create", "setattr"):
        found["mode", attr.ino, b""] = (attr.mode & 0o777, {attr.place})
    return found


def check(shared: Shared, start: dict[Key, Value]) -> None:
    """Every answer is a value from its range of time."""
    states = [dict(start)]
    commits = [0]
    for change in shared.changes:
        assert change.reply is not None
        state, result, body = dict(states[-1]), change.reply.results[0], change.body
        commits.append(change.reply.commit)
        if not result.code:
            _apply(state, change.verb, body, result)
        states.append(state)
    for answer in shared.answers:
        # States are numbered by how many changes they contain.
        first = answer.since_change + 1
        for number, commit in enumerate(commits):
            if 0 < commit <= answer.since_commit:
                first = max(first, number)
        possible = {state.get(answer.key) for state in states[first : answer.until + 1]}
        assert answer.value in possible, (answer, possible)


def _apply(state: dict[Key, Value], verb: str, body: dict[str, Any], result: Any) -> None:  # noqa: ANN401
    if verb == "create":
        state["name", body["dir"]["ino"], body["name"]] = result.attr.ino
        state["mode", result.attr.ino, b""] = result.attr.mode & 0o777
    elif verb == "unlink":
        state["name", body["dir"]["ino"], body["name"]] = None
    elif verb == "setattr":
        state["mode", body["inode"]["ino"], b""] = body["mode"]
    elif verb == "rename":
        old = ("name", body["old_dir"]["ino"], body["old_name"])
        new = ("name", body["new_dir"]["ino"], body["new_name"])
        if old != new:
            state[new] = state[old]
            state[old] = None


NAME = b"a"
STEP = st.tuples(
    st.sampled_from(
        ["ask"] * 12
        + ["handle"] * 6
        + ["pause"] * 6
        + ["mode"] * 3
        + ["create", "unlink", "rename", "hello", "time", "late", "announce", "return"]
    ),
    st.integers(0, CLIENTS - 1),
    st.integers(0, 31),
)


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
        await asyncio.sleep(0)

    def release(self) -> None:
        if self.late is not None:
            self.late.release()
            self.late = None

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


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, min_size=100, max_size=300))
def test_nobody_repeats_what_is_out_of_date(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(None):
        state = Path(directory)
        asyncio.run(play(make(state), steps))
