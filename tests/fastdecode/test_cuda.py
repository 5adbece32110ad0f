"""The weights on an accelerator, the cache on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from superfs.kvcache.fastdecode.engine import Engine  # noqa: E402
from superfs.kvcache.fastdecode.placing import EngineConfig  # noqa: E402
from superfs.kvcache.fastdecode.sampling import Sampling  # noqa: E402
from superfs.kvcache.fastdecode.smodel import SModel  # noqa: E402

if TYPE_CHECKING:
    from harness.fastmodels import Workers
    from superfs.kvcache.fastdecode.link import Link

pytestmark = [
    pytest.mark.slow,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_tokens_are_those_of_the_cpu(workers: Workers, kind: str, threads: int) -> None:
    """Shared among two R-workers and this process; in float32, prompts in chunks too."""
    torch.backends.cuda.matmul.allow_tf32 = False
    part = SModel(make_model(kind).to("cuda"))
    for name in ("one", "two"):
        workers.start(name, listen="127.0.0.1:0")
    links: list[Link] = [workers.link(part, "one"), workers.stream(part, "two"), local(part)]
    config = EngineConfig(
        batch=BATCH, tokens_max=TOKENS_MAX, chunk_tokens=64, local_share=0.3, threads=threads
    )
    with Engine(part, links, config) as engine:
        greedy = Sampling(max_tokens=40, ignore_eos=True)
        asked = [engine.submit(make_prompt(3 + 19 * n, n), greedy) for n in range(10)]
        engine.run()
        assert all(link.counters.rows for link in links[:2])
    plain = Plain(make_model(kind))
    for request in asked:
        assert request.finish == "length", request.error
        plain.check(request.tokens[: request.prompt_tokens], request.generated)
    assert plain.close <= 1
