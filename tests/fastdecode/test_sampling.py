"""What users of text generation expect: filters, penalties, seeds, stops, streams, cancellation."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from harness.fastmodels import (  # noqa: E402 - it needs both
    BATCH,
    TOKENS_MAX,
    VOCABULARY,
    local,
    make_model,
    make_prompt,
)
from superfs.core.errors import FsError  # noqa: E402
from superfs.kvcache.fastdecode.engine import Engine  # noqa: E402
from superfs.kvcache.fastdecode.placing import EngineConfig  # noqa: E402
from superfs.kvcache.fastdecode.sampling import Sampling, choose  # noqa: E402
from superfs.kvcache.fastdecode.smodel import SModel  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow
CONFIG = EngineConfig(batch=BATCH, tokens_max=TOKENS_MAX)
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
MANY = 4000


def letters(tokens: Sequence[int]) -> str:
    return "".join(chr(ord("a") + token % 26) for token in tokens)


@pytest.fixture(scope="module")
def part() -> SModel:
    return SModel(make_model())


def drawn(**more: Any) -> Counter[int]:  # noqa: ANN401
    return Counter(
        choose(LOGITS, Sampling(seed=seed, **more), [0], 1).token for seed in range(MANY)
    )


def expected(kept: Sequence[int], temperature: float) -> dict[int, float]:
    weights = torch.softmax(LOGITS[list(kept)] / temperature, 0).tolist()
    return dict(zip(kept, weights, strict=True))


@pytest.mark.parametrize(("more", "kept"), [
    ({}, (0, 1, 2, 3, 4, 5)),
    ({"top_k": 2}, (0, 1)),
    ({"top_p": 0.5}, (0,)),
    ({"top_p": 0.75}, (0, 1)),
    ({"min_p": 0.2}, (0, 1, 2)),
    ({"top_k": 4, "min_p": 0.3}, (0, 1)),
])  # fmt: skip
@pytest.mark.parametrize("temperature", [1.0])
def test_filters(more: dict[str, Any], kept: Sequence[int], temperature: float) -> None:
    """As often as they should be, within five standard deviations."""
    seen = drawn(temperature=temperature, **more)
    for token, chance in expected(kept, temperature).items():
        spread = 5 * math.sqrt(MANY * chance * (1 - chance)) + 1
        assert abs(seen.pop(token, 0) - MANY * chance) <= spread
    assert not seen


def test_filters_are_those_of_transformers() -> None:
    """The same tokens are left over."""
    logits = torch.randn(500, generator=torch.Generator().manual_seed(1))
    warpers = transformers.generation.logits_process
    for more, warper in (
        ({"top_k": 17}, warpers.TopKLogitsWarper(17)),
        ({"top_p": 0.6}, warpers.TopPLogitsWarper(0.6)),
        ({"min_p": 0.1}, warpers.MinPLogitsWarper(0.1)),
    ):
        left = set(torch.isfinite(warper(None, logits[None].clone())[0]).nonzero()[:, 0].tolist())
        sampling = [Sampling(temperature=1.0, seed=seed, **more) for seed in range(3000)]
        seen = {choose(logits, one, [0], 1).token for one in sampling}
        assert seen <= left
        assert len(seen) > 0.8 * len(left)


def test_penalties() -> None:
    tokens = [3, 5, 5, 1, 1, 1]
    processor = transformers.generation.logits_process.RepetitionPenaltyLogitsProcessor(1.7)
    want = torch.log_softmax(processor(torch.tensor([tokens]), LOGITS[None].clone())[0], 0)
    found = choose(LOGITS, Sampling(repetition_penalty=1.7, logprobs=6), tokens, 2)
    assert dict(found.best) == pytest.approx(dict(enumerate(want.tolist())), abs=1e-6)
    both = Sampling(presence_penalty=0.5, frequency_penalty=0.25, logprobs=6)
    taken = LOGITS - torch.tensor([0, 0.5 + 0.75, 0, 0, 0, 0.5 + 0.25])
    found = choose(LOGITS, both, tokens, 2)
    want = torch.log_softmax(taken, 0)
    assert dict(found.best) == pytest.approx(dict(enumerate(want.tolist())), abs=1e-6)
    assert found.logprob == pytest.approx(float(want[0]))


@pytest.mark.parametrize("wrong", [
    {"max_tokens": 0}, {"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0},
    {"top_p": math.nan}, {"top_k": -1}, {"min_p": 2.0}, {"repetition_penalty": 0.0},
    {"stop": ("",)}, {"stop": ("x",) * 17}, {"logprobs": 21},
])  # fmt: skip
def test_limits(wrong: dict[str, Any]) -> None:
    with pytest.raises(FsError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_seeds_do_not_depend_on_the_batch(part: SModel) -> None:
    """Alone, and among others that come and go."""
    sampling = [
        Sampling(max_tokens=20, temperature=0.8, top_p=0.9, seed=seed, ignore_eos=True)
        for seed in range(6)
    ]
    alone = []
    for seed, one in enumerate(sampling):
        with Engine(part, [local(part)], CONFIG) as engine:
            request = engine.submit(make_prompt(10), one)
            engine.submit(make_prompt(30, seed), Sampling(max_tokens=3)).cancel()
            engine.run()
            alone.append(request.generated)
    with Engine(part, [local(part)], CONFIG) as engine:
        together = [engine.submit(make_prompt(10), one) for one in sampling]
        engine.run()
    assert [request.generated for request in together] == alone
    assert len({tuple(generated) for generated in alone}) == len(alone)


def test_stops_and_ends(part: SModel) -> None:
    with Engine(part, [local(part)], CONFIG, ends=[], decode=letters) as engine:
        free = engine.submit(make_prompt(12), Sampling(max_tokens=30))
        engine.run()
        text = letters(free.generated)
        assert (free.finish, free.text(letters)) == ("length", text)
        word = text[10:13]
        stopped = engine.submit(make_prompt(12), Sampling(max_tokens=30, stop=("#", word)))
        token = free.generated[7]
        ended = engine.submit(make_prompt(12), Sampling(max_tokens=30, stop_tokens=(token,)))
        engine.run()
    assert stopped.finish == "stop"
    assert stopped.text(letters) == text[: text.find(word)]
    assert ended.finish == "stop"
    assert ended.generated == free.generated[: free.generated.index(token) + 1]
    with Engine(part, [local(part)], CONFIG, ends=[token]) as engine:
        asked = [
            engine.submit(make_prompt(12), Sampling(max_tokens=30, ignore_eos=ignored))
            for ignored in (False, True)
        ]
        engine.run()
    assert [len(request.generated) for request in asked] == [len(ended.generated), 30]


def test_logprobs(part: SModel) -> None:
    with Engine(part, [local(part)], CONFIG) as engine:
        request = engine.submit(make_prompt(12), Sampling(max_tokens=5, logprobs=3))
        engine.run()
    with torch.no_grad():
        logits = part.model(input_ids=torch.tensor([request.tokens])).logits[0, 11:-1]
    wanted = torch.log_softmax(logits, -1)
    assert len(request.chosen) == 5
    for choice, row in zip(request.chosen, wanted, strict=True):
        assert choice.logprob == pytest.approx(float(row[choice.token]), abs=1e-4)
        assert [token for token, _ in choice.best] == row.topk(3).indices.tolist()


def test_streams_and_cancellation(part: SModel) -> None:
    with Engine(part, [local(part)], CONFIG) as engine:
        link: Any = engine.placing.places[0].link
        capacity = link._session.cache.pages_free
        long, short = (
            engine.submit(make_prompt(9, n), Sampling(max_tokens=most, ignore_eos=True))
            for n, most in enumerate((400, 6))
        )
        seen = []
        for token in engine.stream(long):
            seen.append(token)
            if len(seen) == 20:
                long.cancel()
        assert long.finish == "cancelled"
        assert 20 <= len(seen) < 25
        assert seen == long.generated
        assert list(engine.stream(short)) == short.generated
        assert len(short.generated) == 6
        waiting = engine.submit(make_prompt(9), Sampling(max_tokens=9))
        waiting.cancel()
        engine.run()
        assert (waiting.finish, waiting.generated) == ("cancelled", [])
        assert link._session.cache.pages_free == capacity
    assert all(0 <= token < VOCABULARY for token in seen)
