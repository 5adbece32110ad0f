"""The performance model, and the command line."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from harness.fastmodels import Plain, make_model, make_prompt  # noqa: E402 - it needs both
from superfs.cli.main import app  # noqa: E402
from superfs.core.errors import Code, FsError  # noqa: E402
from superfs.core.fastdecode.model import Costs, Plan, plan, tokens_per_s  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from harness.fastmodels import Workers

ROOM = 1 << 40
# 1 ms for the weights, 10 us a row: efficiency rises to 100 rows a ms.
LINEAR = {batch: 1e-3 + 1e-5 * batch for batch in (1, 8, 64, 512, 4096)}


def test_what_binds() -> None:
    costs = Costs(10, LINEAR, 1e-8, ROOM)
    free = plan(costs, 1000)
    assert (free.mini_batch, free.binds) == (4096, "efficiency")
    # B*S*R/2T: 4096 * 1000 * 1e-8 / (2 * 42 ms)
    assert free.workers == math.ceil(4096 * 1000 * 1e-8 / (2 * LINEAR[4096]))
    assert free.tokens_per_s == pytest.approx(4096 / (10 * LINEAR[4096]))
    quick = plan(costs, 1000, latency_s=2 * 10 * 1000 * 2e-3)
    assert (quick.mini_batch, quick.binds) == (64, "latency")
    assert quick.sequence_latency_s <= 40
    small = plan(Costs(10, LINEAR, 1e-8, 100_000), 1000)
    assert (small.binds, small.workers) == ("memory", math.ceil(4096 * 1000 / 100_000))
    one = plan(Costs(10, LINEAR, 1e-6, ROOM), 1000, workers_max=1)
    assert (one.workers, one.binds) == (1, "balance")
    with pytest.raises(FsError) as refused:
        plan(costs, 1000, latency_s=1.0)
    assert refused.value.code is Code.NO_SPACE


@given(st.floats(1e-9, 1e-4), st.integers(1, 5000), st.integers(1, 10**7), st.integers(1, 300))
def test_no_plan_breaks_its_own_rules(r: float, length: int, room: int, workers: int) -> None:
    costs = Costs(4, LINEAR, r, room)
    found = plan(costs, length, workers_max=workers)
    assert 1 <= found.workers <= workers
    assert found.tokens_per_s == pytest.approx(
        tokens_per_s(costs, found.mini_batch, length, found.workers)
    )
    if found.binds in ("efficiency", "latency"):
        assert found.mini_batch * length <= room * found.workers
        assert found.tokens_per_s == pytest.approx(
            found.mini_batch / (4 * LINEAR[found.mini_batch])
        )
        fewer = found.workers - 1
        assert not fewer or (
            tokens_per_s(costs, found.mini_batch, length, fewer) < found.tokens_per_s
            or found.mini_batch * length > room * fewer
        )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(path)
    return path


def run(*arguments: Any, status: int = 0) -> str:  # noqa: ANN401
    done = CliRunner().invoke(app, ["kv", *map(str, arguments)])
    found = getattr(done.exception, "status", done.exit_code)
    assert found == status, done.output
    return done.stdout if status == 0 else str(done.exception)


@pytest.mark.slow
def test_plan_measures(saved: Path) -> None:
    found = json.loads(run("plan", saved, "--length", 64, "--memory", 1 << 24, "--json"))
    assert found["sequences"] == 2 * found["mini_batch"]
    assert found["workers"] >= 1
    assert set(found) >= set(Plan.__dataclass_fields__)
    assert "what binds" in run("plan", saved, "--length", 64)
    assert "cannot be kept" in run("plan", saved, "--length", 64, "--latency", 1e-9, status=2)


@pytest.mark.slow
def test_generate(saved: Path, workers: Workers, tmp_path: Path) -> None:
    prompts = [make_prompt(5 + n, n) for n in range(7)]
    file = tmp_path / "prompts"
    file.write_text("".join(json.dumps({"tokens": prompt}) + "\n" for prompt in prompts))
    sockets = [f"--rworker={workers.start(name)}" for name in ("one", "two")]
    common = ("generate", saved, "--prompt-file", file, "--max-tokens", 12)
    lines = run(*common, *sockets, "--batch", 4).splitlines()
    answers = {answer["index"]: answer for answer in map(json.loads, lines)}
    plain = Plain(transformers.AutoModelForCausalLM.from_pretrained(saved).eval())
    for number, prompt in enumerate(prompts):
        assert answers[number]["finish"] in ("length", "stop")
        plain.check(prompt, answers[number]["tokens"])
    drawn = tmp_path / "drawn"
    more = ("--temperature", 0.9, "--seed", 3, "--logprobs", 2)
    run(*common, *more, "--output", drawn)
    first = drawn.read_text()
    run(*common, *more, *sockets, "--local-share", 0.5, "--output", drawn)
    by_index = [
        {a["index"]: a["tokens"] for a in map(json.loads, text.splitlines())}
        for text in (first, drawn.read_text())
    ]
    assert by_index[0] == by_index[1]
    assert "logprobs" in first


@pytest.mark.slow
def test_generate_says_what_is_wrong(saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    for text, message in (
        ("", "no prompts"), ("hello\n", "tokenizer"), ('{"tokens": 3}\n', "not text"),
        ('{"tokens": [999999]}\n', "each from 0"), ('{"a": 1}\n', "not text"),
    ):  # fmt: skip
        file.write_text(text)
        assert message in run("generate", saved, "--prompt-file", file, status=2)
    file.write_text('{"tokens": [1]}\n')
    common = ("generate", saved, "--prompt-file", file)
    assert "no R-worker" in run(*common, "--rworker", tmp_path / "none", status=2)
    assert "top_p" in run(*common, "--top-p", 2, status=2)
    assert "no saved model" in run("generate", tmp_path, "--prompt-file", file, status=2)
