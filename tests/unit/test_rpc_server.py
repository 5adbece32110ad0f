"""The guard before every servicer, on a toy one over a real socket: whatever a client sends, it
gets a status of the contract, and never a word of our internals."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from superfs.core.errors import Code, FsError
from superfs.core.limits import MESSAGE_BYTES_MAX
from superfs.core.tokens import Authority, Grant, Purpose
from superfs.rpc.channel import choose_address, open_aio_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.rpc.server import GrpcServer, check_target, grant_of
from superfs.v1 import common_pb2, meta_pb2, meta_pb2_grpc

if TYPE_CHECKING:
    from superfs.rpc.guard import Observer, Received

AUTHORITY = Authority(bytes(32))
TOKEN = token_metadata(AUTHORITY.issue(Purpose.SESSION, Grant("host", "toy")))
SECRET = "the-inside-of-the-daemon"
STATUSES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
}


Context = Any  # grpc.aio.ServicerContext is generic for the type checker only
Metadata = tuple[tuple[str, str | bytes], ...]


class Toy(meta_pb2_grpc.MetaServicer):
    """`batch` says what is to happen."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def Execute(self, request: meta_pb2.Batch, context: Context) -> meta_pb2.BatchReply:
        if request.batch == 1:
            raise FsError(Code.NOT_EMPTY, "ключ")
        if request.batch == 2:
            raise RuntimeError(SECRET)
        if request.batch == 3:
            return meta_pb2.BatchReply(results=[meta_pb2.Result(data=bytes(5 << 20))])
        if request.batch == 4:
            self.waiting.set()
            await asyncio.sleep(0.3)
        return meta_pb2.BatchReply(batch=request.batch, commit=len(grant_of(context).name))

    async def Session(
        self, requests: AsyncIterator[meta_pb2.SessionRequest], context: Context
    ) -> AsyncIterator[meta_pb2.SessionReply]:
        async for request in requests:
            if request.batch.batch == 2:
                raise RuntimeError(SECRET)
            yield meta_pb2.SessionReply(batch=meta_pb2.BatchReply(batch=request.batch.batch))

    async def Check(
        self, request: meta_pb2.CheckRequest, context: Context
    ) -> AsyncIterator[common_pb2.Finding]:
        yield common_pb2.Finding(kind="one")
        raise FsError(Code.DAMAGED, "after the first")


class Running:
    def __init__(self, server: GrpcServer, channel: grpc.aio.Channel, toy: Toy) -> None:
        self.server, self.channel, self.toy = server, channel, toy
        self.stub: Any = meta_pb2_grpc.MetaStub(channel)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sfs", dir="/tmp"))
    yield path
    shutil.rmtree(path)


Body = Callable[[Running], Awaitable[None]]


def serve(
    directory: Path,
    body: Body,
    *,
    observe: Observer | None = None,
    received: Received | None = None,
    big: bool = False,
) -> None:
    async def run() -> None:
        toy = Toy()
        server = GrpcServer(
            [f"unix:{directory}/a.sock"], AUTHORITY, time.time_ns, observe, received
        )
        meta_pb2_grpc.add_MetaServicer_to_server(toy, server.grpc)
        await server.start()
        channel = open_aio_channel(server.addresses)
        if big:
            channel = grpc.aio.insecure_channel(
                server.addresses[0], [("grpc.max_send_message_length", -1)]
            )
        try:
            async with channel, asyncio.timeout(60):
                await body(Running(server, channel, toy))
        finally:
            await server.stop(1.0)

    asyncio.run(run())


async def iter_of(message: bytes) -> AsyncIterator[bytes]:
    yield message


async def status(stream: Any) -> grpc.StatusCode:  # noqa: ANN401
    try:
        async for _reply in stream:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    code: grpc.StatusCode = await stream.code()
    return code


