"""What the benches of FastDecode have in common: models with random weights, R-workers as
processes, and one arm of a comparison as a process of its own."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import torch
import transformers

from superfs.kvcache.fastdecode.form import PAGE_TOKENS
from superfs.kvcache.fastdecode.smodel import SModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from superfs.kvcache.fastdecode.form import Form

VOCABULARY = 8192
TOKENS_MAX = 16_384
WORKER = """
import sys, time
from pathlib import Path
from superfs.kvcache.fastdecode.cache import Cache
from superfs.kvcache.fastdecode.rworker import LocalServer
from superfs.kvcache.fastdecode.session import Room
path, memory, threads, delay = Path(sys.argv[1]), *map(float, sys.argv[2:5])
if delay:
    def attend(self, rows, layer, q, k, v, o):
        time.sleep(delay * int(rows.lengths.sum()))
    Cache.attend = attend
room = Room(int(memory), threads=int(threads), kernel_dir=None, lease_s=60, sessions_max=1)
server = LocalServer(path, room, 60)
print("ready", flush=True)
server.serve()
"""


class Worker:
    """An R-worker of its own process, on these processors, a thread for each. `delay_s`: for each
    cached token it sleeps, and no more."""

    def __init__(self, path: Path, memory: int, cpus: set[int], delay_s: float = 0.0) -> None:
        self.path = path
        words = [str(path), str(memory), str(len(cpus)), str(delay_s)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *words], stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def make_llama(hidden: int, layers: int, kv_heads: int, dtype: str) -> Any:  # noqa: ANN401
    """Heads of 64, so that `hidden` / 64 / `kv_heads` queries share a head of keys."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=kv_heads, vocab_size=VOCABULARY,
        max_position_embeddings=TOKENS_MAX, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()


def make_model(hidden: int, layers: int, kv_heads: int, dtype: str) -> SModel:
    return SModel(make_llama(hidden, layers, kv_heads, dtype))


def use(cpus: set[int]) -> None:
    os.sched_setaffinity(0, cpus)
    torch.set_num_threads(len(cpus))


def memory_of(form: Form, sequences: int, tokens: int) -> int:
    """With a page more for each."""
    return sequences * (-(-tokens // PAGE_TOKENS) + 1) * form.page_bytes_total


def in_a_process(script: str, words: Sequence[str], python: str = sys.executable) -> dict[str, Any]:
    """The last line of its output, which is JSON."""
    done = subprocess.run([python, script, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(words)}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and from where to where."""
    return (
        f"{statistics.median(values):.{digits}f} "
        f"({min(values):.{digits}f} to {max(values):.{digits}f})"
    )


def machine(args: object) -> str:
    name = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                name = line.split(":")[1].strip()
                break
    where = f"{name}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    return f"{where}, torch {torch.__version__}, {args}"
