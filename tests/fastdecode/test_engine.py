"""Tokens of the S-worker with its R-workers are those of plain transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from harness.fastmodels import (  # noqa: E402 - it needs both
    BATCH,
    TOKENS_MAX,
    Plain,
    local,
    make_model,
    make_prompt,
)
from superfs.core.errors import Code, FsError  # noqa: E402
from superfs.kvcache.fastdecode.engine import Engine  # noqa: E402
from superfs.kvcache.fastdecode.placing import EngineConfig  # noqa: E402
from superfs.kvcache.fastdecode.sampling import Sampling  # noqa: E402
from superfs.kvcache.fastdecode.smodel import SModel  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.fastmodels import Workers
    from superfs.kvcache.fastdecode.link import Link
    from superfs.kvcache.fastdecode.requests import Request

pytestmark = pytest.mark.slow

LENGTHS = (1, 5, 31, 32, 33, 64, 100, 230)


def config(**more: Any) -> EngineConfig:  # noqa: ANN401
    return EngineConfig(**({"batch": BATCH, "tokens_max": TOKENS_MAX, "chunk_tokens": 128} | more))


def served(
    part: SModel, links: Sequence[Link], lengths: Sequence[int] = LENGTHS, max_tokens: int = 40,
    **more: Any,  # noqa: ANN401
) -> list[Request]:  # fmt: skip
    with Engine(part, links, config(**more)) as engine:
        sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)
        asked = [engine.submit(make_prompt(n, i), sampling) for i, n in enumerate(lengths)]
        engine.run()
        assert all(request.finish == "length" for request in asked)
        assert not engine.open_requests
    return asked


def check(model: Any, asked: Sequence[Request]) -> None:  # noqa: ANN401
    plain = Plain(model)
    for request in asked:
        plain.check(request.tokens[: request.prompt_tokens], request.generated)
    assert plain.close * 100 <= max(plain.checked, 100), "at most one in a hundred"


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_models(kind: str) -> None:
    model = make_model(kind)
    part = SModel(model)
    asked = served(part, [local(part)])
    check(model, asked)
    assert len({tuple(request.generated) for request in asked}) == len(asked)


@pytest.mark.parametrize(("minis", "threads"), [(1, 1), (2, 1), (2, 2)])
def test_one_worker_of_its_own(workers: Workers, minis: int, threads: int) -> None:
    model = make_model()
    part = SModel(model)
    workers.start("one")
    link = workers.link(part, "one")
    asked = served(part, [link], minis=minis, threads=threads)
    check(model, asked)
    form = part.form
    token_bytes = 4 * form.layers * form.head_dim * (2 * form.heads + 2 * form.kv_heads)
    decoded = sum(len(request.generated) - 1 for request in asked)
    assert link.counters.step_bytes == decoded * token_bytes
    assert link.counters.rows == decoded * form.layers


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_sequences_are_shared_among_workers(workers: Workers, share: float) -> None:
    model = make_model()
    part = SModel(model)
    for name in ("one", "two"):
        workers.start(name)
    links = [workers.link(part, "one"), workers.link(part, "two")]
    asked = served(part, [*links, local(part)], local_share=share)
    check(model, asked)
    rows = [link.counters.rows for link in links]
    assert all(rows) == (share < 1.0)


class Watched(SModel):
    def __init__(self, model: Any, kept: list[Any]) -> None:  # noqa: ANN401
        super().__init__(model)
        self._kept = kept

    def logits(self, hidden: Any) -> Any:  # noqa: ANN401
        self._kept.append(super().logits(hidden))
        return self._kept[-1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_same_bits_wherever_the_cache_is(workers: Workers, dtype: str) -> None:
    """The same batches, in one process and with two R-workers: to the last bit."""
    part = SModel(make_model(dtype=dtype))
    seen: list[list[Any]] = []
    for name in ("one", "two"):
        workers.start(name)
    for links in ([local(part)], [workers.link(part, "one"), workers.link(part, "two")]):
        logits: list[Any] = []
        served(Watched(part.model, logits), links)
        seen.append(logits)
    assert len(seen[0]) == len(seen[1]) > 40
    assert all(torch.equal(one, two) for one, two in zip(*seen, strict=True))


@pytest.mark.parametrize("chunk", [16, 100, 1000])
def test_prompts_in_chunks(chunk: int) -> None:
    model = make_model()
    part = SModel(model)
    check(model, served(part, [local(part)], chunk_tokens=chunk, max_tokens=8))


def test_continuous_batches() -> None:
    """Many more than fit at a time, of many lengths, some coming later."""
    model = make_model()
    part = SModel(model)
    with Engine(part, [local(part)], config(batch=5)) as engine:
        asked = []
        for number in range(24):
            sampling = Sampling(max_tokens=3 + number * 7 % 23, ignore_eos=True)
            asked.append(engine.submit(make_prompt(1 + number * 13 % 50, number), sampling))
            for _ in range(number):
                engine.advance()
        engine.run()
        assert all(place.slots for place in engine.placing.places)
        assert not any(place.promised_tokens for place in engine.placing.places)
    check(model, asked)


@pytest.mark.parametrize("storage", ["bfloat16", "float16", "int8"])
def test_smaller_storage(storage: str) -> None:
    """Nearly the same logits: the first tokens of most are the same."""
    model = make_model()
    exact, part = SModel(model), SModel(model, storage=storage)
    one = served(exact, [local(exact)], max_tokens=4)
    two = served(part, [local(part)], max_tokens=4)
    same = sum(a.generated[:3] == b.generated[:3] for a, b in zip(one, two, strict=True))
    assert same >= len(one) - 2


def test_what_cannot_be_asked() -> None:
    part = SModel(make_model())
    with Engine(part, [local(part, memory_bytes=1 << 18)], config()) as engine:
        for prompt in ([], [-1], [10**6]):
            with pytest.raises(FsError, match="each from 0"):
                engine.submit(prompt, Sampling())
        with pytest.raises(FsError, match="tokens_max"):
            engine.submit([1], Sampling(max_tokens=TOKENS_MAX))
        with pytest.raises(FsError, match="more memory") as refused:
            engine.submit(make_prompt(300), Sampling(max_tokens=100))
        assert refused.value.code is Code.NO_SPACE
        with pytest.raises(FsError, match="tokenizer"):
            engine.submit([1], Sampling(stop=("x",)))
        assert not engine.advance()
    with pytest.raises(FsError, match="training"):
        SModel(make_model().train())
    with pytest.raises(FsError, match="full attention"):
        SModel(make_model("mistral", sliding_window=16))
    with pytest.raises(FsError, match="at least one"):
        Engine(part, [], config())
