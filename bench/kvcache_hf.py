"""Time to first token of a model of transformers, with and without its prefix in the pool.

    python bench/kvcache_hf.py [--tokens 4096] [--cached 3840] [--block 64] [--rounds 4]

Arms take turns within each round: everything computed (`all`), the prefix restored from the pool's
memory (`memory`), the same by the first request after the daemon was killed and has started again
(`restarted`: connecting is part of it), from its disk (`disk`: the daemon's memory is dropped
before), and the rest computed behind a prefix that is in the process already (`rest`: nothing can
be faster). In chunks of one block. The bound is what the floating point operations of the rest are
of those of all. A line for each round; the first one is not counted.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
import transformers

from harness.cluster import Cluster
from superfs.client import ClientConfig
from superfs.kvcache import KeyChain, KVStore, hf

MIB = 2**20


def make_model(hidden: int, layers: int) -> Any:  # noqa: ANN401
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=2, vocab_size=8191,
        max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def operations(model: Any, first: int, last: int) -> float:  # noqa: ANN401
    """Of computing tokens `first` to `last` behind those before, but for the head."""
    config = model.config
    linear = sum(p.numel() for p in model.model.layers.parameters())
    attended = (last * (last + 1) - first * (first + 1)) / 2
    return 2.0 * linear * (last - first) + 4.0 * config.hidden_size * attended * (
        config.num_hidden_layers
    )


def drop_memory(cluster: Cluster, slab: Path) -> None:
    cluster.datad.kill()
    for path in slab.iterdir():
        path.unlink()
    cluster.start(["datad-2"])


def timed(work: Any) -> tuple[float, Any]:  # noqa: ANN401
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def measure(args: argparse.Namespace, cluster: Cluster, slab: Path) -> dict[str, list[float]]:
    model = make_model(args.hidden, args.layers)
    chain = KeyChain(hf.fingerprint(model, block_tokens=args.block))
    tokens = torch.randint(8191, (args.tokens,), generator=torch.Generator().manual_seed(1))
    ids = tokens.tolist()
    config = ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
    seconds: dict[str, list[float]] = defaultdict(list)
    with KVStore.open(config, "bench", chain) as store:
        first = hf.prefill_with_store(model, ids[: args.cached], store)
        keys = chain.keys(ids[: args.cached])
        assert store.persist(keys) == len(keys)
        prefix = copy.deepcopy(first.cache)

        def rest() -> Any:  # noqa: ANN401
            cache, out = copy.deepcopy(prefix), None
            started = time.perf_counter()
            with torch.no_grad():
                for at in range(args.cached, args.tokens, args.block):
                    part = torch.tensor([ids[at : at + args.block]])
                    out = model(input_ids=part, past_key_values=cache, logits_to_keep=1)
            assert out is not None
            return time.perf_counter() - started, out.logits[0, -1]

        def again(logits: torch.Tensor) -> float:
            took, filled = timed(lambda: hf.prefill_with_store(model, ids, store))
            assert filled.restored_tokens == args.cached
            assert torch.equal(logits, filled.logits)
            store.remove(chain.keys(ids)[len(keys) :][:1])
            return took

        for number in range(args.rounds + 1):
            # What is behind the cached part is removed each time: it is to be computed.
            empty = KeyChain(chain.model, salt=str(number).encode())
            with KVStore.open(config, "bench", empty) as other:
                seconds["all"].append(
                    timed(lambda o=other: hf.prefill_with_store(model, ids, o))[0]
                )
                other.remove(empty.keys(ids)[:1])
            took, filled = timed(lambda: hf.prefill_with_store(model, ids, store))
            seconds["memory"].append(took)
            store.remove(chain.keys(ids)[len(keys) :][:1])
            took, logits = rest()
            seconds["rest"].append(took)
            assert torch.equal(logits, filled.logits)
            cluster.restart("datad-2", kill=True)
            seconds["restarted"].append(again(logits))
            drop_memory(cluster, slab)
            store.match(keys)  # connected again
            seconds["disk"].append(again(logits))
            arms = ", ".join(f"{arm} {times[-1] * 1e3:.0f}" for arm, times in seconds.items())
            print(f"round {number}: {arms} ms", flush=True)
    bound = operations(model, 0, args.tokens) / operations(model, args.cached, args.tokens)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{size:.0f} M parameters, float32; by operations the bound is {bound:.1f}")
    seconds["bound"] = [bound]
    return {name: times[1:] if name != "bound" else times for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("tokens", 4096), ("cached", 3840), ("block", 64), ("rounds", 4), ("hidden", 512),
        ("layers", 8),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        settings = {
            "slab_bytes": 256 * MIB, "slab_dir": name, "disk_bytes": 512 * MIB,
            "disk_free_bytes_min": 0,
        }  # fmt: skip
        with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
            print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ")
            print(f"{args.cached} of {args.tokens} tokens cached, blocks of {args.block}, ", end="")
            print(f"{args.rounds} rounds; torch {torch.__version__}")
            seconds = measure(args, cluster, Path(name))
    (bound,) = seconds.pop("bound")
    for name, times in seconds.items():
        gains = sorted(whole / one for whole, one in zip(seconds["all"], times, strict=True))
        gain = statistics.median(gains)
        print(
            f"{name:8} {statistics.median(times) * 1e3:8.0f} ms "
            f"({min(times) * 1e3:.0f} to {max(times) * 1e3:.0f}); all / it {gain:5.1f} "
            f"({gains[0]:.1f} to {gains[-1]:.1f}), {gain / bound:.2f} of the bound"
        )


if __name__ == "__main__":
    main()
