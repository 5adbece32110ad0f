"""The session stream against a metadata daemon that breaks it at the worst moments."""

from __future__ import annotations

import contextlib
import itertools
import random
import tempfile
import threading
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from superfs.client import ops
from superfs.client.meta import MetaClient
from superfs.client.retry import delays
from superfs.client.session import MetaStream, OpItem, Session
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.core.limits import REPLY_WINDOW_OPS
from superfs.core.namespace.txn import Caller, Ref
from superfs.rpc.background import Background
from superfs.rpc.errors import message_of, status_of, trailing_metadata
from superfs.rpc.pending import Pending, gather, run_sync
from superfs.rpc.stream import StreamTimes
from superfs.v1 import meta_pb2, meta_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.client.leases import LeaseHolder

TOP = Ref(ROOT, 1, ROOT)
TOKENS = itertools.count(1)


class FlakyMeta(meta_pb2_grpc.MetaServicer):
    """Runs each (session, seq) once, keeps its reply, and breaks streams as `plan` says: before
    a batch is run, after it was run and before it is answered, or not at all."""

    def __init__(self) -> None:
        self.ran: dict[tuple[str, int], meta_pb2.Result] = {}
        self.executed: list[str] = []
        self.plan: list[str] = []
        self.codes: list[Code] = []  # given instead of running, one an operation
        self.expired: set[str] = set()
        self.batches: list[meta_pb2.Batch] = []
        self.hellos: list[meta_pb2.Hello] = []
        self.goodbyes = 0
        self.path = ""
        self._lock = threading.Lock()

    def Session(
        self, requests: Iterator[meta_pb2.SessionRequest], context: grpc.ServicerContext
    ) -> Iterator[meta_pb2.SessionReply]:
        token = dict(context.invocation_metadata())["token"]
        for request in requests:
            kind = request.WhichOneof("body")
            if kind == "hello":
                if token in self.expired:
                    self._abort(context, Code.SESSION_EXPIRED)
                self.hellos.append(request.hello)
                yield meta_pb2.SessionReply(welcome=meta_pb2.Welcome(protocol=1))
            elif kind == "batch":
                with self._lock:
                    step = self.plan.pop(0) if self.plan else ""
                    if step == "before":
                        self._abort(context, Code.UNAVAILABLE)
                    self.batches.append(request.batch)
                    results = [self._run(str(token), op) for op in request.batch.ops]
                if step == "after":
                    self._abort(context, Code.UNAVAILABLE)
                reply = meta_pb2.BatchReply(batch=request.batch.batch, results=results)
                yield meta_pb2.SessionReply(batch=reply)
            elif kind == "keep_alive":
                yield meta_pb2.SessionReply(keep_alive=request.keep_alive)
            else:
                self.goodbyes += 1
                return

    def _abort(self, context: grpc.ServicerContext, code: Code) -> None:
        error = FsError(code)
        context.set_trailing_metadata(trailing_metadata(error))
        context.abort(status_of(code), message_of(error))

    def _run(self, token: str, op: meta_pb2.Op) -> meta_pb2.Result:
        if not op.seq:
            return meta_pb2.Result(number=7)
        known = self.ran.get((token, op.seq))
        if known is not None:
            return known
        if self.codes:
            result = meta_pb2.Result(code=self.codes.pop(0))
        else:
            self.executed.append(op.mkdir.name.decode())
            result = meta_pb2.Result(number=len(self.executed))
        self.ran[token, op.seq] = result
        return result


