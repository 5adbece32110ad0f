"""vLLM itself in front of a pool: engines that never met, and what the pool has lost. What the
connector does in each step: test_vllm_steps.py.

vLLM has its own Python: `make vllm`, or SUPERFS_VLLM_PYTHON names one."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from superfs.core.limits import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("SUPERFS_VLLM_PYTHON", TOP / ".venv-vllm" / "bin" / "python"))
SERVE = TOP / "tests" / "harness" / "vllmserve.py"
BLOCK = 32
VOCABULARY = 2003
MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
    "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048, "tie_word_embeddings": True, "hidden_act": "silu",
    "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.exists(), reason="vLLM is not installed (make vllm)"),
]


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    slab = tmp_path_factory.mktemp("slab")
    settings = {"slab_bytes": 64 * MIB, "slab_dir": str(slab)}
    with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
        yield cluster
        assert not cluster.trouble()


def pool(cluster: Cluster, name: str) -> dict[str, Any]:
    return {
        "cluster": [cluster.target("clusterd")],
        "token_file": str(cluster.token_file),
        "namespace": name,
        "weights": "dummy, seed 1",
    }


def serve(
    where: Path,
    rounds: list[list[list[int]]],
    extra: dict[str, Any] | None = None,
    **more: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    model = where / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(MODEL))
    job = {"model": str(model), "dtype": "float32", "block": BLOCK, "rounds": rounds}
    env = {**os.environ, "PYTHONPATH": f"{TOP / 'proto'}:{TOP / 'clients'}"}
    ran = subprocess.run(
        [PYTHON, SERVE], input=json.dumps(job | {"pool": extra} | more), env=env,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in ran.stdout.splitlines():
        if line.startswith("ANSWERS "):
            return json.loads(line.removeprefix("ANSWERS "))
    return ran.stdout + ran.stderr


def prompt(seed: int, tokens: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, VOCABULARY) for _ in range(tokens)]


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["tokens"] == other["tokens"]
    for mine, theirs in zip(one["chances"], other["chances"], strict=True):
        for (token, chance), (other_token, other_chance) in zip(mine, theirs, strict=True):
            assert token == other_token
            assert chance == pytest.approx(other_chance, abs=1e-3)


def test_engines_that_never_met(pooled: Cluster, tmp_path: Path) -> None:
    """The second one loads what the first has computed, in steps of a part of the prompt, and
    answers as one without a pool."""
    first = prompt(1, 1100)
    branch = first[:700] + prompt(2, 300)
    alone = serve(tmp_path, [[first], [branch]])
    extra = pool(pooled, "met")
    before = serve(tmp_path, [[first]], extra, step=256)
    after = serve(tmp_path, [[first, branch]], extra, step=256)
    assert before[0][0]["cached"] == 0
    assert after[0][0]["cached"] == (1100 - 1) // BLOCK * BLOCK
    assert after[0][1]["cached"] >= 700 // BLOCK * BLOCK
    same(alone[0][0], before[0][0])
    same(alone[0][0], after[0][0])
    same(alone[1][0], after[0][1])


def test_what_the_pool_has_lost_is_computed(pooled: Cluster, tmp_path: Path) -> None:
    """The scheduler was told of blocks that the worker finds damaged."""
    first = prompt(3, 1100)
    extra = pool(pooled, "lost")
    before = serve(tmp_path, [[first]], extra)
    (slab,) = Path(str(pooled.settings["datad"]["kvcache"]["slab_dir"])).glob("*.slab")
    with slab.open("r+b") as file:
        for at in range(0, 64 * MIB, 320 * KIB):
            file.seek(at + 100)
            file.write(b"\xff\x3f\xff\x3f")
    after = serve(tmp_path, [[first]], extra, step=256)
    same(before[0][0], after[0][0])
