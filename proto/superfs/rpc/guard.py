"""What stands before every servicer: who calls, and what becomes of what it raises.

Every method but a health check and Cluster.Handshake needs a session token. A request that is no
protobuf message becomes INVALID_ARGUMENT, an `FsError` its status, anything else INTERNAL with its
trace in the log and nothing of it on the wire.

Servicers are coroutines, or async generators for streamed answers. Requests of unary calls are
parsed here and not by grpc.aio, which would put the exception's text into the status.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Protocol

import grpc

from superfs.core.errors import Code, FsError
from superfs.core.tokens import Authority, Grant, Purpose
from superfs.rpc.channel import TOKEN_KEY
from superfs.rpc.errors import message_of, status_of, trailing_metadata

OPEN_PREFIXES = ("/grpc.health.v1.Health/", "/superfs.v1.Cluster/Handshake")

STOPPING = "the daemon is stopping"
EXPIRED = "the token has expired"

log = logging.getLogger("superfs.rpc")

_grant: contextvars.ContextVar[Grant] = contextvars.ContextVar("superfs-grant")

Rpc = Callable[[Any, Any], Any]
Received = Callable[[str], None]
"""Told the method of every request that comes in: of a stream, of each of its messages."""


class Observer(Protocol):
    """Told of every finished call."""

    def __call__(self, method: str, code: Code, seconds: float) -> None: ...


def grant_of(context: Any) -> Grant:  # noqa: ANN401 - grpc's context, or a stand-in in a test
    """Who makes this call. Of a stand-in for grpc's context: its attribute `grant`."""
    grant = getattr(context, "grant", None)
    if isinstance(grant, Grant):
        return grant
    try:
        return _grant.get()
    except LookupError:
        raise FsError(Code.UNAUTHENTICATED, "a session token is needed") from None


