"""Who this client is to the cluster: one session, its sequence numbers, its stream to a metad.

A mutating operation gets its number when it is first sent, and keeps it however often it is sent
again. `acked_below` tells the daemon which replies it may forget.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Protocol

from superfs.client.leases import lease_clock
from superfs.core.errors import Code, FsError
from superfs.core.limits import (
    BATCH_OPS_MAX,
    MESSAGE_DATA_BYTES_MAX,
    PROTOCOL_VERSION,
    REPLY_WINDOW_OPS,
)
from superfs.rpc.stream import Item, Stream, StreamTimes
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.client.delegation.shipping import Shipping
    from superfs.client.leases import LeaseHolder
    from superfs.core.namespace.txn import Ref

log = logging.getLogger("superfs.client")

READS, MUTATIONS = 0, 1
BATCH_BYTES = 2 * MESSAGE_DATA_BYTES_MAX
"""A batch is closed when one more operation would make it larger; one operation alone may be."""
ANSWER_BYTES = 96 * 1024
"""Likewise for what its answer will have: while the client takes one long answer apart, the daemon
works on the next."""
RETURNED_LEASES_MAX = 4096
"""In one message."""


class Session:
    """Identity and sequence numbers, shared by the streams to all metadata daemons."""

    def __init__(self, session_id: int, token: bytes, expires_ns: int) -> None:
        self.id = session_id
        self.token = token
        self.expires_ns = expires_ns
        self._lock = threading.Lock()
        self._next = 1
        self._open: dict[int, None] = {}  # in the order they were taken: the first is the lowest

    def take(self) -> int:
        """0 when the daemon could not remember one more reply; then ask after some answers."""
        with self._lock:
            oldest = next(iter(self._open), self._next)
            if self._next - oldest >= REPLY_WINDOW_OPS:
                return 0
            seq = self._next
            self._next += 1
            self._open[seq] = None
            return seq

    def done(self, seq: int) -> None:
        with self._lock:
            self._open.pop(seq, None)

    @property
    def acked_below(self) -> int:
        with self._lock:
            return next(iter(self._open), self._next)


class OpItem(Item[tuple[meta_pb2.Result, frozenset[int]]]):
    """Answered with (result, leases under which it may be repeated). `bound`: the only session in
    which it may be done; after its end it is SESSION_EXPIRED, whether it was done or not."""

    __slots__ = ("answer_bytes", "bound", "is_log", "mutates", "op", "session", "size")

    def __init__(
        self,
        op: meta_pb2.Op,
        *,
        mutates: bool,
        lane: int,
        answer_bytes: int = 0,
        bound: Session | None = None,
    ) -> None:
        super().__init__(lane)
        self.bound = bound
        self.answer_bytes = answer_bytes
        self.op = op
        self.mutates = mutates
        self.size = op.ByteSize()
        self.session: Session | None = None  # whose number op.seq is
        self.is_log = op.HasField("log")


class Host(Protocol):
    """What a stream needs of its connection."""

    @property
    def session(self) -> Session: ...

    @property
    def lease_holder(self) -> LeaseHolder | None: ...

    @property
    def shipping(self) -> Shipping | None:
        """Of what is done under exclusive leases; None: this client wants none."""

    def open_meta_call(
        self, node_id: int, requests: Iterator[meta_pb2.SessionRequest]
    ) -> tuple[Any, Callable[[], None]]:
        """(call, what closes its channel)."""

    def recover(self, error: FsError, session: Session) -> None:
        """After a broken stream: a fresh map, a fresh token, or, when the session has expired, a
        new session."""

    def open_refs(self) -> list[Ref]:
        """What this client holds open."""

    def dead_sessions(self) -> list[int]:
        """Of processes of this machine that have ended without a goodbye."""

    def welcomed(self, node_id: int, welcome: meta_pb2.Welcome) -> None: ...


class MetaStream(Stream[OpItem, meta_pb2.SessionRequest, meta_pb2.SessionReply]):
    keeps_alive = True

    def __init__(
        self,
        host: Host,
        node_id: int,
        client_name: str,
        times: StreamTimes,
        delays: Callable[[], Iterator[float]],
    ) -> None:
        super().__init__(f"metad {node_id}", times, delays, lanes=2)
        self._host = host
        self._node_id = node_id
        self._client_name = client_name
        self._session = host.session
        self._close_channel: Callable[[], None] = _nothing
        self._batch_number = 0
        self._keep_alive_number = 0
        self._kept_alive: dict[int, float] = {}  # number -> when it was sent
        self._lease_s = 0.0
        self.renews = host.lease_holder is not None
        self._turn = READS
        self.ops_sent = 0

    # ---- the call

    def _call(self, requests: Iterator[meta_pb2.SessionRequest]) -> Any:  # noqa: ANN401
        session = self._host.session
        if session is not self._session:
            self._disown()
        self._session = session
        call, self._close_channel = self._host.open_meta_call(self._node_id, requests)
        return call

    def _hang_up(self) -> None:
        self._close_channel()
        self._close_channel = _nothing

    def _hello(self) -> meta_pb2.SessionRequest:
        self._kept_alive = {0: lease_clock()}
        hello = meta_pb2.Hello(
            protocol=PROTOCOL_VERSION,
            client=self._client_name,
            leases=self.renews,
            exclusive=self._host.shipping is not None,
            dead=self._host.dead_sessions(),
        )
        for ref in self._host.open_refs():
            hello.open.add(ino=ref.ino, generation=ref.generation, place=ref.place)
        return meta_pb2.SessionRequest(hello=hello)

    def _welcome(self, reply: meta_pb2.SessionReply) -> None:
        if reply.WhichOneof("body") != "welcome":
            raise FsError(Code.BAD_REQUEST, "the daemon did not begin with a welcome")
        self._lease_s = reply.welcome.lease_ms / 1000
        self._renewed(0)
        shipping, link = self._host.shipping, self._link
        if shipping is not None:

            def settled() -> None:
                if self._link is link:
                    self.say(meta_pb2.SessionRequest(settled=meta_pb2.Settled()))

            shipping.welcomed(self._session.id, reply.welcome, settled)
        self._host.welcomed(self._node_id, reply.welcome)

    def _keep_alive(self) -> meta_pb2.SessionRequest | None:
        self._keep_alive_number += 1
        self._kept_alive[self._keep_alive_number] = lease_clock()
        return meta_pb2.SessionRequest(
            keep_alive=meta_pb2.KeepAlive(number=self._keep_alive_number)
        )

    def _goodbye(self) -> meta_pb2.SessionRequest | None:
        return meta_pb2.SessionRequest(goodbye=meta_pb2.Goodbye())

    def _renewed(self, number: int) -> None:
        """The daemon has answered a hello (0) or a keep-alive."""
        sent = self._kept_alive.pop(number, None)
        holder = self._host.lease_holder
        if sent is not None and holder is not None and self._lease_s:
            holder.extended(sent + self._lease_s)
            if self._host.shipping is not None:
                self._host.shipping.extended(sent + self._lease_s)

    def _parted(self) -> None:
        holder = self._host.lease_holder
        if self._host.shipping is not None:
            self._host.shipping.broken()
        if holder is not None:
            holder.lapsed()

    def _broken(self, error: FsError) -> None:
        self._host.recover(error, self._session)

    def _disown(self) -> None:
        """The session has expired. What was sent with one of its numbers may have run or not:
        nobody can tell any more, and so it is not sent again. Nor is what is bound to it."""
        lost: list[OpItem] = []
        with self._lock:
            lane = self._lanes[MUTATIONS]
            for item in list(lane):
                if (item.sends and item.mutates) or self._refuses(item) is not None:
                    lane.remove(item)
                    lost.append(item)
        for item in lost:
            refusal = self._refuses(item)
            if refusal is not None:
                item.pending.fail(refusal)
                continue
            verb = item.op.WhichOneof("verb")
            log.error("%s: session expired, it is not known whether %s was done", self.name, verb)
            item.pending.fail(FsError(Code.IO, f"the session expired during {verb}"))

    def _refuses(self, item: OpItem) -> FsError | None:
        if item.bound is None or item.bound is self._host.session:
            return None
        return FsError(Code.SESSION_EXPIRED, "the session has ended in which it was to be done")

    def _given_up(self, item: OpItem) -> None:
        if item.session is not None:
            item.session.done(item.op.seq)

    # ---- batches

    def _take(self) -> meta_pb2.SessionRequest | None:
        """Reads and mutations go in batches of their own: a daemon answers a batch of reads
        without waiting for its writer."""
        for lane in (self._turn, 1 - self._turn):
            batch = self._pack(lane)
            if batch is not None:
                self._turn = 1 - lane
                return meta_pb2.SessionRequest(batch=batch)
        return None

    def _pack(self, lane: int) -> meta_pb2.Batch | None:
        waiting = self._lanes[lane]
        items: list[OpItem] = []
        size = answer = 0
        while waiting and len(items) < BATCH_OPS_MAX:
            item = waiting[0]
            answer += item.answer_bytes
            if items and (size + item.size > BATCH_BYTES or answer > ANSWER_BYTES):
                break
            if items and item.is_log != items[0].is_log:
                break  # after its start a daemon lets nothing pass but what it waits for: logs
            if item.mutates and not item.sends:
                seq = self._session.take()
                if not seq:
                    break
                item.op.seq = seq
                item.session = self._session
            waiting.popleft()
            item.sends += 1
            size += item.size
            items.append(item)
        if not items:
            return None
        self._batch_number += 1
        self.ops_sent += len(items)
        self._sent[self._batch_number] = items
        return meta_pb2.Batch(
            batch=self._batch_number,
            acked_below=self._session.acked_below,
            ops=[item.op for item in items],
        )

    def _answer(self, reply: meta_pb2.SessionReply) -> None:
        body = reply.WhichOneof("body")
        if body == "batch":
            self._answer_batch(reply.batch)
        elif body == "keep_alive":
            self._renewed(reply.keep_alive.number)
            if self._host.shipping is not None:
                self._host.shipping.heard_time(reply.keep_alive.now_ns)
        elif body == "invalidate":
            self._recalled(reply.invalidate)

    def _recalled(self, message: meta_pb2.Invalidate) -> None:
        done = meta_pb2.SessionRequest(invalidated=meta_pb2.Invalidated(number=message.number))
        link = self._link
        holder = self._host.lease_holder
        if holder is None:
            raise FsError(Code.INTERNAL, "an invalidation of leases that nobody has")

        def acknowledge() -> None:
            if self._link is link:
                self.say(done)

        if self._host.shipping is not None:
            self._host.shipping.recalled(message, acknowledge)
        else:
            holder.recalled(message, acknowledge)

    def _answer_batch(self, answer: meta_pb2.BatchReply) -> None:
        with self._lock:
            items = self._sent.get(answer.batch)
            if items is None or len(items) != len(answer.results):
                raise FsError(Code.INTERNAL, "an answer that fits no batch")
            if any(result.code == Code.SESSION_EXPIRED for result in answer.results):
                self._spare(items)
                raise FsError(Code.SESSION_EXPIRED)
            del self._sent[answer.batch]
            for item in items:
                if item.mutates:
                    self._session.done(item.op.seq)
            if self._lanes[MUTATIONS]:
                self._changed.notify()  # the window may have been full
        leases = frozenset(answer.leases)
        if self._host.shipping is not None:
            self._host.shipping.granted(answer.exclusive, answer.commit)
        for item, result in zip(items, answer.results, strict=True):
            item.pending.complete((result, leases))

    def give_back(self, leases: Sequence[int]) -> None:
        """Ahead of whatever is asked from now on. A link that breaks ends them all."""
        for start in range(0, len(leases), RETURNED_LEASES_MAX):
            portion = meta_pb2.ReturnLeases(leases=leases[start : start + RETURNED_LEASES_MAX])
            self.say(meta_pb2.SessionRequest(return_leases=portion))

    def downgrade(self, leases: Sequence[int]) -> None:
        """As `give_back`, of the exclusive part alone: answers are still repeated under them."""
        for start in range(0, len(leases), RETURNED_LEASES_MAX):
            portion = leases[start : start + RETURNED_LEASES_MAX]
            returned = meta_pb2.ReturnLeases(exclusive=portion)
            self.say(meta_pb2.SessionRequest(return_leases=returned))

    def _spare(self, items: list[OpItem]) -> None:
        """An operation of an expired session never runs: one that went out only once may go out
        again in the next session."""
        for item in items:
            if item.mutates and item.sends == 1:
                item.sends = 0
                item.op.seq = 0
                item.session = None


def _nothing() -> None:
    return None