class World:
    """Connection, as far as the stream and the verbs need one."""

    def __init__(self, path: str, times: StreamTimes) -> None:
        self.path = path
        self.retry_timeout_s = times.retry_timeout_s
        self.caller = Caller()
        self.background = Background("test timers")
        self.session = Session(1, str(next(TOKENS)).encode(), 0)
        self.lease_holder: LeaseHolder | None = None
        self.shipping = None
        self.recovered: list[Code] = []
        self.stream = MetaStream(self, 1, "test", times, self._delays)
        self.meta = MetaClient(self)
        self.background.call_later(0.02, self._tick)

    def _tick(self) -> None:
        self.stream.tick()
        with contextlib.suppress(FsError):  # closed meanwhile
            self.background.call_later(0.02, self._tick)

    def _delays(self) -> Iterator[float]:
        return delays(random.Random(1), first_s=0.001, last_s=0.02)

    def delays(self) -> Iterator[float]:
        return self._delays()

    def meta_stream(self, _key: int) -> MetaStream:
        return self.stream

    def sleep(self, seconds: float) -> Pending[None]:
        return self.background.sleep(seconds)

    async def refresh_map(self) -> None:
        self.recovered.append(Code.WRONG_OWNER)

    def dead_sessions(self) -> list[int]:
        return []

    def open_refs(self) -> list[Ref]:
        return self.meta.open_refs

    def welcomed(self, node_id: int, welcome: meta_pb2.Welcome) -> None:
        assert (node_id, welcome.protocol) == (1, 1)

    def recover(self, error: FsError, session: Session) -> None:
        self.recovered.append(error.code)
        if error.code is Code.SESSION_EXPIRED and self.session is session:
            self.session = Session(session.id + 1, str(next(TOKENS)).encode(), 0)

    def open_meta_call(
        self, node_id: int, requests: Iterator[meta_pb2.SessionRequest]
    ) -> tuple[Any, Callable[[], None]]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(f"unix:{self.path}", options=options)
        stub = meta_pb2_grpc.MetaStub(channel)
        call = stub.Session(requests, metadata=(("token", self.session.token.decode()),))
        return call, channel.close

    def mkdir(self, name: str) -> int:
        return run_sync(self.meta.mkdir(TOP, name.encode(), 0o755)).number

    def close(self) -> None:
        self.background.close()
        self.stream.close()


@pytest.fixture
def daemon() -> Iterator[FlakyMeta]:
    """Its socket's path is `daemon.path`."""
    servicer = FlakyMeta()
    with tempfile.TemporaryDirectory(prefix="sfs", dir="/tmp") as folder:
        server = grpc.server(futures.ThreadPoolExecutor(8))
        meta_pb2_grpc.add_MetaServicer_to_server(servicer, server)
        path = str(Path(folder) / "meta.sock")
        server.add_insecure_port(f"unix:{path}")
        server.start()
        servicer.path = path
        yield servicer
        server.stop(None).wait()


@pytest.fixture
def world(daemon: FlakyMeta) -> Iterator[World]:
    world = World(daemon.path, StreamTimes(retry_timeout_s=5.0, keep_alive_s=1.0))
    yield world
    world.close()


@pytest.mark.parametrize("step", ["before", "after"])
def test_a_broken_batch_runs_exactly_once(daemon: FlakyMeta, world: World, step: str) -> None:
    world.mkdir("first")
    daemon.plan = [step] * 3
    assert world.mkdir("second") == 2
    assert daemon.executed == ["first", "second"]
    assert world.stream.reconnects >= 3


def test_breaks_at_random_under_many_callers(daemon: FlakyMeta, world: World) -> None:
    rng = random.Random(7)
    daemon.plan = [rng.choice(["before", "after", "", ""]) for _ in range(40)]

    async def work(number: int) -> None:
        for turn in range(10):
            await world.meta.mkdir(TOP, b"%d-%d" % (number, turn), 0o755)
            assert (await world.meta.getattr(TOP)).number == 7

    run_sync(gather([work(number) for number in range(20)]))
    assert sorted(daemon.executed) == sorted(f"{n}-{t}" for n in range(20) for t in range(10))
    for number in range(20):
        mine = [name for name in daemon.executed if name.startswith(f"{number}-")]
        assert mine == [f"{number}-{turn}" for turn in range(10)]


def test_what_waits_together_travels_together(daemon: FlakyMeta, world: World) -> None:
    run_sync(world.meta.run_many([ops.lookup(TOP, b"%d" % n) for n in range(10)]))
    assert [len(batch.ops) for batch in daemon.batches] == [10]
    assert all(op.seq == 0 for op in daemon.batches[0].ops)


def test_logs_go_alone(world: World) -> None:
    """After its start a daemon holds every other change until the logs have come."""
    mkdir, part = meta_pb2.Op(mkdir={}), meta_pb2.Op(log={})
    for op in (mkdir, part, part, mkdir):
        world.stream._lanes[1].append(OpItem(op, mutates=True, lane=1))
    batches = [world.stream._pack(1) for _ in range(4)]
    packed = [[op.WhichOneof("verb") for op in batch.ops] for batch in batches if batch]
    assert packed == [["mkdir"], ["log", "log"], ["mkdir"]]


def test_acked_below_follows_the_answers(daemon: FlakyMeta, world: World) -> None:
    for number in range(5):
        world.mkdir(str(number))
    assert daemon.batches[-1].acked_below == daemon.batches[-1].ops[0].seq == 5


def test_asking_again_is_a_new_operation(daemon: FlakyMeta, world: World) -> None:
    daemon.codes = [Code.BUSY, Code.GRACE, Code.WRONG_OWNER]
    assert world.mkdir("a") == 1
    assert [batch.ops[0].seq for batch in daemon.batches] == [1, 2, 3, 4]
    assert Code.WRONG_OWNER in world.recovered


