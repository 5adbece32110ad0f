"""The stream to one data daemon: requests with tags, and the writes it may still lose.

A write that was answered survives a kill of the daemon, not of its machine. So the stream keeps
it until a Commit has covered it. Every reply carries the daemon's boot epoch, and every call
begins with a probe for it: when it has changed, the daemon says up to which version it has found
the writes of each epoch on its disk. What is kept and has a later version is sent again, ahead of
everything else and in its order, before anything new. What has survived must not be sent again:
somebody may have written over it, or cut it off, since. Kept writes never expire; what waits for
them does. One that is refused when it is sent again is lost, and `raise_lost` says so to the next
fsync of its file.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from superfs.client.local import LocalLink
from superfs.client.payload import Payload
from superfs.client.sharedmem import offset_of, slot_of
from superfs.client.wire import Reply, Request, behind, encode_request
from superfs.core.errors import Code, FsError, known_code
from superfs.rpc.stream import Item, Stream, StreamTimes
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.client.config import ClientConfig
    from superfs.client.lent import Placed
    from superfs.client.session import Session

log = logging.getLogger("superfs.client")

LOCAL_RETRIES_S = (1.0, 2.0, 5.0)
LOCAL_RETRY_S = 30.0
UNKNOWN_MAX = 3
"""Then writes carry their bytes for good."""
IDLE_COMMIT_S = 2.0
"""Nothing is kept much longer than this, even if nobody calls fsync."""


_tags = itertools.count(1)


def new_tag() -> int:
    return next(_tags)


class DataItem(Item[Reply]):
    """`request` has a tag of its own (`new_tag`) in it already. `kept_bytes` > 0: a write, kept
    until it is committed, of these `inodes`."""

    __slots__ = (
        "capability", "commits", "inodes", "kept_bytes", "order", "request", "tag", "version",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        tag: int,
        *,
        kept_bytes: int = 0,
        inodes: frozenset[int] = frozenset(),
        capability: bytes = b"",
        commits: bool = False,
        patient: bool = False,
    ) -> None:
        super().__init__(patient=patient)
        self.request = request
        self.tag = tag
        self.kept_bytes = kept_bytes
        self.inodes = inodes
        self.version = 0  # of the write, at the daemon
        self.capability = capability
        self.commits = commits
        self.order = 0  # of sending: what a commit covers was sent before it

    @classmethod
    def of(cls, request: data_pb2.DataRequest, *, capability: bytes = b"") -> DataItem:
        request.tag = new_tag()
        return cls(request, request.tag, capability=capability)

    def again(self) -> DataItem:
        """What was answered once, for the daemon that has lost it. Nobody waits for it."""
        return DataItem(
            self.request,
            self.tag,
            kept_bytes=self.kept_bytes,
            inodes=self.inodes,
            capability=self.capability,
            patient=True,
        )


class Host(Protocol):
    """What a stream needs of its connection."""

    capability: bytes
    config: ClientConfig

    @property
    def session(self) -> Session: ...

    def open_data_call(
        self, node_id: int, requests: Iterator[Request]
    ) -> tuple[Any, Callable[[], None]]: ...

    def recover(self, error: FsError, session: Session) -> None: ...


class DataStream(Stream[DataItem, Request, Reply]):
    def __init__(
        self,
        host: Host,
        node_id: int,
        times: StreamTimes,
        delays: Callable[[], Iterator[float]],
    ) -> None:
        super().__init__(f"datad {node_id}", times, delays)
        self.node_id = node_id
        self._host = host
        self._session = host.session
        self._close_channel: Callable[[], None] = _nothing
        self._order = itertools.count(1)
        self._shown = b""
        self._kept: deque[DataItem] = deque()
        self._kept_since = 0.0
        self._lost: dict[int, FsError] = {}  # by inode: writes that were acknowledged once
        self._commits = 0
        self._wrote = False
        self.kept_bytes = 0
        self.boot_epoch = 0
        self.local: LocalLink | None = None
        """To the daemon, if it is on this host; of the present call."""
        self._says_where = False
        """It has been welcomed once: since then `local` tells whether the daemon is near."""
        self._local_path = ""
        self._local_retries: Iterator[float] = iter(())
        self._local_due_s = 0.0
        self._local_said = False
        self._requests_max = 1  # in one message, as the daemon says
        self._unknown = 0  # how often the daemon did not know memory that was shared

    # ---- for the data client

    @property
    def committing(self) -> bool:
        return self._commits > 0

    @property
    def was_written_to(self) -> bool:
        """Whether anything was ever on its way there that a commit is for."""
        with self._lock:
            return self._wrote or any(item.kept_bytes for item in self._lanes[0])

    def commit(self) -> DataItem:
        """Covers every write submitted before it."""
        tag = new_tag()
        request = data_pb2.DataRequest(tag=tag, commit=data_pb2.Commit())
        item = DataItem(request, tag, commits=True)
        with self._lock:
            self._commits += 1
        item.pending.on_done(self._commit_ended)
        self.submit((item,))
        return item

    def _commit_ended(self) -> None:
        with self._lock:
            self._commits -= 1

    def tick(self) -> None:
        super().tick()
        idle = self._kept and time.monotonic() - self._kept_since > IDLE_COMMIT_S
        if idle and self.connected and not self.committing and self._refusal is None:
            self.commit()
        self._tend_local()

    # ---- the socket on the same host

    def _tend_local(self) -> None:
        local = self.local
        if local is not None and not local.ended:
            local.tick()
            return
        if local is not None and local.error is not None and not self._local_said:
            self._local_said = True
            log.info("%s: all data goes by gRPC: %s", self.name, local.error)
        if self._local_path and self.connected and time.monotonic() >= self._local_due_s:
            self._open_local()

    def _open_local(self) -> None:
        self._local_due_s = time.monotonic() + next(self._local_retries, LOCAL_RETRY_S)
        capability = self._host.capability
        if capability and self._refusal is None:
            if self.local is not None:
                self.local.close()
            token = self._session.token
            self.local = LocalLink(self._local_path, self.boot_epoch, token, capability)

    def refuse(self, error: BaseException) -> None:
        super().refuse(error)
        self.local = None
        self._kept.clear()  # and what descriptors that holds

    def close(self) -> None:
        super().close()
        with self._lock:
            self._kept.clear()  # and what descriptors that holds

    def may_be_near(self, *, wait: bool) -> bool:
        """Whether the daemon is on this host, as far as is known. `wait`: who asks can wait until
        it is: the first reads of a client are not the ones to go the long way."""
        local = self.local
        if local is not None:
            return local.ready or (wait and not local.ended)
        return wait and not self._says_where and self._host.config.bypass

    @property
    def shares_memory(self) -> bool:
        local = self.local
        return local is not None and local.ready and self._unknown < UNKNOWN_MAX

    def lends(self, placed: Placed) -> bool:
        """Whether the daemon knows the segment that they lie in."""
        return self.shares_memory and placed.segment.link is self.local

    def shared_place(self, data: memoryview) -> tuple[int, int] | None:
        local, slot = self.local, slot_of(data)
        if local is None or slot is None or self._unknown >= UNKNOWN_MAX:
            return None
        number = local.buffer_of(slot.arena)
        return None if not number else (number, offset_of(data, slot))

    def _given_up(self, item: DataItem) -> None:
        """Nobody knows whether the daemon is still to read it."""
        slot = slot_of(item.request.data) if isinstance(item.request, Payload) else None
        if slot is not None and item.sends:
            slot.spoilt = True

    # ---- the call

    def _call(self, requests: Iterator[Request]) -> Any:  # noqa: ANN401
        self._session = self._host.session
        call, self._close_channel = self._host.open_data_call(self.node_id, requests)
        return call

    def _hang_up(self) -> None:
        local, self.local, self._local_path = self.local, None, ""
        if local is not None:
            local.close()
        self._close_channel()
        self._close_channel = _nothing

    def _hello(self) -> data_pb2.DataRequest:
        self._shown = self._host.capability
        return data_pb2.DataRequest(capability=self._shown, usage=data_pb2.Usage())

    def _welcome(self, reply: Reply) -> None:
        if reply.code in (Code.UNAVAILABLE, Code.UNAUTHENTICATED, Code.FORBIDDEN):
            raise FsError(Code(reply.code), reply.detail)
        if self.boot_epoch and reply.boot_epoch != self.boot_epoch:
            survived = _survived(reply, self.boot_epoch)
            for item in reversed(self._kept):
                if item.version > survived:
                    self._lanes[0].appendleft(item.again())
            self._kept.clear()
            self.kept_bytes = 0
        self.boot_epoch = reply.boot_epoch
        self._requests_max = reply.usage.requests_max
        self._local_path = reply.usage.local_socket if self._host.config.bypass else ""
        if self._local_path:
            self._local_retries = iter(LOCAL_RETRIES_S)
            self._open_local()
        elif not self._local_said:
            self._local_said = True
            log.info("%s: all data goes by gRPC: it offers no local socket", self.name)
        self._says_where = True

    def _broken(self, error: FsError) -> None:
        self._host.recover(error, self._session)

    # ---- requests

    def _take(self) -> Request | None:
        lane = self._lanes[0]
        if not lane:
            return None
        item = lane.popleft()
        self._note_sent(item)
        capability = item.capability or self._host.capability
        if capability == self._shown:
            return self._with_more(item.request)
        self._shown = capability
        # Messages one behind the other are one message: the request, with the capability added.
        shown = data_pb2.DataRequest(capability=capability).SerializeToString()
        return shown + encode_request(item.request)

    def _note_sent(self, item: DataItem) -> None:
        item.sends += 1
        self._wrote = self._wrote or item.kept_bytes > 0
        item.order = next(self._order)
        self._sent[item.tag] = [item]

    def _with_more(self, first: Request) -> Request:
        """Writes that name the place of their bytes go many in a message: what each costs at both
        ends is the message, not the naming."""
        lane, room = self._lanes[0], self._requests_max - 1
        if room < 1 or not lane or not _names_place(first):
            return first
        message = encode_request(first)
        while room and lane and _names_place(lane[0].request):
            if (lane[0].capability or self._host.capability) != self._shown:
                break
            item = lane.popleft()
            self._note_sent(item)
            message += behind(encode_request(item.request))
            room -= 1
        return message

    def _answer(self, reply: Reply) -> None:
        self._answer_one(reply)
        for part in reply.more:
            self._answer_one(part)

    def _answer_one(self, reply: Reply) -> None:
        if not reply.tag:
            return
        if reply.boot_epoch != self.boot_epoch:
            raise FsError(Code.UNAVAILABLE, "the data daemon has started anew")
        with self._lock:
            items = self._sent.get(reply.tag)
            if items is None:
                raise FsError(Code.INTERNAL, "an answer that fits no request")
            (item,) = items
            if reply.code == Code.NOT_FOUND and isinstance(item.request, Payload):
                self._unknown += 1  # what came behind it is sent again behind it
                if self._unknown == UNKNOWN_MAX:
                    log.warning("%s: writes go by gRPC: it forgets shared memory", self.name)
                raise FsError(Code.UNAVAILABLE, "the data daemon does not know our memory")
            del self._sent[reply.tag]
            if reply.code == Code.OK:
                if item.kept_bytes:
                    item.version = reply.version
                    self._keep(item)
                elif item.commits:
                    self._committed(item.order)
            elif item.patient and reply.code != Code.STALE_DATA:  # else its file is gone
                self._lose(item, reply)
        item.pending.complete(reply)

    def _lose(self, item: DataItem, reply: Reply) -> None:
        for ino in item.inodes:
            log.error("inode %x: written bytes are lost: %s cannot take them again: %s", ino,
                      self.name, reply.detail)  # fmt: skip
            text = f"{self.name} lost what was written and cannot take it again: {reply.detail}"
            self._lost[ino] = FsError(known_code(reply.code), text)

    def raise_lost(self, ino: int = 0) -> None:
        """Once: the error of a write to this inode, 0 to any, that is lost for good."""
        with self._lock:
            error = self._lost.pop(ino or next(iter(self._lost), 0), None)
        if error is not None:
            raise error

    def _keep(self, item: DataItem) -> None:
        if not self._kept:
            self._kept_since = time.monotonic()
        self._kept.append(item)
        self.kept_bytes += item.kept_bytes

    def _committed(self, order: int) -> None:
        """Requests run in order: the commit covers everything that was sent before it."""
        while self._kept and self._kept[0].order < order:
            self.kept_bytes -= self._kept.popleft().kept_bytes
        self._kept_since = time.monotonic()


def _names_place(request: Request) -> bool:
    return isinstance(request, Payload) and request.has_place


def _survived(hello: Reply, epoch: int) -> int:
    """The last version of that epoch that is on the daemon's disk; -1: it does not remember."""
    boots = hello.usage.boots
    for boot, next_boot in itertools.pairwise(boots):
        if boot.epoch == epoch:
            return next_boot.survived
    return -1


def _nothing() -> None:
    return None
