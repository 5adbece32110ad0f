"""One client's batch of operations in one transaction: each has its own fate.

A mutation is first looked up among the stored replies, and its reply is stored with what it did.
Success and every final refusal are stored: a retry must not find a different world. What only asks
to come back later (a retryable code) is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import lmdb

from superfs.core.attrs import PACKED_ATTR_BYTES, Flag
from superfs.core.errors import Code, FsError
from superfs.core.ids import SLOT_SHIFT, is_directory_id
from superfs.core.limits import (
    BATCH_OPS_MAX,
    KIB,
    MANY_ENTRIES_MAX,
    MESSAGE_BYTES_MAX,
    REMOVE_TREE_ENTRIES_MAX,
    TOUCH_INODES_MAX,
)
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.release_orphan import release_orphan
from superfs.meta import keys
from superfs.meta.columns import encode_outcome
from superfs.meta.commit import Spoiled
from superfs.meta.dispatch import VERBS, Verb, caller_of
from superfs.meta.keys import Table, Work
from superfs.meta.replay import made_by
from superfs.meta.told import hints, note
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.core.namespace.outcome import FsStat
    from superfs.core.namespace.txn import Caller
    from superfs.core.tokens import Grant
    from superfs.daemon.world import World
    from superfs.meta.granting import Granting
    from superfs.meta.metrics import MetaMetrics
    from superfs.meta.opens import Opens
    from superfs.meta.sessions import Client, Sessions
    from superfs.meta.store import LmdbTxn
    from superfs.meta.told import Telling

ANSWER_BYTES_MAX = MESSAGE_BYTES_MAX * 3 // 4
"""Where a batch is answered so far that no further read begins."""
LAST_ANSWER_BYTES_MAX = MESSAGE_BYTES_MAX - ANSWER_BYTES_MAX - 64 * KIB
"""What the last read may add to that; a first one may be as long as a message."""
CHANGES_NAMES = frozenset((
    "create", "mkdir", "unlink", "rmdir", "rename", "link", "create_many", "remove_tree", "log",
))  # fmt: skip
REMOVALS_MAX = 2 * REMOVE_TREE_ENTRIES_MAX
"""Of all remove_trees of one batch: everybody else waits for the writer meanwhile."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What operations need besides a transaction."""

    sessions: Sessions
    opens: Opens
    metrics: MetaMetrics
    world: World
    fs_stat: Callable[[LmdbTxn], FsStat]
    capability: Callable[[Grant, int], bytes]
    """A user session's right to one inode at the data daemons."""
    granting: Granting


def check_batch(batch: meta_pb2.Batch) -> None:
    if len(batch.ops) > BATCH_OPS_MAX:
        raise FsError(Code.TOO_LARGE, f"{len(batch.ops)} operations, at most {BATCH_OPS_MAX}")


def mutates(op: meta_pb2.Op) -> bool:
    verb = VERBS.get(op.WhichOneof("verb") or "")
    return verb is not None and verb.mutates


def what_it_does(batch: meta_pb2.Batch) -> tuple[bool, bool]:
    """Whether it needs the writer for what it changes, and whether it opens anything."""
    opens = False
    for op in batch.ops:
        verb = op.WhichOneof("verb")
        if verb == "release" or mutates(op):
            return True, opens
        opens = opens or verb == "open"
    return False, opens


