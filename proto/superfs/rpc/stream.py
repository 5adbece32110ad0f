"""One ordered stream to one daemon, kept up for as long as it is wanted.

    submit --> lanes --> sender (gRPC's thread that asks for the next message) --> the daemon
                 ^                                                                    |
                 |   what was sent and not answered, when the stream breaks           v
                 +------------------------------------------------------------- reader thread

Whatever waits when the sender is free goes into its next message. When the stream breaks, the
reader puts what has no answer back in its order, connects again with growing delays, and it is
sent again unchanged: that this is harmless is the protocol's business (sequence numbers at
metadata daemons, idempotent requests at data daemons).

An item fails when the daemon has been out of reach for `retry_timeout_s` since it was submitted
or since the stream broke, whichever came later; then with the last error. While the stream
stands nothing expires: a slow answer is not a lost one.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import grpc

from superfs.core.errors import Code, FsError
from superfs.rpc.errors import from_rpc
from superfs.rpc.forks import GATE, PATIENCE_S
from superfs.rpc.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger("superfs.rpc")

Answer = TypeVar("Answer")
USEFUL_S = 1.0

Request = TypeVar("Request")
Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class StreamTimes:
    retry_timeout_s: float = 30.0
    keep_alive_s: float = 5.0
    welcome_timeout_s: float = 5.0
    silence_s: float = 15.0
    goodbye_timeout_s: float = 2.0


class Item(Generic[Answer]):
    """One thing asked for. `sends` counts how often it went out; `lane` keeps its order; a
    `patient` one never expires."""

    __slots__ = ("lane", "patient", "pending", "sends", "since")

    def __init__(self, lane: int = 0, *, patient: bool = False) -> None:
        self.patient = patient
        self.pending: Pending[Answer] = Pending()
        self.lane = lane
        self.sends = 0
        self.since = time.monotonic()


AnyItem = TypeVar("AnyItem", bound=Item[Any])


class _Link:
    """One life of the stream: from a call to its end."""

    def __init__(self) -> None:
        self.started = self.heard = self.spoke = self.kept_alive = time.monotonic()
        self.call: Any = None
        self.open = False
        self.closed = False
        self.answered = False
        self.forked = False  # ends because this process forks

    def cancel(self) -> None:
        if self.call is not None:
            with GATE.inside():
                self.call.cancel()

    @property
    def useful(self) -> bool:
        """Whether its end is news. One that ends at once, again and again, without an answer
        (what was asked breaks the daemon) is one long outage: delays grow, and callers get an
        error in the end."""
        return self.open and (self.answered or time.monotonic() - self.started > USEFUL_S)


class Stream(ABC, Generic[AnyItem, Request, Reply]):
    keeps_alive: ClassVar[bool] = False
    """Whether the daemon answers keep-alives; else gRPC's own pings find a dead peer."""
    renews = False
    """Whether keep-alives are sent although other messages are."""

    def __init__(
        self,
        name: str,
        times: StreamTimes,
        delays: Callable[[], Iterator[float]],
        *,
        lanes: int = 1,
    ) -> None:
        self.name = name
        self.times = times
        self._delays = delays
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._lanes: tuple[deque[AnyItem], ...] = tuple(deque() for _ in range(lanes))
        self._sent: dict[int, list[AnyItem]] = {}
        self._link: _Link | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._retry_now = threading.Event()
        self._refusal: BaseException | None = None
        self._down_since = time.monotonic()
        self._last_error = FsError(Code.UNAVAILABLE, "not connected yet")
        self._keep_alive_due = False
        self._said: deque[Request] = deque()
        self.messages_sent = 0
        self.reconnects = 0

    # ---- what a daemon's protocol adds

    @abstractmethod
    def _call(self, requests: Iterator[Request]) -> Any:  # noqa: ANN401
        """Opens the call; what it returns iterates replies and has `cancel`. Reader thread."""

    @abstractmethod
    def _hang_up(self) -> None:
        """After the end of a call: closes what `_call` opened."""

    @abstractmethod
    def _hello(self) -> Request:
        """The first message of every call."""

    @abstractmethod
    def _welcome(self, reply: Reply) -> None:
        """The answer to it. An FsError ends this call. Called under the lock, so that it can put
        items into the lanes before anything is sent."""

    @abstractmethod
    def _take(self) -> Request | None:
        """The next message out of the lanes, noted in `_sent`; None: nothing to send. Called
        under the lock."""

    @abstractmethod
    def _answer(self, reply: Reply) -> None:
        """A reply after the first. An FsError ends this call. Reader thread, no lock held."""

    def _keep_alive(self) -> Request | None:
        return None

    def _goodbye(self) -> Request | None:
        return None

    def _parted(self) -> None:
        """Between two calls, whyever the first has ended."""

    def _broken(self, error: FsError) -> None:
        """Between two calls, everything unanswered being back in the lanes: time to get a new
        token, address or session. An FsError counts as a failed attempt."""

    def _given_up(self, item: AnyItem) -> None:
        """Called under the lock when an item is failed without an answer."""

    def _refuses(self, item: AnyItem) -> FsError | None:
        """Called under the lock: why an item is not even taken."""
        return None

    # ---- for callers

    def submit(self, items: Iterable[AnyItem]) -> None:
        refused: list[tuple[AnyItem, FsError]] = []
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            for item in items:
                error = self._refuses(item)
                if error is None:
                    self._lanes[item.lane].append(item)
                else:
                    refused.append((item, error))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._read, name=f"superfs {self.name}", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        for item, error in refused:
            item.pending.fail(error)

    def say(self, request: Request) -> None:
        """Ahead of what waits, and about this link only: when it breaks it is dropped."""
        with self._lock:
            link = self._link
            if link is not None and link.open:
                self._said.append(request)
                self._changed.notify()

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.open

    def tick(self) -> None:
        """Called about twice a second: expiry, keep-alive, links that say nothing."""
        now = time.monotonic()
        doomed: list[AnyItem] = []
        with self._lock:
            link = self._link
            if link is not None and link.open:
                since = link.kept_alive if self.renews else link.spoke
                if self.keeps_alive and now - since >= self.times.keep_alive_s:
                    self._keep_alive_due = True
                silent = self.keeps_alive and link.spoke > link.heard
                hang = silent and now - link.heard > self.times.silence_s
            else:
                hang = link is not None and now - link.started > self.times.welcome_timeout_s
                doomed = self._expired(now)
            self._changed.notify_all()
            error = self._last_error
        if hang and link is not None:
            link.cancel()
        for item in doomed:
            item.pending.fail(FsError(error.code, error.detail))

    def refuse(self, error: BaseException) -> None:
        """From now on nothing is accepted. In a child after fork: whoever held the lock there is
        not here to release it."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._refusal = error

    def close(self) -> None:
        """Says goodbye, ends the threads, fails what is left."""
        with self._lock:
            self._closing = True
            if self._refusal is None:
                self._refusal = FsError(Code.UNAVAILABLE, "the connection was closed")
            link, thread = self._link, self._thread
            polite = link is not None and link.open
            self._changed.notify_all()
        self._retry_now.set()
        if thread is not None:
            if polite:
                thread.join(self.times.goodbye_timeout_s)
            if link is not None:
                link.cancel()
            thread.join()
        with self._lock:
            left = [item for lane in self._lanes for item in lane]
            for lane in self._lanes:
                lane.clear()
        for item in left:
            item.pending.fail(FsError(Code.UNAVAILABLE, "the connection was closed"))

    # ---- threads

    def _requests(self, link: _Link) -> Iterator[Request]:
        """In gRPC's sending thread of this call."""
        yield self._hello()
        while True:
            last = False
            with self._changed:
                while True:
                    if link.closed:
                        return
                    request = self._next(link) if link.open else None
                    if request is None and self._closing:
                        request, last = (self._goodbye() if link.open else None), True
                        break
                    if request is not None:
                        break
                    self._changed.wait()
                link.spoke = time.monotonic()
                self.messages_sent += 1
            if request is not None:
                yield request
            if last:
                return

    def _next(self, link: _Link) -> Request | None:
        if self._said:
            return self._said.popleft()
        link.forked = link.forked and GATE.is_shut  # there are forks that wait for no end
        if link.forked:
            return None
        if self._keep_alive_due:
            self._keep_alive_due = False
            link.kept_alive = time.monotonic()
            request = self._keep_alive()
            if request is not None:
                return request
        return self._take()

    def _read(self) -> None:
        delays = self._delays()
        while not self._closing:
            with GATE.inside(self._make_way):
                link = _Link()
                error = self._converse(link)
                with self._lock:
                    lived, useful = link.open, link.useful
                    link.closed = True
                    link.open = False
                    self._link = None
                    self._said.clear()
                    if useful:
                        self._down_since = time.monotonic()
                    self._last_error = error
                    self._restore()
                    self._changed.notify_all()
                self._hang_up()
            if self._closing:
                return
            if lived and not link.forked:
                self.reconnects += 1
                if useful:
                    delays = self._delays()
                log.info("%s: connection lost (%s), connecting again", self.name, error)
            self._parted()
            if link.forked:
                continue
            try:
                self._broken(error)
            except FsError as failure:
                self._last_error = failure
            self._retry_now.wait(next(delays))

    def _make_way(self, waited_s: float) -> None:
        """For a fork: nothing more is sent, and when all is answered it hangs up."""
        link = self._link
        if link is None:
            return
        link.forked = True
        if link.call is not None and (waited_s >= PATIENCE_S or (link.open and not self._sent)):
            link.call.cancel()

    def _converse(self, link: _Link) -> FsError:
        """One call from beginning to end; says why it ended."""
        try:
            with self._lock:
                if self._closing:
                    return self._last_error
                self._link = link
                self._keep_alive_due = False
            link.call = self._call(self._requests(link))
            if self._closing:  # `close` may have found no call to cancel
                link.call.cancel()
            for reply in link.call:
                link.heard = time.monotonic()
                if link.open:
                    link.answered = True
                    self._answer(reply)
                    continue
                with self._changed:
                    self._welcome(reply)
                    link.open = True
                    self._changed.notify_all()
            return FsError(Code.UNAVAILABLE, "the daemon ended the stream")
        except grpc.RpcError as error:
            return from_rpc(error)
        except FsError as error:
            if link.call is not None:
                link.call.cancel()
            return error
        except Exception as error:
            # A bug here must not leave callers waiting for ever without a word.
            log.exception("%s: the reader failed", self.name)
            if link.call is not None:
                link.call.cancel()
            return FsError(Code.INTERNAL, f"{type(error).__name__}: {error}")

    def _restore(self) -> None:
        """Puts back what has no answer, ahead of what was never sent, in the order it was sent."""
        back = [item for items in self._sent.values() for item in items if not item.pending.done]
        self._sent.clear()
        for item in reversed(back):
            self._lanes[item.lane].appendleft(item)

    def _expired(self, now: float) -> list[AnyItem]:
        doomed: set[AnyItem] = set()
        for lane in self._lanes:
            for item in lane:
                limit = max(item.since, self._down_since) + self.times.retry_timeout_s
                if now > limit and not item.patient:
                    doomed.add(item)
                    self._given_up(item)
            if doomed:
                kept = [item for item in lane if item not in doomed]
                lane.clear()
                lane.extend(kept)
        return list(doomed)