async def failing(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def test_answers_and_errors_of_a_servicer(directory: Path) -> None:
    async def body(at: Running) -> None:
        reply = await at.stub.Execute(meta_pb2.Batch(batch=7), metadata=TOKEN)
        assert (reply.batch, reply.commit) == (7, 3)
        error = await failing(at.stub.Execute(meta_pb2.Batch(batch=1), metadata=TOKEN))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert (from_rpc(error).code, from_rpc(error).detail) == (Code.NOT_EMPTY, "ключ")
        error = await failing(at.stub.Execute(meta_pb2.Batch(batch=3), metadata=TOKEN))
        assert from_rpc(error).code is Code.TOO_LARGE
        check = at.stub.Check(meta_pb2.CheckRequest(), metadata=TOKEN)
        assert (await check.read()).kind == "one"
        assert from_rpc(await failing(check.read())).code is Code.DAMAGED

    serve(directory, body)


@pytest.mark.allow_log("unexpected error")
def test_unexpected_exceptions_show_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(at: Running) -> None:
        error = await failing(at.stub.Execute(meta_pb2.Batch(batch=2), metadata=TOKEN))
        shown = f"{error.details()}{error.trailing_metadata()}{error.debug_error_string()}"
        assert error.code() is grpc.StatusCode.INTERNAL
        assert SECRET not in shown
        assert "RuntimeError" not in shown
        stream = at.stub.Session(metadata=TOKEN)
        await stream.write(meta_pb2.SessionRequest(batch=meta_pb2.Batch(batch=2)))
        error = await failing(stream.read())
        assert error.code() is grpc.StatusCode.INTERNAL
        assert SECRET not in str(error)

    serve(directory, body)
    assert caplog.text.count(f"RuntimeError: {SECRET}") == 2


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        token_metadata(b""),
        token_metadata(b"junk"),
        token_metadata(AUTHORITY.issue(Purpose.FILE, Grant("host"))),
        token_metadata(AUTHORITY.issue(Purpose.CAPABILITY, Grant("host"))),
        token_metadata(AUTHORITY.issue(Purpose.SESSION, Grant("host", expires_ns=1))),
        token_metadata(Authority(b"x" * 32).issue(Purpose.SESSION, Grant("daemon"))),
        (("superfs-token", "text"),),
    ],
)
def test_no_method_without_a_token(directory: Path, metadata: Metadata | None) -> None:
    async def body(at: Running) -> None:
        methods = meta_pb2.DESCRIPTOR.services_by_name["Meta"].methods
        for name in [*(m.name for m in methods), "NoSuchMethod"]:
            call: Any = at.channel.stream_stream(f"/superfs.v1.Meta/{name}")(metadata=metadata)
            assert from_rpc(await failing(call.read())).code is Code.UNAUTHENTICATED
        health: Any = at.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await health(b"") == b"\x08\x01"  # SERVING

    serve(directory, body)


def test_every_message_of_a_stream_is_counted(directory: Path) -> None:
    received: list[str] = []
    message = meta_pb2.SessionRequest(batch=meta_pb2.Batch(batch=1)).SerializeToString()

    async def body(at: Running) -> None:
        async def messages() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield message

        await at.stub.Execute(meta_pb2.Batch(batch=9), metadata=TOKEN)
        stream: Any = at.channel.stream_stream("/superfs.v1.Meta/Session")
        assert await status(stream(messages(), metadata=TOKEN)) is grpc.StatusCode.OK

    serve(directory, body, received=received.append)
    assert received == ["/superfs.v1.Meta/Execute", *["/superfs.v1.Meta/Session"] * 5]


def test_an_unknown_method(directory: Path) -> None:
    seen: list[tuple[str, Code]] = []

    async def body(at: Running) -> None:
        call: Any = at.channel.unary_unary("/superfs.v1.Meta/Nope")
        error = await failing(call(b"", metadata=TOKEN))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    serve(directory, body, observe=lambda method, code, seconds: seen.append((method, code)))
    assert seen == []


def test_random_truncated_and_oversized_messages(directory: Path) -> None:
    rng = random.Random(20)
    whole = meta_pb2.Batch(
        batch=9, ops=[meta_pb2.Op(lookup=meta_pb2.Lookup(name=b"n" * 40)) for _ in range(3)]
    ).SerializeToString()
    messages = [whole[:cut] for cut in range(len(whole))]
    messages += [rng.randbytes(rng.randrange(60)) for _ in range(300)]
    messages += [b"\x1a\x80\x80\x80\x08" * 50, b"\x08" * 100_000, b"\x0a" * 1_000_000]
    messages += [bytes(MESSAGE_BYTES_MAX + 1), bytes(16 << 20)]

    async def body(at: Running) -> None:
        unary: Any = at.channel.unary_unary("/superfs.v1.Meta/Execute")
        stream: Any = at.channel.stream_stream("/superfs.v1.Meta/Session")
        for message in messages:
            call = unary(message, metadata=TOKEN)
            code = await call.code()
            assert code in STATUSES, (message[:50], code, await call.details())
            if len(message) > MESSAGE_BYTES_MAX:
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            session = stream(iter_of(message), metadata=TOKEN)
            code = await status(session)
            assert code in STATUSES, (message[:50], code, await session.details())
        assert (await at.stub.Execute(meta_pb2.Batch(batch=5), metadata=TOKEN)).batch == 5

    serve(directory, body, big=True)


