"""Client channels: which of a daemon's addresses to take, and with which options.

Limits and keep-alive mirror `rpc/server.py`: a peer that lost its power is noticed within 20 s.
"""

from __future__ import annotations

import functools
import os
import stat
import weakref
from typing import TYPE_CHECKING, Any

import grpc

from superfs.core.errors import Code, FsError
from superfs.core.limits import MESSAGE_BYTES_MAX
from superfs.rpc.forks import GATE, PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

TOKEN_KEY = "superfs-token-bin"
KEEPALIVE_TIME_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_MS = 3_000
"""A daemon or a machine that is busy may need that long to answer a connection."""
METADATA_BYTES_MAX = 32 * 1024
LONG_S = 30.0
"""A call that may take that long is none of the quick ones."""
IDENTITY_ONLY = 1
"""Bit set of compression algorithms: none. Compressed data of a peer would have to be unpacked
before its size is known."""

Options = list[tuple[str, int | str]]


def common_options() -> Options:
    return [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.compression_enabled_algorithms_bitset", IDENTITY_ONLY),
    ]


def channel_options() -> Options:
    return [
        *common_options(),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),  # that is what gRPC takes it for
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.enable_retries", 0),  # a retry keeps its sequence number: ours to do, not gRPC's
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]


def choose_address(addresses: Sequence[str]) -> str:
    """A Unix socket that exists on this host, else the first address reached by network, else
    the first (its daemon may be about to start)."""
    for address in addresses:
        if address.startswith("unix:") and _is_socket(address.removeprefix("unix:")):
            return address
    for address in addresses:
        if not address.startswith("unix:"):
            return address
    if not addresses:
        raise FsError(Code.UNAVAILABLE, "no address is known for this daemon")
    return addresses[0]


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


class _Channel(grpc.Channel):
    """One whose calls a fork waits for, and that is refused in the child (rpc/forks.py)."""

    def __init__(self, channel: grpc.Channel, *, quick: bool) -> None:
        self._channel = channel
        self.quick = quick
        self._generation = GATE.generation

    def unary_unary(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return _Method(self, self._channel.unary_unary(*args, **options))

    def stream_unary(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return _Method(self, self._channel.stream_unary(*args, **options))

    def unary_stream(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return functools.partial(self.begin, self._channel.unary_stream(*args, **options))

    def stream_stream(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return functools.partial(self.begin, self._channel.stream_stream(*args, **options))

    def subscribe(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        self._channel.subscribe(*args, **options)

    def unsubscribe(self, callback: Any) -> None:  # noqa: ANN401
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        if self._generation == GATE.generation:  # else it is the parent's
            with GATE.inside():
                self._channel.close()

    def __enter__(self) -> _Channel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def check(self) -> None:
        if self._generation != GATE.generation:
            raise RuntimeError("this channel was opened before fork(); open another in the child")

    def begin(self, method: Any, request: Any, **options: Any) -> Any:  # noqa: ANN401
        """A call that goes on when this returns. A fork that has waited for long enough cancels
        it. Nobody has it here: a call that nobody has any more is cancelled by gRPC."""
        self.check()
        known: list[weakref.ref[Any]] = []

        def interrupt(waited_s: float) -> None:
            call = known[0]() if known and waited_s >= PATIENCE_S else None
            if call is not None:
                call.cancel()

        visit = GATE.enter(interrupt)

        def over() -> None:
            GATE.leaving()  # gRPC's thread, which has nothing else to do
            GATE.leave(visit)

        try:
            call = method(_noted(request) if hasattr(request, "__next__") else request, **options)
            if not call.add_callback(over):
                GATE.leave(visit)
        except BaseException:
            GATE.leave(visit)
            raise
        known.append(weakref.ref(call))
        return call


def _noted(requests: Iterator[Any]) -> Iterator[Any]:
    """In the thread that gRPC has for them."""
    GATE.leaving()
    yield from requests


class _Method:
    """One with one answer."""

    def __init__(self, channel: _Channel, method: Any) -> None:  # noqa: ANN401
        self._channel = channel
        self._method = method

    def __call__(self, request: Any, **options: Any) -> Any:  # noqa: ANN401
        quick = self._channel.quick and (options.get("timeout") or LONG_S) < LONG_S
        if hasattr(request, "__next__") or not quick:
            return self._patiently(request, **options)
        self._channel.check()
        with GATE.inside():
            return self._method(request, **options)

    def future(self, request: Any, **options: Any) -> Any:  # noqa: ANN401
        return self._channel.begin(self._method.future, request, **options)

    def _patiently(self, request: Any, **options: Any) -> Any:  # noqa: ANN401
        """So that a fork can cancel it."""
        call = self.future(request, **options)
        try:
            return call.result()
        except grpc.FutureCancelledError:
            raise call from None


def open_channel(addresses: Sequence[str], *, quick: bool = False) -> grpc.Channel:
    """`quick`: calls that block take less time, and a fork cannot cut them off: for those that are
    short and many."""
    target = choose_address(addresses)
    return _Channel(grpc.insecure_channel(target, options=channel_options()), quick=quick)


def open_aio_channel(addresses: Sequence[str]) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(choose_address(addresses), options=channel_options())


def token_metadata(token: bytes) -> tuple[tuple[str, bytes], ...]:
    """What every call but a handshake or a health check carries."""
    return ((TOKEN_KEY, token),)
