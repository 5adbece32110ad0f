"""Prompts that a KVCache pool has: restored where they are attended, never a wrong token."""

from __future__ import annotations

import json
import os
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner
from xxhash import xxh3_64_intdigest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from harness.cluster import Cluster  # noqa: E402
from harness.fastmodels import (  # noqa: E402 - it needs both
    BATCH,
    TOKENS_MAX,
    Plain,
    local,
    make_model,
    make_prompt,
)
from harness.waiting import wait_until  # noqa: E402
from superfs.cli.main import app  # noqa: E402
from superfs.client import ClientConfig  # noqa: E402
from superfs.core.errors import Code, FsError  # noqa: E402
from superfs.core.limits import KIB, MIB  # noqa: E402
from superfs.kvcache import KeyChain, hf  # noqa: E402
from superfs.kvcache.fastdecode.engine import Engine  # noqa: E402
from superfs.kvcache.fastdecode.link import Blocks  # noqa: E402
from superfs.kvcache.fastdecode.placing import EngineConfig  # noqa: E402
from superfs.kvcache.fastdecode.pool import Pool, fingerprint  # noqa: E402
from superfs.kvcache.fastdecode.sampling import Sampling  # noqa: E402
from superfs.kvcache.fastdecode.smodel import SModel  # noqa: E402
from superfs.kvcache.store import KVStore  # noqa: E402
from superfs.v1 import fastdecode_pb2 as pb  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from harness.fastmodels import Workers
    from superfs.core.kvcache.keys import Fingerprint
    from superfs.kvcache.fastdecode.link import Link

    Opened = Callable[..., KVStore]

pytestmark = pytest.mark.slow

