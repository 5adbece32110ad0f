"""A client that repeats what leases let it repeat, and an observer who writes it down.

See test_meta_leases.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from superfs.core.errors import Code
from superfs.core.tokens import Grant
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.daemon.clock import ManualClock
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


def _apply(
    state: dict[Key, Value],
    verb: str,
    body: dict[str, Any],
    result: Any,  # noqa: ANN401
) -> None:
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