def test_publish_hands_busy_to_its_caller(daemon: FlakyMeta, world: World) -> None:
    daemon.codes = [Code.BUSY]
    with pytest.raises(FsError, match="BUSY"):
        run_sync(world.meta.publish(TOP, 1, size=1))


def test_other_errors_are_not_asked_again(daemon: FlakyMeta, world: World) -> None:
    daemon.codes = [Code.NOT_EMPTY]
    with pytest.raises(FsError, match="NOT_EMPTY"):
        world.mkdir("a")
    assert len(daemon.batches) == 1


@pytest.mark.allow_log("not known whether mkdir was done")
def test_an_expired_session_does_not_repeat_what_may_have_run(
    daemon: FlakyMeta, world: World
) -> None:
    world.mkdir("first")
    daemon.expired.add(world.session.token.decode())
    daemon.plan = ["after"]
    with pytest.raises(FsError, match="session expired") as caught:
        world.mkdir("second")
    assert caught.value.code is Code.IO
    assert daemon.executed == ["first", "second"]
    assert world.mkdir("third") == 3  # in a new session, from number 1
    assert daemon.batches[-1].ops[0].seq == 1


def test_an_operation_refused_by_an_expired_session_runs_in_the_next(
    daemon: FlakyMeta, world: World
) -> None:
    world.mkdir("first")
    daemon.codes = [Code.SESSION_EXPIRED]
    assert world.mkdir("second") == 2
    assert daemon.executed == ["first", "second"]


@pytest.mark.parametrize("step", ["never sent", "refused", "not known"])
def test_what_is_bound_to_a_session_ends_with_it(
    daemon: FlakyMeta, world: World, step: str
) -> None:
    """Bytes that were written long ago: the next session has to look at the file first."""
    world.mkdir("first")
    session = world.session
    if step == "never sent":
        world.session = Session(9, b"another", 0)
    elif step == "refused":
        daemon.codes = [Code.SESSION_EXPIRED]
    else:
        daemon.expired.add(session.token.decode())
        daemon.plan = ["after"]
    with pytest.raises(FsError) as caught:
        run_sync(world.meta.publish(TOP, 1, size=1, session=session))
    assert caught.value.code is Code.SESSION_EXPIRED
    sent = [
        op for batch in daemon.batches for op in batch.ops if op.WhichOneof("verb") == "publish"
    ]
    assert len(sent) == (step != "never sent")


def test_what_is_open_is_said_again(daemon: FlakyMeta, world: World) -> None:
    run_sync(world.meta.open(TOP))
    daemon.plan = ["before"]
    world.mkdir("a")
    assert [ref.ino for ref in daemon.hellos[-1].open] == [TOP.ino]
    run_sync(world.meta.release([TOP]))
    daemon.plan = ["before"]
    world.mkdir("b")
    assert not daemon.hellos[-1].open


def test_nobody_there_is_an_error_after_the_budget(tmp_path: Path) -> None:
    world = World(str(tmp_path / "none.sock"), StreamTimes(retry_timeout_s=0.2))
    with pytest.raises(FsError, match="UNAVAILABLE"):
        world.mkdir("a")
    world.close()


def test_what_breaks_the_daemon_every_time_is_an_error_after_the_budget(daemon: FlakyMeta) -> None:
    """It welcomes, and fails on the batch, for ever: no endless hammering."""
    world = World(daemon.path, StreamTimes(retry_timeout_s=0.4))
    daemon.plan = ["before"] * 10_000
    with pytest.raises(FsError):
        world.mkdir("poison")
    assert world.stream.reconnects < 200
    world.close()


def test_the_window_of_replies_is_never_exceeded() -> None:
    session = Session(1, b"", 0)
    taken = [session.take() for _ in range(REPLY_WINDOW_OPS)]
    assert taken == list(range(1, REPLY_WINDOW_OPS + 1))
    assert session.take() == 0
    session.done(2)
    assert session.take() == 0, "the oldest is still open"
    session.done(1)
    assert session.take() == REPLY_WINDOW_OPS + 1
    assert session.acked_below == 3


def test_close_says_goodbye_and_fails_what_waits(daemon: FlakyMeta, world: World) -> None:
    world.mkdir("a")
    world.close()
    assert daemon.goodbyes == 1
    with pytest.raises(FsError, match="closed"):
        world.stream.submit([OpItem(meta_pb2.Op(), mutates=False, lane=0)])