BLOCK, CHUNK = 8, 32
LENGTHS = (5, 31, 32, 33, 64, 100, 230)
RESTORED = sum((n - 1) // CHUNK * CHUNK for n in LENGTHS)
PROBED = Sampling(max_tokens=20, ignore_eos=True, logprobs=5)


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[Cluster]:
    slab = tmp_path / "slab"
    slab.mkdir()
    settings = {"slab_bytes": 32 * MIB, "slab_dir": str(slab), "granule_bytes": 4 * KIB}
    with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
        yield cluster


@pytest.fixture
def opened(pooled: Cluster) -> Iterator[Opened]:
    """A store of a fingerprint."""
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    with ExitStack() as stores:
        yield lambda made, **more: stores.enter_context(
            KVStore.open(config, "prompts", KeyChain(made), **more)
        )


def print_of(part: SModel) -> Fingerprint:
    return fingerprint(part.model, block_tokens=BLOCK, chunk_tokens=CHUNK)


def config(**more: Any) -> EngineConfig:  # noqa: ANN401
    return EngineConfig(
        **({"batch": BATCH, "tokens_max": TOKENS_MAX, "chunk_tokens": CHUNK} | more)
    )


def served(part: SModel, links: Sequence[Link], pool: Pool | None) -> tuple[list[Any], Engine]:
    """What was chosen, with its logarithms to the last bit, of one after the other; the engine is
    closed."""
    with Engine(part, links, config(), pool=pool) as engine:
        asked = []
        for number, length in enumerate(LENGTHS):
            asked.append(engine.submit(make_prompt(length, number), PROBED))
            engine.run()
    plain = Plain(part.model)
    for request in asked:
        assert request.finish == "length", request.error
        if part.model.dtype == torch.float32:
            plain.check(request.tokens[: request.prompt_tokens], request.generated)
    assert plain.close <= 1
    return [request.chosen for request in asked], engine


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_restored_from_the_slab(workers: Workers, opened: Opened, dtype: str) -> None:
    """By the R-worker itself; to the last bit what comes of computing all of it."""
    part = SModel(make_model(dtype=dtype))
    workers.start("one")
    store = opened(print_of(part))
    first, engine = served(part, [workers.link(part, "one")], pool := Pool(store, part))
    assert engine.figures.restored_tokens == 0
    assert pool.stored_tokens + pool.unstored_tokens == sum(n // CHUNK * CHUNK for n in LENGTHS)
    assert pool.stored_tokens
    filled(store, part)
    wait_until(lambda: memory_is_free(workers, part), "the memory is free")
    link = workers.link(part, "one")
    second, engine = served(part, [link], Pool(store, part))
    assert engine.figures.restored_tokens == RESTORED
    assert engine.figures.prefilled_tokens == sum(LENGTHS) - RESTORED
    assert link.counters.restored_blocks * BLOCK == RESTORED
    shipped = (sum(LENGTHS) - RESTORED) * part.layers * 2 * part.form.key_bytes
    assert link.counters.fill_bytes == shipped, "nothing of it went through the S-worker"
    assert first == second
    assert store.stats()[0].leases == 0


def memory_is_free(workers: Workers, part: SModel) -> bool:
    try:
        workers.link(part, "one", memory_bytes=16 * MIB).close()
    except FsError:
        return False
    return True


def filled(store: KVStore, part: SModel) -> list[Any]:
    """The pool has everything that it can have: what came too fast is stored the next time."""
    for _ in range(10):
        chosen, engine = served(part, [local(part)], Pool(store, part))
        if engine.figures.restored_tokens == RESTORED:
            return chosen
    raise AssertionError("it does not store")


@pytest.mark.parametrize("where", ["here", "elsewhere", "no slab"])
def test_restored_otherwise(workers: Workers, opened: Opened, where: str) -> None:
    """What cannot have the slab gets the same from the S-worker."""
    part = SModel(make_model())
    store = opened(print_of(part), shared=where != "no slab")
    before = filled(store, part)
    workers.start("one", **({"listen": "127.0.0.1:0"} if where == "elsewhere" else {}))
    links: dict[str, Any] = {
        "here": local, "elsewhere": workers.stream, "no slab": workers.link
    }  # fmt: skip
    link = links[where](part) if where == "here" else links[where](part, "one")
    after, engine = served(part, [link], Pool(store, part))
    assert engine.figures.restored_tokens == RESTORED
    assert not link.counters.restored_blocks
    assert before == after


def test_what_others_have_computed(workers: Workers, opened: Opened) -> None:
    """Of kvcache.hf: restored; nothing of ours is stored among it."""
    part = SModel(make_model())
    store = opened(hf.fingerprint(part.model, block_tokens=BLOCK))
    tokens = make_prompt(100, 5)
    assert hf.prefill_with_store(part.model, tokens, store).stored_tokens == 96
    blocks = store.stats()[0].blocks
    workers.start("one")
    link = workers.link(part, "one")
    with Engine(part, [link], config(), pool=Pool(store, part)) as engine:
        asked = [engine.submit(tokens, PROBED), engine.submit(make_prompt(90), PROBED)]
        engine.run()
        assert engine.figures.restored_tokens == 96
    plain = Plain(part.model)
    for request in asked:
        plain.check(request.tokens[: request.prompt_tokens], request.generated)
    assert link.counters.restored_blocks == 96 // BLOCK
    assert store.stats()[0].blocks == blocks


@pytest.mark.allow_log("computed again")
def test_a_worker_is_lost(workers: Workers, opened: Opened) -> None:
    """What it had is restored elsewhere, as far as it was stored."""
    part = SModel(make_model())
    store = opened(print_of(part))
    filled(store, part)
    for name in ("one", "two"):
        workers.start(name)
    links = [workers.link(part, name) for name in ("one", "two")]
    with Engine(part, links, config(), pool=Pool(store, part)) as engine:
        asked = [engine.submit(make_prompt(n, i), PROBED) for i, n in enumerate(LENGTHS)]
        while not all(len(request.generated) > 3 for request in asked):
            engine.advance()
        assert engine.figures.restored_tokens == RESTORED
        workers.daemons["one"].kill()
        engine.run()
        lost = [request for request in asked if request.computed_again]
        assert 0 < len(lost) < len(asked)
        again = engine.figures.restored_tokens - RESTORED
        least = sum((request.prompt_tokens - 1) // CHUNK * CHUNK for request in lost)
        assert again >= least
    plain = Plain(part.model)
    for request in asked:
        plain.check(request.tokens[: request.prompt_tokens], request.generated)


@pytest.mark.allow_log("computed again", "KVCache", "damaged", "not read", "not written")
@pytest.mark.parametrize("what", ["flipped", "cut short", "killed"])
def test_a_damaged_pool(
    workers: Workers, opened: Opened, pooled: Cluster, tmp_path: Path, what: str
) -> None:
    """The same bits; and the R-worker, which has the slab mapped, lives on."""
    part = SModel(make_model())
    store = opened(print_of(part))
    before = filled(store, part)
    workers.start("one")
    link = workers.link(part, "one")
    (slab,) = (tmp_path / "slab").glob("*.slab")
    with Engine(part, [link], config(), pool=Pool(store, part)) as engine:
        warm = engine.submit(make_prompt(230, 6), PROBED)
        engine.run()
        assert link.counters.restored_blocks
        if what == "flipped":
            with slab.open("r+b") as file:
                whole = slab.stat().st_size - 8
                for at in range(0, whole, 4 * KIB):
                    file.seek(at)
                    file.write(b"\x5a" * 16)
        elif what == "cut short":
            os.truncate(slab, 0)
        else:
            pooled.datad.kill()
        for number, length in enumerate(LENGTHS):
            request = engine.submit(make_prompt(length, number), PROBED)
            engine.run()
            assert request.chosen == before[number]
        assert engine.figures.restored_tokens == 224, "of the one before"
        assert not engine.figures.computed_again
    assert workers.daemons["one"].running
    assert warm.chosen == before[-1]
    if what == "killed":
        pooled.start(["datad-2"])


def open_slabs() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += ".slab" in os.readlink(f"/proc/self/fd/{name}")
    return found


def test_cancelled_and_closed(workers: Workers, opened: Opened) -> None:
    """Nothing stays held, no descriptor open."""
    part = SModel(make_model())
    store = opened(print_of(part))
    filled(store, part)
    workers.start("one")
    before = open_slabs()
    with Engine(part, [workers.link(part, "one")], config(), pool=Pool(store, part)) as engine:
        requests = [engine.submit(make_prompt(n, i), PROBED) for i, n in enumerate(LENGTHS)]
        engine.advance()
        for request in requests[1:]:
            request.cancel()
        for _ in range(3):
            engine.advance()
        engine.submit(make_prompt(230, 6), PROBED)
        engine.advance()
    assert store.stats()[0].leases == 0
    assert open_slabs() == before


class Made:
    """A slab of our own: blocks of zeros to nines."""

    def __init__(self, path: Path, part: SModel) -> None:
        size = part.layers * 2 * BLOCK * part.form.key_bytes
        self.path = path
        self._blocks = [bytes([n]) * size for n in range(10)]
        path.write_bytes(b"".join(self._blocks) + struct.pack("<Q", 7))
        self.descriptor = os.open(path, os.O_RDONLY)

    def of(self, numbers: Sequence[int], slab_id: int = 7) -> Blocks:
        return Blocks(
            self.descriptor, slab_id, BLOCK, [n * len(self._blocks[0]) for n in numbers],
            [xxh3_64_intdigest(self._blocks[n % 10]) for n in numbers],
        )  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    found = Made(tmp_path / "a.slab", SModel(make_model()))
    yield found
    os.close(found.descriptor)


def test_a_slab_that_changes(workers: Workers, made: Made) -> None:
    """Under the R-worker, which has it mapped: it is no error, and nobody dies."""
    part = SModel(make_model())
    workers.start("one")
    link = workers.link(part, "one")
    assert link.restore(0, 0, made.of([3, 1, 2])) == 3
    assert link.restore(1, 0, made.of([1], slab_id=8)) == 0, "that is another one"
    with made.path.open("r+b") as file:
        file.write(b"\xff")
    assert link.restore(2, 0, made.of([5, 0, 5])) == 1, "up to the one that is damaged"
    os.truncate(made.path, 100)
    assert link.restore(3, 0, made.of([5, 6])) == 0, "where there was something there is nothing"
    assert link.restore(0, 3 * BLOCK, made.of([9])) == 0
    with Engine(part, [link], config()) as engine:
        request = engine.submit(make_prompt(40), PROBED)
        engine.run()
        assert request.finish == "length"
    assert workers.daemons["one"].running


@pytest.mark.parametrize(("wrong", "said"), [
    ({"offsets": [1 << 40]}, "of a slab"),
    ({"offsets": [0, 0]}, "its checksum"),
    ({"offsets": [], "checksums": []}, "up to"),
    ({"offsets": [0] * 300, "checksums": [0] * 300}, "up to"),
    ({"block_tokens": 0}, "up to"),
    ({"block_tokens": 1 << 31}, "up to"),
    ({"slot": 99}, "no slot"),
    ({"first": 5}, "behind"),
    ({"first": 1 << 60}, "behind"),
    ({"descriptor": "none"}, "restore"),
    ({"descriptor": "pipe"}, "a file"),
])  # fmt: skip
def test_hostile_blocks(workers: Workers, made: Made, wrong: dict[str, Any], said: str) -> None:
    part = SModel(make_model())
    workers.start("one")
    link = workers.link(part, "one", memory_bytes=MIB)
    right = made.of([3])
    fields: dict[str, Any] = {
        "block_tokens": BLOCK,
        "slab_id": 7,
        "offsets": right.offsets,
        "checksums": right.checksums,
    }
    reading, writing = os.pipe()
    with ExitStack() as ends:
        ends.callback(os.close, reading)
        ends.callback(os.close, writing)
        which = {"none": [], "pipe": [reading]}.get(wrong.pop("descriptor", ""), [made.descriptor])
        link._send(pb.RwRequest(restore=pb.RwRestore(**(fields | wrong))), which)
        with pytest.raises(FsError, match=said) as refused:
            link._receive(10)
    assert refused.value.code in (Code.BAD_REQUEST, Code.INVALID)
    link.close()
    workers.link(part, "one").close()
    assert workers.daemons["one"].running


def test_no_room_for_blocks(workers: Workers, made: Made) -> None:
    """It is refused, and what was there is as it was."""
    part = SModel(make_model())
    workers.start("one", memory_bytes=MIB)
    link = workers.link(part, "one", memory_bytes=MIB)
    for slot in range(2):  # 30 pages of 42
        assert link.restore(slot, 0, made.of([3] * 60)) == 60
    for _ in range(2):
        with pytest.raises(FsError) as refused:
            link.restore(2, 0, made.of([4] * 60))
        assert refused.value.code is Code.NO_SPACE
        link.free([2])
    assert link.restore(2, 0, made.of([4] * 40)) == 40
    link.close()


def test_on_the_command_line(
    workers: Workers, opened: Opened, pooled: Cluster, tmp_path: Path
) -> None:
    part = SModel(make_model())
    part.model.save_pretrained(tmp_path / "model")
    file = tmp_path / "prompts"
    prompt = make_prompt(600)
    file.write_text(json.dumps({"tokens": prompt}) + "\n")
    words = ["kv", "generate", tmp_path / "model", "--prompt-file", file, "--max-tokens", 5]
    words += ["--rworker", workers.start("one"), "--pool", "prompts"]
    words += ["--cluster", pooled.target("clusterd"), "--token-file", pooled.token_file]
    said = [CliRunner().invoke(app, list(map(str, words))).stdout for _ in range(2)]
    Plain(part.model).check(prompt, json.loads(said[0])["tokens"])
    assert said[0] == said[1]
    stats = opened(fingerprint(part.model)).stats()[0]
    assert (stats.blocks, stats.found_blocks, stats.leases) == (8, 8, 0)


def test_what_cannot_be_asked(opened: Opened) -> None:
    part = SModel(make_model())
    store = opened(print_of(part))
    with pytest.raises(FsError, match="another model"):
        Pool(store, SModel(make_model(dtype="bfloat16")))
    pool = Pool(store, part)
    with pytest.raises(FsError, match="chunk_tokens"):
        Engine(part, [local(part)], config(chunk_tokens=64), pool=pool)
    pool.close()
