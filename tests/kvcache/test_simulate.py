"""The simulator on small traces, and on Mooncake's where SUPERFS_TRACES names their directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from superfs.cli.main import main
from superfs.core.errors import FsError
from superfs.core.kvcache.policy import POLICIES
from superfs.kvcache.simulate import MODES, Mode, Rates, Simulator, simulate
from superfs.kvcache.trace import Request, read_trace

TRACES = os.environ.get("SUPERFS_TRACES", "")
# Prefix hits, as simulated independently of this project, to 3 digits.
PUBLISHED = {
    ("conversation", 10_000): {"lru": 0.211, "lfu": 0.132, "length-aware": 0.112, "s3-fifo": 0.202},
    ("synthetic", 1_000): {"lru": 0.082, "lfu": 0.040, "length-aware": 0.019, "s3-fifo": 0.086},
}


def line(*blocks: int, tokens: int | None = None) -> str:
    size = 512 * len(blocks) if tokens is None else tokens
    request = {"timestamp": 0, "input_length": size, "output_length": 1, "hash_ids": list(blocks)}
    return json.dumps(request) + "\n"


def test_rates(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(line(0, 1, 2, tokens=1030) + line(0, 1, 2, tokens=1030) + line(0, 5))
    rates = simulate(read_trace(path), "lru", 100)
    assert rates.prefix_hit_rate == rates.block_hit_rate == 4 / 8
    assert rates.token_hit_rate == (1030 + 512) / (1030 + 1030 + 1024)


def test_only_reference_leaves_gaps() -> None:
    trace = [Request(0, 512 * 3, (0, 1, 2)), Request(0, 512, (9,)), Request(0, 512 * 3, (0, 1, 2))]
    reference, ours = (simulate(trace, "lru", 3, mode) for mode in MODES)
    assert (reference.prefix_blocks, reference.found_blocks) == (0, 2), "0 made way for 9"
    assert (ours.prefix_blocks, ours.found_blocks) == (2, 2), "2 did"


def test_a_request_larger_than_everything() -> None:
    trace = [Request(0, 512 * 5, (0, 1, 2, 3, 4))] * 2
    for policy in POLICIES:
        assert simulate(trace, policy, 3).prefix_blocks == 3


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", line(-1), line(1, 1), '{"timestamp": 0, "hash_ids": 3}']
)
def test_what_is_no_trace(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(FsError, match=r"trace.jsonl"):
        read_trace(path)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(line(0, 1) + line(0, 1))
    args = ["kv", "replay", str(path), "--simulate", "--policy", "lru", "--capacity", "5", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["policy"] == "lru"
    assert found["capacity_blocks"] == 5
    assert found["prefix_hit_rate"] == found["block_hit_rate"] == found["token_hit_rate"] == 0.5
    with pytest.raises(SystemExit) as ended:
        main(["kv", "replay", str(path), "--simulate", "--policy", "best"])
    assert ended.value.code == 2
    assert "lru" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not TRACES, reason="SUPERFS_TRACES does not name a directory of traces")
@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: f"{case[0]}-{case[1]}")
@pytest.mark.parametrize("mode", MODES)
def test_the_traces_of_mooncake(case: tuple[str, int], mode: Mode) -> None:
    name, capacity = case
    trace = read_trace(Path(TRACES) / f"{name}_trace.jsonl")
    for policy, published in PUBLISHED[case].items():
        rate = simulate(trace, policy, capacity, mode).prefix_hit_rate
        if mode == "reference":
            assert rate == pytest.approx(published, abs=0.001), policy
        else:
            assert rate >= published - 0.005, policy


@pytest.mark.slow
@pytest.mark.skipif(not TRACES, reason="SUPERFS_TRACES does not name a directory of traces")
def test_our_own_policy_pays() -> None:
    """Judged on what comes after the first half hour."""
    trace = read_trace(Path(TRACES) / "conversation_trace.jsonl")
    rates = []
    for policy in ("lru", "hazard"):
        simulator = Simulator(policy, 10_000)
        for request in trace:
            if request.time_ms < 1_800_000:
                simulator.request(request)
        first = simulator.rates
        simulator.rates = Rates(policy, first.mode, first.capacity_blocks)
        for request in trace:
            if request.time_ms >= 1_800_000:
                simulator.request(request)
        rates.append(simulator.rates.prefix_hit_rate)
    assert rates[1] >= rates[0] + 0.020


@pytest.mark.slow
@pytest.mark.skipif(not TRACES, reason="SUPERFS_TRACES does not name a directory of traces")
@pytest.mark.parametrize(("capacity", "more"), [(1_000, -0.01), (10_000, 0.020), (30_000, -0.01)])
def test_our_own_policy_on_a_trace_it_was_not_made_on(capacity: int, more: float) -> None:
    trace = read_trace(Path(TRACES) / "synthetic_trace.jsonl")
    lru, ours = (simulate(trace, p, capacity).prefix_hit_rate for p in ("lru", "hazard"))
    assert ours >= lru + more


def test_a_picture_and_the_papers_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "small.jsonl"
    lines = [{"timestamp": n, "input_length": 1024, "hash_ids": [n % 3, 10 + n]} for n in range(9)]
    path.write_text("\n".join(map(json.dumps, lines)))
    args = ["kv", "replay", str(path), "--simulate", "--policy", "lru", "--policy", "hazard"]
    args += ["--capacity", "4", "--capacity", "1000"]
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for picture in pictures:
        with pytest.raises(SystemExit) as ended:
            main([*args, "--plot", str(picture)])
        assert not ended.value.code
    out = capsys.readouterr().out
    assert "Table 1" in out
    assert out.count("0.30") == 2, "what the paper says of lru at 1,000, in each run"
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    drawn = pictures[0].read_text()
    assert "<svg" in drawn
    with pytest.raises(SystemExit):
        main([*args, "--plot", str(tmp_path / "one.txt")])
    assert ".svg, .png, .pdf" in capsys.readouterr().err
