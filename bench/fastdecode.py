"""FastDecode: tokens a second with and without the cache elsewhere, and what they are made of.

    python bench/fastdecode.py [throughput] [kernel] [--rounds 3] [--only ARM …]

throughput  Arms take turns, each a process of its own, all on both processors: the engine in one
            process whose cache has room for 16 full sequences (`capped`), the same with an R-worker
            that has room for 8 times that (`rworker`), and one process with that much room
            (`uncapped`). The single processes are run both ways, with torch's threads (`-torch`)
            and with a mini-batch a thread; the better one counts. `apart` has one processor for the
            weights and the other for the R-worker, `alone` one for all with the small cache.
kernel      Attention over a bfloat16 cache of 1 GiB against reading that much memory (numpy's sum
            of it, as 64-bit words), in turns, on one processor and on both.

Random weights, random prompts, greedy; every request goes to its full length.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
import transformers

from superfs.kvcache.fastdecode.cache import Cache
from superfs.kvcache.fastdecode.engine import Engine
from superfs.kvcache.fastdecode.form import Form
from superfs.kvcache.fastdecode.link import LocalLink, SharedLink
from superfs.kvcache.fastdecode.placing import EngineConfig
from superfs.kvcache.fastdecode.sampling import Sampling
from superfs.kvcache.fastdecode.smodel import SModel

GIB = 2**30
WORKER = """
import sys
from pathlib import Path
from superfs.kvcache.fastdecode.rworker import LocalServer
from superfs.kvcache.fastdecode.session import Room
path, memory, threads = Path(sys.argv[1]), *map(float, sys.argv[2:4])
room = Room(int(memory), threads=int(threads), kernel_dir=None, lease_s=60, sessions_max=1)
server = LocalServer(path, room, 60)
print("ready", flush=True)
server.serve()
"""


class Worker:
    """An R-worker of its own process, on these processors."""

    def __init__(self, room: Path, name: str, memory: int, cpus: set[int]) -> None:
        self.path = room / name
        command = [
            sys.executable, "-c", WORKER, str(self.path), str(memory), str(len(cpus)),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def make_model(args: argparse.Namespace) -> SModel:
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        hidden_size=args.hidden, intermediate_size=3 * args.hidden, num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64, num_key_value_heads=args.kv_heads,
        vocab_size=8192, max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, args.dtype)).eval()
    return SModel(model)


def use(cpus: set[int]) -> None:
    os.sched_setaffinity(0, cpus)
    torch.set_num_threads(len(cpus))


def memory_of(form: Form, sequences: int, tokens: int) -> int:
    """With a page more for each."""
    return sequences * (-(-tokens // 32) + 1) * form.page_bytes_total


def serve(
    part: SModel,
    links: list[Any],
    args: argparse.Namespace,
    *,
    minis: int,
    threads: int,
    count: int,
) -> tuple[float, Engine]:
    """Tokens a second, prompts included in the time."""
    whole = args.prompt + args.new
    config = EngineConfig(
        batch=count, minis=minis, threads=threads, tokens_max=whole, chunk_tokens=512
    )
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(8192, (count, args.prompt), generator=generator).tolist()
    with Engine(part, links, config) as engine:
        started = time.perf_counter()
        asked = [
            engine.submit(prompt, Sampling(max_tokens=args.new, ignore_eos=True))
            for prompt in prompts
        ]
        engine.run()
        took = time.perf_counter() - started
        assert all(request.finish == "length" for request in asked)
    return count * args.new / took, engine


PLACES = {  # arm: room for sequences, R-worker, threads at the weights
    "capped-torch": (16, False, 1),
    "capped": (16, False, 2),
    "rworker": (128, True, 2),
    "uncapped-torch": (128, False, 1),
    "uncapped": (128, False, 2),
    "apart": (128, True, 1),
    "alone": (16, False, 1),
}
COUNT = 128


def place(args: argparse.Namespace) -> None:
    """One arm, in this process: a line of JSON."""
    arm = args.place
    room_for, elsewhere, threads = PLACES[arm]
    use({0} if arm in ("apart", "alone") else {0, 1})
    part = make_model(args)
    form, whole = part.form, args.prompt + args.new
    memory = memory_of(form, room_for, whole)
    minis = 1 if arm.endswith("-torch") or arm == "alone" else 2
    sizes: dict[str, Any] = {
        "slots": COUNT, "tokens_max": whole, "rows": -(-COUNT // minis), "minis": minis,
    }  # fmt: skip
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as room:
        if elsewhere:
            cpus = {1} if arm == "apart" else {0, 1}
            worker = Worker(Path(room), "r", memory, cpus)
            link: Any = SharedLink(worker.path, form, **sizes)
        else:
            link = LocalLink(form, memory_bytes=memory, threads=1 if arm == "alone" else 2, **sizes)
        rate, engine = serve(part, [link], args, minis=minis, threads=threads, count=COUNT)
        if elsewhere:
            wired = link.counters
            law = form.wire_bytes * form.head_dim * 2 * (form.heads + form.kv_heads)
            found["wire"] = (wired.step_bytes + wired.message_bytes) / (wired.rows * law)
            worker.close()
    print(json.dumps(found | {"rate": rate, "waited_s": engine.figures.waited_s}))


def throughput(args: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {}
    for number in range(args.rounds):
        for arm in args.only or PLACES:
            command = [
                sys.executable, __file__, "--place", arm, *(
                    f"--{name.replace('_', '-')}={getattr(args, name)}"
                    for name in ("hidden", "layers", "kv_heads", "dtype", "prompt", "new")
                ),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            rates.setdefault(arm, []).append(found["rate"])
            wire = f", {found['wire']:.3f} of the law's bytes" if "wire" in found else ""
            print(f"  round {number} {arm}: {found['rate']:.0f} tokens/s{wire}", flush=True)
    print(
        f"\n{COUNT} requests of {args.prompt} + {args.new} tokens; cache for 16 or {COUNT} of them"
    )
    for arm, each in rates.items():
        print(
            f"{arm:15} {statistics.median(each):8.0f} tokens/s  "
            f"({min(each):.0f} to {max(each):.0f})"
        )
    for ours, arms in (
        ("rworker", ("capped", "capped-torch")), ("rworker", ("uncapped", "uncapped-torch")),
        ("apart", ("alone",)),
    ):  # fmt: skip
        present = [rates[arm] for arm in arms if arm in rates]
        if present and ours in rates:
            ratios = [
                mine / max(others) for mine, *others in zip(rates[ours], *present, strict=True)
            ]
            print(
                f"{ours} against {arms[0]}: {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )


def kernel(args: argparse.Namespace) -> None:
    for group in (1, args.group):
        for cpus in ({0}, {0, 1}):
            kernel_on(args, group, cpus)


def kernel_on(args: argparse.Namespace, group: int, cpus: set[int]) -> None:
    use(cpus)
    rates: list[tuple[float, float]] = []
    tokens, sequences = 1024, 64
    kv_heads, dim = 8, 64
    form = Form(1, group * kv_heads, kv_heads, dim, dim**-0.5, "bfloat16", "bfloat16")
    per_token = 2 * kv_heads * dim * 2
    sequences = GIB // (per_token * tokens)
    cache = Cache(
        form, memory_of(form, sequences, tokens + 64), sequences, tokens + 64, threads=len(cpus)
    )
    fill = np.zeros((tokens, kv_heads * dim * 2), np.uint8)
    for slot in range(sequences):
        cache.fill(slot, 0, 0, tokens, fill, fill)
    q = torch.randn(sequences, form.heads * dim).to(torch.bfloat16).view(torch.uint8).numpy()
    k = torch.randn(sequences, kv_heads * dim).to(torch.bfloat16).view(torch.uint8).numpy()
    o = np.zeros_like(q)
    plain = np.ones(GIB // 8, np.int64)
    readers = ThreadPoolExecutor(len(cpus))
    parts = np.split(plain, len(cpus))
    for _ in range(args.rounds + 1):
        started = time.perf_counter()
        list(readers.map(np.sum, parts))
        read = GIB / (time.perf_counter() - started)
        rows, _ = cache.step(np.arange(sequences, dtype=np.int32))
        held = int(rows.lengths.sum()) * per_token
        started = time.perf_counter()
        cache.attend(rows, 0, q, k, k, o)
        rates.append((held / (time.perf_counter() - started), read))
    readers.shutdown()
    cache.close()
    rates = rates[1:]
    ratios = [a / b for a, b in rates]
    print(
        f"kernel, {group} queries for each head of keys, {len(cpus)} threads: "
        f"{statistics.median(a for a, _ in rates) / 1e9:.1f} GB/s, memory is read at "
        f"{statistics.median(b for _, b in rates) / 1e9:.1f} GB/s: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})", flush=True,
    )  # fmt: skip


ARMS = {"throughput": throughput, "kernel": kernel}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arms", nargs="*", metavar="|".join(ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=PLACES, help="arms of throughput")
    parser.add_argument("--place", choices=PLACES, help="one arm of throughput, in this process")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=96)
    parser.add_argument("--group", type=int, default=4)
    args = parser.parse_args()
    if args.place:
        place(args)
        return
    if unknown := set(args.arms) - set(ARMS):
        parser.error(f"{', '.join(unknown)}: there are {', '.join(ARMS)}")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, {args}")
    for arm in args.arms or ARMS:
        ARMS[arm](args)


if __name__ == "__main__":
    main()
