"""R-workers and S-workers that die, stop, or have no room: no wrong token, nothing left held."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from harness.fastmodels import (  # noqa: E402 - it needs both
    BATCH,
    TOKENS_MAX,
    Plain,
    Workers,
    local,
    make_model,
    make_prompt,
)
from harness.waiting import wait_until  # noqa: E402
from superfs.core.errors import Code, FsError  # noqa: E402
from superfs.core.limits import MIB  # noqa: E402
from superfs.kvcache.fastdecode.engine import Engine  # noqa: E402
from superfs.kvcache.fastdecode.placing import EngineConfig  # noqa: E402
from superfs.kvcache.fastdecode.sampling import Sampling  # noqa: E402
from superfs.kvcache.fastdecode.smodel import SModel  # noqa: E402
from superfs.rpc import packets  # noqa: E402
from superfs.v1 import fastdecode_pb2 as pb  # noqa: E402

if TYPE_CHECKING:
    from superfs.kvcache.fastdecode.requests import Request

pytestmark = [pytest.mark.slow]

CONFIG = EngineConfig(batch=BATCH, tokens_max=TOKENS_MAX, chunk_tokens=64)
GREEDY = Sampling(max_tokens=40, ignore_eos=True)


def check(model: Any, asked: list[Request]) -> None:  # noqa: ANN401
    plain = Plain(model)
    for request in asked:
        assert request.finish == "length", request.error
        plain.check(request.tokens[: request.prompt_tokens], request.generated)
    assert plain.close <= 1


@pytest.mark.allow_log("computed again")
@pytest.mark.parametrize("what", ["killed", "stopped"])
@pytest.mark.parametrize("turns", [0, 1, 7, 50])
def test_a_worker_is_lost(workers: Workers, what: str, turns: int) -> None:
    model = make_model()
    part = SModel(model)
    for name in ("one", "two"):
        workers.start(name)
    patience = {"patience_s": 0.5} if what == "stopped" else {}
    links = [workers.link(part, name, **patience) for name in ("one", "two")]
    with Engine(part, links, CONFIG) as engine:
        asked = [engine.submit(make_prompt(3 + 9 * n, n), GREEDY) for n in range(10)]
        for _ in range(turns):
            engine.advance()
        number = signal.SIGKILL if what == "killed" else signal.SIGSTOP
        os.kill(workers.daemons["one"].pid, number)
        engine.run()
        again = sum(request.computed_again for request in asked)
        assert 0 < again <= len(asked)
        assert engine.figures.computed_again == again
        assert sum(place.lost for place in engine.placing.places) == 1
    check(model, asked)


@pytest.mark.allow_log("computed again")
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_worker_is_there_again(workers: Workers, elsewhere: bool) -> None:
    """It stood still for longer than anybody waits: then it gets sequences once more."""
    model = make_model()
    part = SModel(model)
    for name in ("one", "two"):
        workers.start(name, **({"listen": "127.0.0.1:0"} if elsewhere else {}))
    opened = workers.stream if elsewhere else workers.link
    links = [opened(part, name, patience_s=s) for name, s in (("one", 0.5), ("two", 60.0))]
    with Engine(part, links, CONFIG) as engine:
        asked = [engine.submit(make_prompt(3 + 9 * n, n), GREEDY) for n in range(10)]
        for _ in range(9):
            engine.advance()
        os.kill(workers.daemons["one"].pid, signal.SIGSTOP)
        engine.run()
        lost = engine.placing.places[0]
        assert lost.lost
        os.kill(workers.daemons["one"].pid, signal.SIGCONT)

        def back() -> bool:
            engine.advance()
            return not lost.lost

        wait_until(back, "it is there again")
        asked += [engine.submit(make_prompt(5 + 9 * n, n), GREEDY) for n in range(10)]
        engine.run()
        assert lost.link.counters.rows
    check(model, asked)


@pytest.mark.allow_log("computed again")
def test_every_worker_is_lost(workers: Workers) -> None:
    part = SModel(make_model())
    workers.start("one")
    with Engine(part, [workers.link(part, "one")], CONFIG) as engine:
        asked = [engine.submit(make_prompt(20, n), GREEDY) for n in range(3)]
        for _ in range(9):
            engine.advance()
        workers.daemons["one"].kill()
        engine.run()
        for request in asked:
            assert request.finish == "failed"
            assert request.error is not None
            assert request.error.code is Code.UNAVAILABLE
        with pytest.raises(FsError):
            list(engine.stream(asked[0]))
        with pytest.raises(FsError):
            engine.submit([1], GREEDY)


@pytest.mark.allow_log("computed again")
def test_the_only_worker_is_started_again(workers: Workers) -> None:
    """Requests fail meanwhile; asking is enough for the engine to look."""
    model = make_model()
    part = SModel(model)
    workers.start("one")
    asked: list[Request] = []
    with Engine(part, [workers.link(part, "one")], CONFIG) as engine:
        failed = engine.submit(make_prompt(20), GREEDY)
        for _ in range(9):
            engine.advance()
        workers.daemons["one"].kill()
        engine.run()
        assert failed.finish == "failed"
        workers.start("one")

        def taken() -> bool:
            try:
                asked.append(engine.submit(make_prompt(30), GREEDY))
            except FsError as error:
                if error.code is not Code.NO_SPACE:
                    raise
                return False
            return True

        wait_until(taken, "it is there again")
        engine.run()
    check(model, asked)


@pytest.mark.allow_log("computed again")
def test_the_local_share_takes_over(workers: Workers) -> None:
    model = make_model()
    part = SModel(model)
    workers.start("one")
    with Engine(part, [workers.link(part, "one"), local(part)], CONFIG) as engine:
        asked = [engine.submit(make_prompt(20 + n, n), GREEDY) for n in range(6)]
        for _ in range(9):
            engine.advance()
        workers.daemons["one"].kill()
        engine.run()
    check(model, asked)


SERVING = """
import sys
from pathlib import Path
from harness.fastmodels import Workers, make_model, make_prompt
from superfs.kvcache.fastdecode.engine import Engine
from superfs.kvcache.fastdecode.placing import EngineConfig
from superfs.kvcache.fastdecode.sampling import Sampling
from superfs.kvcache.fastdecode.smodel import SModel
part = SModel(make_model())
link = Workers(Path(sys.argv[1])).link(part, "one", tokens_max=12_000)
engine = Engine(part, [link], EngineConfig(batch=12, tokens_max=12_000))
engine.submit(make_prompt(50), Sampling(max_tokens=10_000, ignore_eos=True))
for _ in range(50):
    engine.advance()