def weight_of(op: meta_pb2.Op) -> int:
    """How many entries an operation may be about."""
    verb = op.WhichOneof("verb")
    if verb == "touch":
        return min(max(1, len(op.touch.inos) // 8), TOUCH_INODES_MAX)
    if verb == "log":
        made = sum(entry.files.count for entry in op.log.entries)
        return len(op.log.entries) + min(made, MESSAGE_BYTES_MAX // PACKED_ATTR_BYTES)
    if verb == "remove_tree":
        return min(op.remove_tree.limit or REMOVE_TREE_ENTRIES_MAX, REMOVE_TREE_ENTRIES_MAX)
    return min(max(1, op.create_many.count), MANY_ENTRIES_MAX)


def leases_of(batch: meta_pb2.Batch) -> set[int]:
    """What its operations are about, as far as they say."""
    told: set[int] = set()
    for op in batch.ops:
        verb = op.WhichOneof("verb")
        if verb:
            hints(told, verb, getattr(op, verb))
    return told


def failure(error: FsError) -> meta_pb2.Result:
    return meta_pb2.Result(code=error.code, detail=error.detail)


class Operations:
    """Runs the operations of one batch, in order, on a transaction."""

    def __init__(
        self,
        parts: Parts,
        grant: Grant,
        txn: LmdbTxn,
        fresh: set[int],
        telling: Telling | None,
        room: int | None = None,
    ) -> None:
        """`fresh`: what was registered as open for this batch and is not if its open fails.
        `telling`: where it notes of which leases it tells; None: nobody asks.
        `room`: what is left of ANSWER_BYTES_MAX, where a batch goes on."""
        self._parts = parts
        self._grant = grant
        self._txn = txn
        self._fresh = fresh
        self._telling = telling
        self.room = ANSWER_BYTES_MAX if room is None else room
        self._removals = REMOVALS_MAX
        self.waits: list[bytes] = []
        """Truncations that the last operation has to wait for, by the key of their debt."""

    def read(self, op: meta_pb2.Op) -> meta_pb2.Result:
        """Everything but a mutation."""
        name = op.WhichOneof("verb") or ""
        outcome: Outcome | None = None
        try:
            if self.room <= 0:
                raise FsError(Code.BUSY, "the answer is full: ask again")
            self._txn.next_operation()
            if name == "statfs":
                outcome = Outcome(fs_stat=self._parts.fs_stat(self._txn))
            elif name == "release":
                outcome = self._release(op.release)
            elif name in VERBS:
                outcome = self._open_or_read(name, op)
            else:
                raise FsError(Code.BAD_REQUEST, "an operation without a verb")
            self._txn.check_open()
            result = encode_outcome(outcome)
            over = result.ByteSize() - self.room - LAST_ANSWER_BYTES_MAX
            if over > 0 and self.room < ANSWER_BYTES_MAX:
                raise FsError(Code.BUSY, "the answer is too full for this one: ask again")
        except FsError as error:
            result = failure(self._why(error))
        except lmdb.Error:
            raise
        except Exception:
            result = self._unexpected(name)
        self._note(name, op, outcome)
        self.room -= result.ByteSize()
        self._count(name, result.code)
        return result

    def _why(self, error: FsError) -> FsError:
        """What was read of a directory that is closed says nothing."""
        try:
            self._txn.check_open()
        except FsError as closed:
            return closed
        return error

    def mutate(self, client: Client, op: meta_pb2.Op) -> meta_pb2.Result:
        """Spoiled.args[0] is the result of an operation that failed half-way."""
        name = op.WhichOneof("verb") or ""
        parts, txn = self._parts, self._txn
        before = txn.changes
        store = False
        slot = 0
        outcome: Outcome | None = None
        try:
            verb, body = VERBS[name], getattr(op, name)
            if not op.seq:
                raise FsError(Code.BAD_REQUEST, f"{name} needs a sequence number")
            stored = parts.sessions.recall(txn, client, op.seq)
            if stored is not None:
                return self._again(name, op, stored)
            if self._grant.read_only:
                raise FsError(Code.READ_ONLY, "a session that may only read")
            slot = verb.place(body) >> SLOT_SHIFT
            store = True
            txn.next_operation()
            outcome = self._mutate(name, verb, body, caller_of(self._grant, op.caller))
            result = encode_outcome(outcome)
            self._seek(name, client, body, outcome)
        except FsError as error:
            store = store and not error.retryable
            result = failure(error)
        except lmdb.Error:
            raise
        except Exception:
            store = False
            result = self._unexpected(name)
        self._note(name, op, outcome)
        self._count(name, result.code)
        if result.code and txn.changes != before:
            if result.code != Code.DELEGATED:
                self._parts.world.log.error(
                    "an operation failed half-way", verb=name, code=result.code
                )
            raise Spoiled(result)
        self.room -= result.ByteSize()
        if store:
            parts.sessions.store(txn, client, slot, op.seq, result.SerializeToString())
        return result

    # ---- reads

    def _open_or_read(self, name: str, op: meta_pb2.Op) -> Outcome:
        verb = VERBS[name]
        body = getattr(op, name)
        caller = caller_of(self._grant, op.caller)
        if name != "open":
            return verb.rule(self._txn, caller, body)
        opens, session, ino = self._parts.opens, self._grant.session_id, body.inode.ino
        was_open = opens.is_open(session, ino) and ino not in self._fresh
        opens.open(session, ino, write=body.write)
        try:
            outcome = verb.rule(self._txn, caller, body)
            self._txn.check_open()
        except FsError as error:
            if self._why(error).code is Code.DELEGATED:
                if not was_open:
                    self._fresh.add(ino)  # it is to be tried again
            elif not was_open:
                opens.release(session, ino)
                self._fresh.discard(ino)
            raise
        self._fresh.discard(ino)
        outcome.capability = self._right(ino, write=body.write)
        return outcome

    def _right(self, ino: int, *, write: bool) -> bytes:
        """To the data of an inode, for a user session that has just been let open it."""
        grant = self._grant
        if grant.kind != "user":
            return b""
        return self._parts.capability(grant if write else replace(grant, read_only=True), ino)

    def _release(self, m: meta_pb2.Release) -> Outcome:
        session = self._grant.session_id
        for inode in m.inodes:
            self._parts.opens.release(session, inode.ino)
            if self._txn.rows.state.counts[Table.ORPHAN]:
                release_orphan(self._txn, inode.ino, session)
        return Outcome()

    # ---- mutations

    def _mutate(self, name: str, verb: Verb, body: Any, caller: Caller) -> Outcome:  # noqa: ANN401
        txn = self._txn
        touched = len(txn.touched)
        if name == "remove_tree":
            return self._remove_tree(verb, caller, body)
        if name == "create" and body.open:
            self._parts.opens.check_room(self._grant.session_id)
        outcome = verb.rule(txn, caller, body)
        attr = outcome.attr
        if name == "touch":
            del txn.touched[touched:]  # a matter of minutes, and due at every first read
            txn.delegated.clear()
        elif name == "create":
            assert attr is not None
            if body.open:
                self._parts.opens.open(self._grant.session_id, attr.ino, write=True)
                if outcome.number:  # new, and so the caller's own; one that was there is opened
                    outcome.capability = self._right(attr.ino, write=True)
        elif attr is not None and attr.flags & Flag.TRUNCATING:
            key = keys.pack_reap(attr.ino, attr.data_generation, Work.TRUNCATE)
            if name == "setattr" and key in txn.debts:
                self.waits.append(key)
        return outcome

    def _seek(self, name: str, client: Client, body: Any, outcome: Outcome) -> None:  # noqa: ANN401
        """Of a client that changes names, the directories, so that it may go on by itself."""
        if self._telling is None or name not in CHANGES_NAMES:
            return
        places = [attr.ino for attr in outcome.dirs if attr.nlink]
        if name == "mkdir" and outcome.attr is not None:
            places.append(outcome.attr.ino)
        made: set[int] = set()
        if name == "log":
            made = made_by(body)
            places += [place for place in outcome.places if not is_directory_id(place)]
        if self._parts.granting.seek(self._txn, client, self._telling, places, made):
            self._parts.sessions.may_hold(self._txn, client)

    def _remove_tree(self, verb: Verb, caller: Caller, m: meta_pb2.RemoveTree) -> Outcome:
        if self._removals <= 0:
            raise FsError(Code.BUSY, "the batch removes enough already: ask again")
        limit = min(m.limit or REMOVE_TREE_ENTRIES_MAX, self._removals)
        part = meta_pb2.RemoveTree(dir=m.dir, name=m.name, limit=limit)
        if self._txn.is_closed:
            # It may come upon a directory of another client half-way.
            with self._txn.all_or_nothing():
                outcome = verb.rule(self._txn, caller, part)
        else:
            outcome = verb.rule(self._txn, caller, part)
        self._removals -= outcome.number
        return outcome

    def _again(self, name: str, op: meta_pb2.Op, stored: bytes) -> meta_pb2.Result:
        """The first answer. What of it lives in memory only is done again."""
        self._parts.metrics.replayed.inc()
        if self._telling is not None:
            self._telling.replayed = True
        result = meta_pb2.Result.FromString(stored)
        if result.code:
            return result
        if name == "create" and op.create.open:
            self._parts.opens.open(self._grant.session_id, result.attr.ino, write=True)
        if name == "setattr" and result.attr.flags & Flag.TRUNCATING:
            attr = result.attr
            key = keys.pack_reap(attr.ino, attr.data_generation, Work.TRUNCATE)
            if self._txn.rows.exists(Table.REAP, key):
                self.waits.append(key)
            else:
                attr.flags &= ~int(Flag.TRUNCATING)
        return result

    def _unexpected(self, name: str) -> meta_pb2.Result:
        self._parts.world.log.exception("an operation failed unexpectedly", verb=name)
        return meta_pb2.Result(code=Code.INTERNAL, detail="internal error; see the daemon's log")

    def _note(self, name: str, op: meta_pb2.Op, outcome: Outcome | None) -> None:
        if self._telling is not None and name:
            note(self._telling.leases, name, getattr(op, name), outcome)

    def _count(self, name: str, code: int) -> None:
        self._parts.metrics.count(name, code)
