"""R-workers on other hosts: one stream each."""

from __future__ import annotations

import os
import signal
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from harness.cutoff import INSIDE, Cable  # noqa: E402
from harness.fastmodels import (  # noqa: E402 - it needs both
    BATCH,
    SECRET,
    TOKENS_MAX,
    Plain,
    Workers,
    make_model,
    make_prompt,
)
from harness.waiting import wait_until  # noqa: E402
from superfs.core.errors import Code, FsError  # noqa: E402
from superfs.core.limits import MIB  # noqa: E402
from superfs.kvcache.fastdecode import frames  # noqa: E402
from superfs.kvcache.fastdecode.engine import Engine  # noqa: E402
from superfs.kvcache.fastdecode.form import Area  # noqa: E402
from superfs.kvcache.fastdecode.link import opening_of  # noqa: E402
from superfs.kvcache.fastdecode.placing import EngineConfig  # noqa: E402
from superfs.kvcache.fastdecode.sampling import Sampling  # noqa: E402
from superfs.kvcache.fastdecode.smodel import SModel  # noqa: E402
from superfs.v1 import fastdecode_pb2 as pb  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from superfs.kvcache.fastdecode.link import Link
    from superfs.kvcache.fastdecode.requests import Request

pytestmark = [pytest.mark.slow]

HERE = "127.0.0.1:0"
GREEDY = Sampling(max_tokens=40, ignore_eos=True)


def served(
    part: SModel, links: Sequence[Link], turns: int = 0, then: Callable[[], None] | None = None,
    **more: Any,  # noqa: ANN401
) -> list[Request]:  # fmt: skip
    config = EngineConfig(**({"batch": BATCH, "tokens_max": TOKENS_MAX, "chunk_tokens": 64} | more))
    with Engine(part, links, config) as engine:
        asked = [engine.submit(make_prompt(3 + 19 * n, n), GREEDY) for n in range(10)]
        for _ in range(turns):
            engine.advance()
        if then is not None:
            then()
        engine.run()
    plain = Plain(part.model)
    for request in asked:
        assert request.finish == "length", request.error
        plain.check(request.tokens[: request.prompt_tokens], request.generated)
    assert plain.close <= 1
    return asked


@pytest.mark.parametrize("threads", [1, 2])
def test_tokens_and_bytes(workers: Workers, threads: int) -> None:
    """Of plain transformers; and the rows are all that travels, but for some bytes of a message."""
    part = SModel(make_model())
    workers.start("one", listen=HERE)
    link = workers.stream(part, "one")
    asked = served(part, [link], threads=threads)
    form = part.form
    decoded = sum(len(request.generated) - 1 for request in asked)
    token_bytes = 4 * form.layers * form.head_dim * (2 * form.heads + 2 * form.kv_heads)
    assert link.counters.step_bytes == decoded * token_bytes
    assert link.counters.message_bytes < 100 * link.counters.rows


def test_the_same_bits_as_on_this_host(workers: Workers) -> None:
    part = SModel(make_model(dtype="bfloat16"))
    workers.start("one", listen=HERE)
    seen = []
    for opened in (workers.link, workers.stream):
        link = wait_until(partial(_where_room, partial(opened, part, "one")), "the memory is free")
        assert link is not None
        with Engine(part, [link], EngineConfig(batch=BATCH, tokens_max=TOKENS_MAX)) as engine:
            logprobs = Sampling(max_tokens=30, ignore_eos=True, logprobs=5)
            asked = [engine.submit(make_prompt(9 * n + 1, n), logprobs) for n in range(8)]
            engine.run()
        seen.append([request.chosen for request in asked])
    assert seen[0] == seen[1]


def _where_room(opened: Callable[[], Link]) -> Link | None:
    """None: the memory of somebody who has gone is not free yet."""
    try:
        return opened()
    except FsError as error:
        if error.code is not Code.NO_SPACE:
            raise
        return None


def _admits(workers: Workers, part: SModel) -> bool:
    """All the memory that it has."""
    link = _where_room(lambda: workers.stream(part, "one", memory_bytes=16 * MIB))
    if link is not None:
        link.close()
    return link is not None


