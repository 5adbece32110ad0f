"""Durable sessions, and the replies that make every mutation happen once.

A session is born when a client first speaks and ends when it says goodbye or has been silent for
too long. Its record outlives it: an operation of an ended session never runs. The reply of each
mutation is stored in the transaction that ran it, under (slot, session, seq), and pruned, some
hundreds or a megabyte at a time, once the client has acknowledged it.

In memory `Client.written` remembers which sequence numbers have a reply and in which slot; it is a
hint to where to look, the record is the truth. Functions that take a `txn` run in the writer
thread; what they learn becomes true in memory after the commit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB, REPLY_WINDOW_OPS, SESSIONS_MAX
from superfs.core.namespace.release_orphan import release_orphan
from superfs.meta import keys, records
from superfs.meta.keys import Table
from superfs.meta.records import Session
from superfs.meta.sweeper import Swept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.core.tokens import Grant
    from superfs.meta.opens import Opens
    from superfs.meta.store import LmdbTxn
    from superfs.meta.table import Records

KINDS = ("host", "user", "daemon")
CLIENT_NAME_CHARS_MAX = 128
PRUNE_REPLIES_MIN = 256
PRUNE_BYTES_MIN = 1 * MIB
FORGET_PART = 4096
ENDED_KEPT_NS = 30 * 86_400 * 1_000_000_000


@dataclass(slots=True)
class Client:
    """A session as the daemon that serves it sees it."""

    session: int
    epoch: int
    heard: float  # monotonic
    acked_below: int = 0  # what the client has acknowledged; the record may be behind
    written: dict[int, int] = field(default_factory=dict)  # seq -> slot of its reply
    stored_bytes: int = 0  # of replies, about, since some were pruned
    range: int = 0  # of the numbers of its files
    may_hold: bool = False  # something exclusively, by its record


class Sessions:
    def __init__(self, opens: Opens, monotonic: Callable[[], float]) -> None:
        self._opens = opens
        self._monotonic = monotonic
        self._clients: dict[int, Client] = {}
        self.leased: set[int] = set()
        """Who had leases when this daemon started,"""
        self.exclusive: set[int] = set()
        """and may have had exclusive ones."""
        self.unswept: list[Swept] = []
        """Who had ended by then, and may have left something at the data daemons."""
        self.unfenced: dict[int, int] = {}
        """Whose fence was owed then, and its epoch."""

    def __len__(self) -> int:
        return len(self._clients)

    def load(self, rows: Records) -> None:
        """After a start every recorded session has its whole time again to be heard of."""
        now = self._monotonic()
        for key, record in rows.scan(Table.SESSION, b""):
            found = records.unpack_session(record)
            session = keys.parse_id(key)
            if found.ended_ns and found.range:
                self.unswept.append(Swept(session, found.epoch, found.range, found.used))
            if not found.ended_ns:
                client = Client(session, found.epoch, now, found.acked_below, range=found.range)
                self._clients[session] = client
                client.may_hold = found.exclusive
                if found.leases:
                    self.leased.add(session)
                if found.exclusive:
                    self.exclusive.add(session)
            elif found.fence_owed:
                self.unfenced[session] = found.epoch
        for key in rows.keys(Table.REPLY, b""):
            slot, session, seq = keys.parse_reply(key)
            if session in self._clients:
                self._clients[session].written[seq] = slot
        self._opens.expect(self._clients)

    def get(self, session: int) -> Client | None:
        return self._clients.get(session)

    def has_ended(self, rows: Records, session: int) -> bool:
        if session in self._clients:
            return False
        record = rows.get(Table.SESSION, keys.pack_id(session))
        return record is not None and bool(records.unpack_session(record).ended_ns)

    def heard(self, session: int) -> None:
        client = self._clients.get(session)
        if client is not None:
            client.heard = self._monotonic()

    def excuse(self, seconds: float) -> None:
        """So long nobody could be heard."""
        for client in self._clients.values():
            client.heard += seconds

    def silent_since(self, moment: float) -> list[int]:
        return [c.session for c in self._clients.values() if c.heard < moment]

    # ---- in a transaction

    def enter(self, txn: LmdbTxn, grant: Grant, name: str = "") -> Client:
        """The session of a caller, made if it is new. SESSION_EXPIRED if it has ended."""
        session = grant.session_id
        key = keys.pack_id(session)
        record = txn.rows.get(Table.SESSION, key)
        if record is not None and records.unpack_session(record).ended_ns:
            raise FsError(Code.SESSION_EXPIRED, f"session {session:#x} has ended")
        client = self._clients.get(session)
        if client is None:
            if len(self._clients) >= SESSIONS_MAX:
                raise FsError(Code.UNAVAILABLE, f"{SESSIONS_MAX} sessions are open")
            epoch = max(grant.epoch, 1)
            client = self._clients[session] = Client(session, epoch, self._monotonic())
        if record is None:
            name = name[:CLIENT_NAME_CHARS_MAX].encode("utf-8", "replace").decode()
            kind = KINDS.index(grant.kind)
            fresh = Session(client.epoch, 0, 0, grant.uid, grant.gid, kind, name)
            txn.rows.put(Table.SESSION, key, records.pack_session(fresh))
        return client

    def claim(self, txn: LmdbTxn, client: Client, inos: Iterable[int]) -> None:
        """The client has said all that it has open: what else was kept for it goes."""
        held = set(inos)
        self._opens.claim(client.session, held)
        self._release_orphans(txn, client.session, held)

    def lease(self, txn: LmdbTxn, client: Client, wants: bool) -> None:
        """On record before the first grant: the next start waits for those who have any."""
        found = self._record(txn, client.session)
        if found.leases != wants:
            found.leases = wants
            txn.rows.put(Table.SESSION, keys.pack_id(client.session), records.pack_session(found))

    def give_range(self, txn: LmdbTxn, client: Client) -> int:
        """Numbers for the files that it makes by itself, once and for good."""
        found = self._record(txn, client.session)
        if not found.range:
            found.range = txn.new_range()
            txn.put_session(client.session, found)
        txn.after_commit.append(lambda: setattr(client, "range", found.range))
        return found.range

    def may_hold(self, txn: LmdbTxn, client: Client) -> None:
        """On record with the first exclusive lease: the next start waits for those who have any."""
        if client.may_hold:
            return
        found = self._record(txn, client.session)
        if not found.exclusive:
            found.exclusive = True
            txn.put_session(client.session, found)
        txn.after_commit.append(lambda: setattr(client, "may_hold", True))

    def holding_none(self, has_any: Callable[[int], bool]) -> list[int]:
        """Whose record says otherwise."""
        return [c.session for c in self._clients.values() if c.may_hold and not has_any(c.session)]

    def hold_none(self, txn: LmdbTxn, sessions: Iterable[int]) -> None:
        """But for those who have been granted something since."""
        for session in set(sessions) - txn.holders():
            client = self._clients.get(session)
            if client is not None:
                client.may_hold = False  # what comes later in the transaction looks again
                found = self._record(txn, session)
                found.exclusive = False
                txn.put_session(session, found)

    def _record(self, txn: LmdbTxn, session: int) -> Session:
        record = txn.rows.get(Table.SESSION, keys.pack_id(session))
        assert record is not None, session
        return records.unpack_session(record)

    def recall(self, txn: LmdbTxn, client: Client, seq: int) -> bytes | None:
        """The stored reply of a mutation; None: run it. BAD_REQUEST outside of the window."""
        slot = client.written.get(seq)
        if slot is not None:
            reply = txn.rows.get(Table.REPLY, keys.pack_reply(slot, client.session, seq))
            if reply is not None:
                return reply
        if seq < client.acked_below:
            raise FsError(Code.BAD_REQUEST, f"seq {seq} was acknowledged already")
        if seq >= client.acked_below + REPLY_WINDOW_OPS:
            raise FsError(
                Code.BAD_REQUEST, f"seq {seq} is beyond the window from {client.acked_below}"
            )
        return None

    def store(self, txn: LmdbTxn, client: Client, slot: int, seq: int, reply: bytes) -> None:
        txn.rows.put(Table.REPLY, keys.pack_reply(slot, client.session, seq), reply)
        client.written[seq] = slot
        client.stored_bytes += len(reply)

    def acknowledge(self, txn: LmdbTxn, client: Client, below: int) -> None:
        """Prunes only now and then: an acknowledgement alone is never a reason to commit."""
        client.acked_below = max(client.acked_below, below)
        done = [seq for seq in client.written if seq < client.acked_below]
        many = len(done) >= PRUNE_REPLIES_MIN or client.stored_bytes >= PRUNE_BYTES_MIN
        if done and many:
            client.stored_bytes = 0
            self._prune(txn, client, done)

    def _prune(self, txn: LmdbTxn, client: Client, done: list[int]) -> None:
        rows, session = txn.rows, client.session
        for seq in done:
            key = keys.pack_reply(client.written[seq], session, seq)
            if rows.exists(Table.REPLY, key):
                rows.delete(Table.REPLY, key)
        found = self._record(txn, session)
        found.acked_below = client.acked_below
        rows.put(Table.SESSION, keys.pack_id(session), records.pack_session(found))

        def forget() -> None:
            for seq in done:
                client.written.pop(seq, None)

        txn.after_commit.append(forget)

    def end(self, txn: LmdbTxn, session: int) -> bool:
        """Lets go of all it held. False if it is not there (any more)."""
        rows, key = txn.rows, keys.pack_id(session)
        record = rows.get(Table.SESSION, key)
        if record is None or records.unpack_session(record).ended_ns:
            self._clients.pop(session, None)
            return False
        self._opens.end(session)
        self._release_orphans(txn, session, set())
        client = self._clients.get(session)
        for seq, slot in client.written.items() if client is not None else ():
            reply = keys.pack_reply(slot, session, seq)
            if rows.exists(Table.REPLY, reply):
                rows.delete(Table.REPLY, reply)
        runs = [k for k, r in rows.scan(Table.RESERVED, b"") if _owner(r) == session]
        for run in runs:
            txn.drop_reserved(keys.parse_id(run))
        found = records.unpack_session(record)
        found.ended_ns = txn.now_ns
        found.epoch += 1
        found.fence_owed = True
        rows.put(Table.SESSION, key, records.pack_session(found))
        txn.after_commit.append(lambda: self._forget(session))
        return True

    def fenced(self, txn: LmdbTxn, session: int) -> None:
        """Every data daemon knows that it has ended."""
        record = txn.rows.get(Table.SESSION, keys.pack_id(session))
        if record is not None:
            found = records.unpack_session(record)
            found.fence_owed = False
            txn.rows.put(Table.SESSION, keys.pack_id(session), records.pack_session(found))

    def _forget(self, session: int) -> None:
        self._clients.pop(session, None)
        self._opens.end(session)  # what it has opened since

    def forget_ended(self, txn: LmdbTxn, start: bytes) -> bytes:
        """Records of sessions that ended so long ago that nobody asks in their name any more, among
        the next ones from `start`; where to go on, b"" at the end."""
        limit = txn.now_ns - ENDED_KEPT_NS
        old: list[bytes] = []
        after = b""
        for seen, (key, record) in enumerate(txn.rows.scan(Table.SESSION, start)):
            if seen == FORGET_PART:
                after = key
                break
            found = records.unpack_session(record)
            if 0 < found.ended_ns < limit and not found.range:
                old.append(key)
        for key in old:
            txn.rows.delete(Table.SESSION, key)
        return after

    def release_dead(self, txn: LmdbTxn) -> None:
        """Orphans of sessions that are no more. `end` leaves none; a store that was cut off from
        its daemon by a bug, or was made by an earlier version, may have some."""
        for key, record in list(txn.rows.scan(Table.ORPHAN, b"")):
            for session in records.unpack_orphan(record).holders - self._clients.keys():
                release_orphan(txn, keys.parse_id(key), session)

    def _release_orphans(self, txn: LmdbTxn, session: int, but: set[int]) -> None:
        rows = txn.rows
        if not rows.state.counts[Table.ORPHAN]:
            return
        for key, record in list(rows.scan(Table.ORPHAN, b"")):
            ino = keys.parse_id(key)
            if ino not in but and session in records.unpack_orphan(record).holders:
                release_orphan(txn, ino, session)


def check_session(grant: Grant) -> None:
    if not grant.session_id:
        raise FsError(Code.FORBIDDEN, "a token without a session changes nothing")


def _owner(run: bytes) -> int:
    return records.unpack_run(run).session