print("decoding", flush=True)
sys.stdin.read() if len(sys.argv) > 2 else engine.run()
"""


@pytest.mark.parametrize("silent", [False, True])
def test_the_s_worker_is_lost(workers: Workers, silent: bool) -> None:
    """What it had is free: at once when it is killed, within the lease when it says nothing."""
    path = workers.start("one", lease_s=2.0 if silent else 600.0)
    part = SModel(make_model())
    top = Path(__file__).parents[2]
    roots = ("proto", "clients", "tests")
    command = [sys.executable, "-c", SERVING, str(path.parent), *(["silent"] if silent else [])]
    serving = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": ":".join(str(top / root) for root in roots)},
    )  # fmt: skip
    assert serving.stdin is not None
    assert serving.stdout is not None
    with serving:
        assert serving.stdout.readline() == "decoding\n"
        if not silent:
            with pytest.raises(FsError) as refused:
                workers.link(part, "one")
            assert refused.value.code is Code.NO_SPACE, "it had all the memory"
            serving.kill()

        def free() -> bool:
            try:
                workers.link(part, "one", memory_bytes=16 * MIB).close()
            except FsError as error:
                if error.code is not Code.NO_SPACE:
                    raise
                return False
            return True

        wait_until(free, "the memory is free")
        if silent:
            assert serving.poll() is None
            serving.kill()


def test_no_room_on_a_worker(workers: Workers) -> None:
    """It refuses, and goes on serving."""
    part = SModel(make_model())
    workers.start("one", memory_bytes=2 * MIB)
    with pytest.raises(FsError, match="memory_bytes") as refused:
        workers.link(part, "one", memory_bytes=3 * MIB)
    assert refused.value.code is Code.NO_SPACE
    workers.start("two", memory_bytes=1 << 49)
    with pytest.raises(FsError, match="available"):
        workers.link(part, "two")
    links = [workers.link(part, "one", memory_bytes=MIB) for _ in range(2)]
    with pytest.raises(FsError, match="left"):
        workers.link(part, "one", memory_bytes=MIB)
    for link in links:
        link.close()
    workers.link(part, "one", memory_bytes=2 * MIB).close()


def test_little_memory_for_many(workers: Workers) -> None:
    """Sequences wait until others have ended; nothing is ever lost, or computed twice."""
    model = make_model()
    part = SModel(model)
    workers.start("one", memory_bytes=MIB)  # 40 pages of 24 KiB
    with Engine(part, [workers.link(part, "one")], CONFIG) as engine:
        asked = [engine.submit(make_prompt(40 + n, n), GREEDY) for n in range(20)]
        engine.run()
        assert not engine.figures.computed_again
    check(model, asked)


@pytest.mark.parametrize("message", [
    b"\xff" * 40,
    b"",
    pb.RwRequest().SerializeToString() + b"\x32\x00",
    pb.RwRequest(step=pb.RwStep(mini=9)).SerializeToString(),
    pb.RwRequest(fill=pb.RwFill(count=1)).SerializeToString(),
    pb.RwRequest(free=pb.RwFree(slots=[1 << 31])).SerializeToString(),
    pb.RwRequest(open=pb.RwOpen(layers=1 << 31)).SerializeToString(),
])  # fmt: skip
def test_hostile_messages(workers: Workers, message: bytes) -> None:
    """Whoever sends nonsense is sent away; the others are served."""
    part = SModel(make_model())
    path = workers.start("one")
    link = workers.link(part, "one", memory_bytes=MIB)
    with packets.local_socket() as peer:
        peer.settimeout(10)
        peer.connect(str(path))
        if message:
            peer.send(message)
        else:
            peer.shutdown(socket.SHUT_WR)
        said = peer.recv(4096)
        assert not said or pb.RwReply.FromString(said).code
        assert not said or not peer.recv(4096)
    with Engine(part, [link], CONFIG) as engine:
        request = engine.submit(make_prompt(9), GREEDY)
        engine.run()
        assert request.finish == "length"


@pytest.mark.parametrize("request_", [
    pb.RwRequest(step=pb.RwStep(mini=2)),
    pb.RwRequest(step=pb.RwStep(mini=0, layer=1)),
    pb.RwRequest(step=pb.RwStep(mini=0, slots=b"123")),
    pb.RwRequest(step=pb.RwStep(mini=0, slots=b"\xff" * 4)),
    pb.RwRequest(step=pb.RwStep(mini=0, slots=bytes(8))),
    pb.RwRequest(step=pb.RwStep(mini=0, slots=bytes(4 * 100))),
    pb.RwRequest(fill=pb.RwFill(count=1 << 31)),
    pb.RwRequest(fill=pb.RwFill(slot=1 << 30, count=1)),
    pb.RwRequest(fill=pb.RwFill(first=1 << 60, count=1)),
    pb.RwRequest(free=pb.RwFree(slots=[12])),
    pb.RwRequest(open=pb.RwOpen(layers=1)),
], ids=str)  # fmt: skip
def test_hostile_requests(workers: Workers, request_: pb.RwRequest) -> None:
    """After a proper start."""
    part = SModel(make_model())
    workers.start("one")
    link = workers.link(part, "one", memory_bytes=MIB)
    link._send(request_)
    with pytest.raises(FsError) as refused:
        link._receive(10)
    assert refused.value.code in (Code.BAD_REQUEST, Code.INVALID)
    link.close()
    workers.link(part, "one").close()
    assert workers.daemons["one"].running