@pytest.mark.allow_log("computed again")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_is_lost(workers: Workers, number: int) -> None:
    """Killed, or silent: what it had is computed again by the others, here and elsewhere."""
    part = SModel(make_model())
    for name in ("one", "two"):
        workers.start(name, listen=HERE)
    links: list[Link] = [workers.stream(part, "one", patience_s=1.0)]
    links.append(workers.link(part, "two", patience_s=60.0))
    asked = served(part, links, 30, lambda: os.kill(workers.daemons["one"].pid, number))
    assert 0 < sum(request.computed_again for request in asked) < len(asked)


def test_a_silent_s_worker_has_nothing_left(workers: Workers) -> None:
    part = SModel(make_model())
    workers.start("one", listen=HERE, lease_s=1.0)
    silent = workers.stream(part, "one")
    assert silent.capacity_tokens
    wait_until(lambda: _admits(workers, part), "the memory is free")
    with pytest.raises(FsError) as lost:
        silent._receive(10)
    assert lost.value.code is Code.UNAVAILABLE
    silent.close()


def test_another_secret(workers: Workers) -> None:
    part = SModel(make_model())
    workers.start("one", listen=HERE)
    with pytest.raises(FsError, match="secret") as refused:
        workers.stream(part, "one", secret=SECRET + b"?")
    assert refused.value.code is Code.UNAUTHENTICATED
    workers.stream(part, "one").close()


def test_nobody_is_there(workers: Workers) -> None:
    part = SModel(make_model())
    workers.start("one", listen=HERE)
    address = workers.addresses["one"]
    workers.daemons["one"].kill()
    with pytest.raises(FsError, match=address) as refused:
        workers.stream(part, "one")
    assert refused.value.code is Code.UNAVAILABLE


def connected(workers: Workers) -> socket.socket:
    peer = socket.create_connection(frames.split_address(workers.addresses["one"]), 10)
    return peer


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(72), b"\xff" * 10_000])
def test_strangers(workers: Workers, said: bytes) -> None:
    """They have nothing, and the others are served."""
    part = SModel(make_model())
    workers.start("one", listen=HERE)
    with connected(workers) as peer:
        if said:
            peer.sendall(said)
        else:
            peer.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while part_of := peer.recv(4096):
                found += part_of
        except ConnectionResetError:
            pass
        assert len(found) <= len(frames.GREETING) + frames.NONCE_BYTES
    served(part, [workers.stream(part, "one")])


STEP = pb.RwRequest(step=pb.RwStep(slots=bytes(4)))


@pytest.mark.parametrize(("opened", "message", "payload"), [
    (False, b"\xff" * 40, 0),
    (False, STEP, 0),
    (True, STEP, 0),
    (True, STEP, 1 << 31),
    (True, pb.RwRequest(step=pb.RwStep(mini=5)), 0),
    (True, pb.RwRequest(step=pb.RwStep(layer=1)), 0),
    (True, pb.RwRequest(fill=pb.RwFill(count=1 << 30)), 1 << 31),
    (True, pb.RwRequest(fill=pb.RwFill(count=1)), 3),
    (True, pb.RwRequest(ping=pb.RwPing()), 5),
    (True, pb.RwRequest(restore=pb.RwRestore(block_tokens=8, offsets=[0], checksums=[0])), 0),
    (True, pb.RwRequest(free=pb.RwFree(slots=[1 << 31])), 0),
    (True, pb.RwRequest(), 0),
])  # fmt: skip
def test_hostile_frames(
    workers: Workers, opened: bool, message: bytes | pb.RwRequest, payload: int
) -> None:
    """Who knows the secret, and sends nonsense, is sent away with a reason."""
    part = SModel(make_model())
    workers.start("one", listen=HERE)
    raw = message if isinstance(message, bytes) else message.SerializeToString()
    with connected(workers) as peer:
        frames.introduce(peer, SECRET)
        peer.settimeout(10)
        if opened:
            opening = opening_of(
                part.form, rows=4, minis=2, slots=4, tokens_max=64, memory_bytes=MIB
            )
            frames.send_frame(peer, pb.RwRequest(open=opening).SerializeToString())
            assert frames.receive_head(peer) is not None
        peer.sendall(struct.pack("<II", len(raw), payload) + raw)
        head = frames.receive_head(peer)
        assert head is not None
        assert pb.RwReply.FromString(head[0]).code in (Code.BAD_REQUEST, Code.INVALID)
        assert frames.receive_head(peer) is None
    served(part, [workers.stream(part, "one")])


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as cable:
        yield cable


