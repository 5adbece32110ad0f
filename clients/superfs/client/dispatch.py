"""Sends operations to the metadata daemons that own them, and asks again where that is the answer.

Where the answer says "ask again" (BUSY, GRACE, WRONG_OWNER, UNAVAILABLE), it is asked again with
growing delays until `retry_timeout_s` is used up: as a new operation, for the first one was
answered and did nothing. Lost connections are the stream's business (rpc/stream.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from superfs.client.codec import decode_result
from superfs.client.session import MUTATIONS, READS, OpItem
from superfs.core.errors import Code, FsError
from superfs.core.namespace.outcome import Outcome
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from superfs.client.delegation.meta import DelegatedMeta
    from superfs.client.ops import Call
    from superfs.client.session import MetaStream, Session
    from superfs.core.namespace.txn import Caller

T = TypeVar("T")

ASK_AGAIN = frozenset({Code.BUSY, Code.GRACE, Code.WRONG_OWNER, Code.UNAVAILABLE, Code.DELEGATED})


class Router(Protocol):
    """What the verbs need of a connection."""

    @property
    def caller(self) -> Caller:
        """On whose behalf, unless a call says otherwise."""

    @property
    def retry_timeout_s(self) -> float: ...

    @property
    def session(self) -> Session: ...

    def meta_stream(self, key: int) -> MetaStream: ...
    def sleep(self, seconds: float) -> Awaitable[None]: ...
    def delays(self) -> Iterator[float]: ...
    async def refresh_map(self) -> None: ...


class Dispatch:
    def __init__(self, router: Router) -> None:
        self._router = router
        self._callers: dict[Caller, meta_pb2.Caller] = {}

    # ---- what is done here and told later: nothing, unless a client holds directories exclusively

    figures: ClassVar[dict[str, tuple[str, Callable[[], float]]]] = {
        "exclusive": ("Directories held exclusively", lambda: 0),
        "log_entries": ("Changes made here and not shipped yet", lambda: 0),
        "log_bytes": ("What they take", lambda: 0),
        "log_age_seconds": ("Age of the oldest", lambda: 0),
        "log_shipped": ("Parts of the log that were shipped", lambda: 0),
        "local_changes": ("Changes made here", lambda: 0),
        "exclusive_recalls": ("Exclusive leases that others wanted", lambda: 0),
        "lost_files": ("Files whose making could not be shipped", lambda: 0),
    }
    """For people: what each is, and its value now."""

    async def sync(self) -> None:
        """Everything that was done so far survives the loss of power. Here it does anyway."""

    @property
    def is_synced(self) -> bool:
        """Nothing would be waited for."""
        return True

    @property
    def here(self) -> DelegatedMeta | None:
        """What this client may do by itself; None: it never does anything."""
        return None

    async def room(self) -> None:
        """There is room for what this client does by itself."""

    # ---- sending

    def _item(
        self, call: Call, caller: Caller | None, lane: int, session: Session | None = None
    ) -> OpItem:
        who = self._encode_caller(caller or self._router.caller)
        fields: dict[str, Any] = {call.verb: call.body}
        op = meta_pb2.Op(caller=who, **fields)
        return OpItem(
            op, mutates=call.mutates, lane=lane, answer_bytes=call.answer_bytes, bound=session
        )

    def _encode_caller(self, caller: Caller) -> meta_pb2.Caller:
        message = self._callers.get(caller)
        if message is None:
            if len(self._callers) >= 4096:
                self._callers.clear()
            message = meta_pb2.Caller(
                uid=caller.uid, gid=caller.gid, groups=sorted(caller.groups), umask=caller.umask
            )
            self._callers[caller] = message
        return message

    async def run(
        self,
        call: Call,
        caller: Caller | None = None,
        *,
        ask_again: frozenset[Code] = ASK_AGAIN,
        absent_ok: bool = False,
        session: Session | None = None,
    ) -> Outcome:
        """One operation. `absent_ok`: NOT_FOUND is an answer, an outcome with nothing in it.
        `session`: done in that one, or SESSION_EXPIRED."""

        def decode(result: meta_pb2.Result, leases: frozenset[int]) -> Outcome:
            if result.code == Code.NOT_FOUND and absent_ok:
                return Outcome(leases=leases)
            return decode_result(result, leases)

        return await self.ask(call, decode, caller, ask_again=ask_again, session=session)

    async def ask(
        self,
        call: Call,
        decode: Callable[[meta_pb2.Result, frozenset[int]], T],
        caller: Caller | None = None,
        *,
        ask_again: frozenset[Code] = ASK_AGAIN,
        session: Session | None = None,
    ) -> T:
        """One operation, its answer and the leases it comes under taken apart by `decode`, which
        raises what failed."""
        lane = MUTATIONS if call.mutates else READS
        deadline = 0.0
        delays = None
        while True:
            try:
                item = self._item(call, caller, lane, session)
                self._router.meta_stream(call.key).submit((item,))
                return decode(*await item.pending)
            except FsError as error:
                if error.code not in ask_again:
                    raise
                now = time.monotonic()
                if delays is None:
                    delays = self._router.delays()
                    deadline = now + self._router.retry_timeout_s
                delay = next(delays)
                # An UNAVAILABLE of the stream itself has used up the whole budget already.
                if now + delay > deadline or self._spent(item, now):
                    raise
                if error.code in (Code.WRONG_OWNER, Code.UNAVAILABLE):
                    await self._router.refresh_map()
            await self._router.sleep(delay)

    def _spent(self, item: OpItem, now: float) -> bool:
        return now - item.since >= self._router.retry_timeout_s

    async def run_many(
        self, calls: Sequence[Call], caller: Caller | None = None
    ) -> list[Outcome | FsError]:
        """Operations sent together, one message per daemon; each has its own fate, in order. Those
        for one daemon run in order when any of them mutates. What is to be asked again is."""
        lane = MUTATIONS if any(call.mutates for call in calls) else READS
        items = [self._item(call, caller, lane) for call in calls]
        groups: dict[MetaStream, list[OpItem]] = {}
        for call, item in zip(calls, items, strict=True):
            groups.setdefault(self._router.meta_stream(call.key), []).append(item)
        for stream, group in groups.items():
            stream.submit(group)
        outcomes: list[Outcome | FsError] = []
        for call, item in zip(calls, items, strict=True):
            try:
                result, leases = await item.pending
                outcomes.append(decode_result(result, leases))
            except FsError as error:
                if error.code in ASK_AGAIN and not self._spent(item, time.monotonic()):
                    outcomes.append(await self._again(call, caller))
                else:
                    outcomes.append(error)
        return outcomes

    async def _again(self, call: Call, caller: Caller | None) -> Outcome | FsError:
        try:
            return await self.run(call, caller)
        except FsError as error:
            return error