class Guard(grpc.aio.ServerInterceptor):
    def __init__(
        self,
        authority: Authority,
        now_ns: Callable[[], int],
        observe: Observer | None = None,
        received: Received | None = None,
    ) -> None:
        self._authority = authority
        self._now_ns = now_ns
        self._observe = observe
        self._received = received
        self._streams: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        method: str = handler_call_details.method
        expires_ns = 0
        if not method.startswith(OPEN_PREFIXES):
            try:
                grant = self._authenticate(handler_call_details.invocation_metadata)
                _grant.set(grant)
                expires_ns = grant.expires_ns
            except FsError as error:
                self._seen(method, error.code, 0.0)
                return grpc.stream_stream_rpc_method_handler(_refuse(error))
        handler = await continuation(handler_call_details)
        if handler is None:
            missing = FsError(Code.NOT_SUPPORTED, "no such method")
            return grpc.stream_stream_rpc_method_handler(_refuse(missing))
        return self._guarded(method, handler, expires_ns)

    def end_streams(self) -> None:
        """Ends every open stream with UNAVAILABLE: clients connect again, to whoever answers."""
        self._stopping = True
        for task in self._streams:
            task.cancel()

    def _authenticate(self, metadata: Any) -> Grant:  # noqa: ANN401
        token = next((value for key, value in metadata or () if key == TOKEN_KEY), None)
        if not isinstance(token, bytes):
            raise FsError(Code.UNAUTHENTICATED, "a session token is needed")
        return self._authority.verify(Purpose.SESSION, token, self._now_ns())

    def _guarded(self, method: str, handler: Any, expires_ns: int) -> Any:  # noqa: ANN401
        serialize = handler.response_serializer
        parse = _parser(handler.request_deserializer, method, self._received)
        streams_in, streams_out = handler.request_streaming, handler.response_streaming
        inner: Rpc = (
            (handler.stream_stream if streams_out else handler.stream_unary)
            if streams_in
            else (handler.unary_stream if streams_out else handler.unary_unary)
        )
        generator = inspect.isasyncgenfunction(inner)
        assert generator or inspect.iscoroutinefunction(inner), f"{method} must be a coroutine"

        async def run(request: Any, context: Any) -> Any:  # noqa: ANN401
            if not streams_in:
                request = parse(request)
            if not generator:
                return await inner(request, context)
            async for answer in inner(request, context):
                await context.write(answer)
            return None

        stream = streams_in or streams_out
        guarded = self._converting(method, run, stream=stream, expires_ns=expires_ns)
        if streams_in and streams_out:
            return grpc.stream_stream_rpc_method_handler(guarded, parse, serialize)
        if streams_in:
            return grpc.stream_unary_rpc_method_handler(guarded, parse, serialize)
        if streams_out:
            return grpc.unary_stream_rpc_method_handler(guarded, None, serialize)
        return grpc.unary_unary_rpc_method_handler(guarded, None, serialize)

    def _converting(self, method: str, run: Rpc, *, stream: bool, expires_ns: int) -> Rpc:
        async def guarded(request: Any, context: Any) -> Any:  # noqa: ANN401
            started = time.monotonic()
            code = Code.OK
            task = asyncio.current_task()
            assert task is not None
            timer = _Timer(task)
            if stream:
                self._streams.add(task)
                if expires_ns:
                    timer.start((expires_ns - self._now_ns()) / 1e9)
            try:
                if stream and self._stopping:
                    raise FsError(Code.UNAVAILABLE, STOPPING)
                return await run(request, context)
            except FsError as error:
                code = error.code
                await abort(context, error)
            except grpc.aio.AbortError:
                code = Code.INTERNAL
                raise
            except asyncio.CancelledError:
                code = Code.UNAVAILABLE
                if not (stream and (self._stopping or timer.rang)):
                    raise
                task.uncancel()
                if not self._stopping:
                    code = Code.UNAUTHENTICATED
                await abort(context, FsError(code, STOPPING if self._stopping else EXPIRED))
            except grpc.aio.InternalError as error:
                code = Code.UNAVAILABLE
                log.info("%s: the caller is gone, an answer could not be sent: %s", method, error)
                await abort(context, FsError(code, "the call is over"))
            except Exception:
                code = Code.INTERNAL
                log.exception("an unexpected error in %s", method)
                await abort(context, FsError(code, "internal error; see the daemon's log"))
            finally:
                timer.stop()
                self._streams.discard(task)
                self._seen(method, code, time.monotonic() - started)

        return guarded

    def _seen(self, method: str, code: Code, seconds: float) -> None:
        if self._observe is not None:
            self._observe(method, code, seconds)


class _Timer:
    """Cancels the task of a stream when its token expires: nobody stays in for longer than a new
    call would get in. A client has renewed its token by then, and connects again."""

    __slots__ = ("_handle", "_task", "rang")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._handle: asyncio.TimerHandle | None = None
        self.rang = False

    def start(self, seconds: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(seconds, self._ring)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _ring(self) -> None:
        self.rang = True
        self._task.cancel()


def _parser(
    parse: Callable[[bytes], Any], method: str, received: Received | None
) -> Callable[[bytes], Any]:
    def checked(raw: bytes) -> Any:  # noqa: ANN401
        if received is not None:
            received(method)
        try:
            return parse(raw)
        except Exception:
            # The text of the exception is of no use to a client and may quote its bytes.
            raise FsError(Code.BAD_REQUEST, "not a protobuf message of this method") from None

    return checked


def _refuse(error: FsError) -> Rpc:
    """For any kind of method: on the wire a refusal looks the same for all four."""

    async def refuse(_request: Any, context: Any) -> NoReturn:  # noqa: ANN401
        await abort(context, error)

    return refuse


async def abort(context: Any, error: FsError) -> NoReturn:  # noqa: ANN401
    await context.abort(status_of(error.code), message_of(error), trailing_metadata(error))
    raise AssertionError("context.abort does not return")