def test_another_host(workers: Workers, cable: Cable) -> None:
    """In a network of its own. What the interface counts is the rows, and little beside them."""
    part = SModel(make_model(hidden_size=512, num_attention_heads=8, head_dim=64))
    workers.start("one", wrap=cable.wrap, listen=f"{INSIDE}:0")
    before = cable.bytes_passed()
    link = workers.stream(part, "one")
    served(part, [link])
    counted = link.counters
    told = counted.step_bytes + counted.fill_bytes + counted.message_bytes
    assert told <= cable.bytes_passed() - before < 1.05 * told


@pytest.mark.allow_log("computed again")
def test_another_host_is_cut_off(workers: Workers, cable: Cable) -> None:
    """Its sequences go on here; when it is reached again it gets new ones."""
    part = SModel(make_model())
    workers.start("one", wrap=cable.wrap, listen=f"{INSIDE}:0")
    workers.start("two")
    there = workers.stream(part, "one", patience_s=1.0)
    links: list[Link] = [there, workers.link(part, "two", patience_s=60.0)]
    config = EngineConfig(batch=BATCH, tokens_max=TOKENS_MAX, chunk_tokens=64)
    with Engine(part, links, config) as engine:
        asked = [engine.submit(make_prompt(9 + n, n), GREEDY) for n in range(6)]
        for _ in range(20):
            engine.advance()
        cable.pull()
        engine.run()
        assert 0 < sum(request.computed_again for request in asked) < len(asked)
        cable.plug()
        place = engine.placing.places[0]
        wait_until(lambda: engine.advance() or not place.lost, "it is there again")
        asked += [engine.submit(make_prompt(7 + n, n), GREEDY) for n in range(6)]
        engine.run()
        assert place.link.counters.rows
    plain = Plain(part.model)
    for request in asked:
        plain.check(request.tokens[: request.prompt_tokens], request.generated)
    assert plain.close <= 1


def test_a_message_that_is_too_long(workers: Workers) -> None:
    workers.start("one", listen=HERE)
    with connected(workers) as peer:
        frames.introduce(peer, SECRET)
        peer.settimeout(10)
        peer.sendall(struct.pack("<II", 1 << 31, 0))
        head = frames.receive_head(peer)
        assert head is not None
        assert "a message of" in pb.RwReply.FromString(head[0]).detail


def test_rows_for_which_there_is_no_memory(workers: Workers) -> None:
    """An area is the R-worker's own memory here: it has a limit."""
    part = SModel(make_model(hidden_size=1024, num_attention_heads=64, num_key_value_heads=64,
                             head_dim=512, num_hidden_layers=1))  # fmt: skip
    workers.start("one", listen=HERE)
    rows = 4096
    assert Area(part.form, rows, 1).size > 512 * MIB
    with pytest.raises(FsError, match="smaller batch"):
        workers.stream(part, "one", rows=rows, minis=1)


@pytest.mark.parametrize(("content", "mode", "said"), [
    (b"short", 0o600, "16 to"),
    (b"x" * 5000, 0o600, "16 to"),
    (b"x" * 32, 0o640, "chmod"),
    (None, 0, "cannot be read"),
])  # fmt: skip
def test_files_that_hold_no_secret(
    tmp_path: Path, content: bytes | None, mode: int, said: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(FsError, match=said):
        frames.read_secret(path)


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:x", "host:65536"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(FsError, match="HOST:PORT"):
        frames.split_address(address)
    assert frames.split_address("[::1]:7") == ("::1", 7)