def test_compressed_messages_are_not_unpacked(directory: Path) -> None:
    async def body(at: Running) -> None:
        channel = grpc.aio.insecure_channel(
            at.server.addresses[0],
            [("grpc.max_send_message_length", -1)],
            compression=grpc.Compression.Gzip,
        )
        async with channel:
            call: Any = channel.unary_unary("/superfs.v1.Meta/Execute")
            error = await failing(call(bytes(100 << 20), metadata=TOKEN))
        assert error.code() in (
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )

    serve(directory, body)


def test_huge_metadata_is_refused(directory: Path) -> None:
    async def body(at: Running) -> None:
        many = (*TOKEN, ("x-much", "y" * 100_000))
        error = await failing(at.stub.Execute(meta_pb2.Batch(), metadata=many))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await at.stub.Execute(meta_pb2.Batch(), metadata=TOKEN)

    serve(directory, body)


def test_stop_ends_streams_at_once_and_lets_calls_finish(directory: Path) -> None:
    async def body(at: Running) -> None:
        stream = at.stub.Session(metadata=TOKEN)
        await stream.write(meta_pb2.SessionRequest(batch=meta_pb2.Batch(batch=7)))
        assert (await stream.read()).batch.batch == 7
        call = at.stub.Execute(meta_pb2.Batch(batch=4), metadata=TOKEN)
        await at.toy.waiting.wait()
        stopping = asyncio.create_task(at.server.stop(5.0))
        error = from_rpc(await failing(stream.read()))
        assert (error.code, error.detail) == (Code.UNAVAILABLE, "the daemon is stopping")
        assert (await call).batch == 4
        async with asyncio.timeout(3):
            await stopping

    serve(directory, body)


def test_a_stream_ends_with_its_token(directory: Path) -> None:
    async def body(at: Running) -> None:
        expires_ns = time.time_ns() + 150_000_000
        grant = Grant("host", "toy", expires_ns=expires_ns)
        short = token_metadata(AUTHORITY.issue(Purpose.SESSION, grant))
        streams = [at.stub.Session(metadata=metadata) for metadata in (short, TOKEN)]
        for stream in streams:
            await stream.write(meta_pb2.SessionRequest(batch=meta_pb2.Batch(batch=7)))
            assert (await stream.read()).batch.batch == 7
        error = from_rpc(await failing(streams[0].read()))
        assert (error.code, error.detail) == (Code.UNAUTHENTICATED, "the token has expired")
        assert time.time_ns() >= expires_ns
        await streams[1].write(meta_pb2.SessionRequest(batch=meta_pb2.Batch(batch=8)))
        assert (await streams[1].read()).batch.batch == 8

    serve(directory, body)


def test_random_bytes_on_the_port_do_no_harm(directory: Path) -> None:
    rng = random.Random(4)

    async def body(at: Running) -> None:
        for _ in range(30):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(f"{directory}/a.sock")
                raw.sendall(rng.randbytes(rng.randrange(1, 3000)))
        await at.stub.Execute(meta_pb2.Batch(), metadata=TOKEN)

    serve(directory, body)


def test_addresses(directory: Path) -> None:
    live = directory / "live.sock"

    async def body() -> None:
        def make(address: str) -> GrpcServer:
            return GrpcServer([address], AUTHORITY, time.time_ns)

        live.touch()
        with pytest.raises(OSError, match="in the way"):
            await make(f"unix:{live}").start()
        live.unlink()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(live))
        first = make(f"unix:{live}")  # what a killed daemon left is no obstacle
        await first.start()
        with pytest.raises(OSError, match="another daemon already listens"):
            await make(f"unix:{live}").start()
        with pytest.raises(OSError, match="at most 107"):
            await make(f"unix:/tmp/{'x' * 120}").start()
        port = make("127.0.0.1:0")
        await port.start()
        with pytest.raises(OSError, match="cannot listen"):
            await make(port.addresses[0]).start()
        assert choose_address(["127.0.0.1:1", f"unix:{live}"]) == f"unix:{live}"
        await first.stop(0)
        await port.stop(0)
        assert choose_address(["unix:/none", "127.0.0.1:1"]) == "127.0.0.1:1"
        assert choose_address(["unix:/none", "unix:/other"]) == "unix:/none"

    asyncio.run(body())
    for bad in ("", "unix:rel", "host", "host:x", "host:70000", "/a/b:1", "unix:"):
        with pytest.raises(FsError):
            check_target(bad)
    with pytest.raises(FsError):
        choose_address([])
