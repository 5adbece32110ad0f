"""Layers loaded while others are computed, from a store that gives so many bytes a second.

    python bench/kvcache_layers.py [--tokens 2048] [--cached 1792] [--block 64] [--rounds 3]

For each rate: `load`, the prefix read and not used; `compute`, what is behind it computed with the
prefix in the process; `hit`, both by `prefill_with_store`, beside the longer of the two. Then `hit`
with an admission test that knows nothing yet, and with the same one again, beside everything
computed (`all`, without a store). Arms take turns within each round; medians, minima, maxima.
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
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

import torch
from kvcache_hf import MIB, make_model

from harness.cluster import Cluster
from superfs.client import ClientConfig
from superfs.kvcache import KeyChain, KVStore, hf
from superfs.kvcache.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Callable

OVERLAPPED = (16, 32, 64, 128, 0)
ADMITTED = (1, 4, 16, 64, 256, 0)


class Bench:
    def __init__(self, args: argparse.Namespace, config: ClientConfig) -> None:
        self.args = args
        self.config = config
        self.model = make_model(args.hidden, args.layers)
        self.chain = KeyChain(hf.fingerprint(self.model, block_tokens=args.block))
        generator = torch.Generator().manual_seed(1)
        self.ids: list[int] = torch.randint(8191, (args.tokens,), generator=generator).tolist()
        self.seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
        with KVStore.open(config, "bench", self.chain) as store:
            filled = hf.prefill_with_store(self.model, self.ids[: args.cached], store)
        self.prefix = filled.cache
        self.keys = self.chain.keys(self.ids)
        self.cached = args.cached // args.block
        self.size = len(self.room()[0])

    def room(self) -> list[bytearray]:
        p = self.chain.model
        size = p.layers * 2 * p.kv_heads * p.head_dim * p.block_tokens * 4
        return [bytearray(size) for _ in range(self.cached)]

    def store(self, rate: int) -> KVStore:
        return KVStore.open(self.config, "bench", self.chain, bytes_per_s=rate * 1e6)

    def timed(self, arm: str, rate: int, work: Callable[[], Any]) -> Any:  # noqa: ANN401
        started = time.perf_counter()
        found = work()
        self.seconds[arm, rate].append(time.perf_counter() - started)
        return found

    def compute(self, cache: Any, first: int) -> torch.Tensor:  # noqa: ANN401
        out = None
        with torch.no_grad():
            for at in range(first, self.args.tokens, self.args.block):
                part = torch.tensor([self.ids[at : at + self.args.block]])
                out = self.model(input_ids=part, past_key_values=cache, logits_to_keep=1)
        assert out is not None
        logits: torch.Tensor = out.logits[0, -1]
        return logits

    def hit(self, store: KVStore, arm: str, rate: int, admission: Admission | None) -> None:
        filled = self.timed(
            arm, rate,
            lambda: hf.prefill_with_store(self.model, self.ids, store, admission=admission),
        )  # fmt: skip
        assert torch.equal(filled.logits, self.logits)
        store.remove(self.keys[self.cached : self.cached + 1])

    def round(self) -> None:
        empty = type(self.prefix)(config=self.model.config)
        self.logits = self.timed("all", 0, lambda: self.compute(empty, 0))
        for rate in OVERLAPPED:
            with self.store(rate) as store:
                room = self.room()
                found = self.timed(
                    "load", rate, lambda s=store, r=room: s.get_into(self.keys[: self.cached], r)
                )
                assert found == self.cached
                cache = copy.deepcopy(self.prefix)
                self.timed("compute", rate, lambda c=cache: self.compute(c, self.args.cached))
                self.hit(store, "hit", rate, None)
        for rate in ADMITTED:
            with self.store(rate) as store:
                admission = Admission()
                self.hit(store, "first", rate, admission)
                self.hit(store, "again", rate, admission)

    def show(self) -> None:
        def middle(arm: str, rate: int) -> float:
            return statistics.median(self.seconds[arm, rate])

        def ms(arm: str, rate: int) -> str:
            times = sorted(self.seconds[arm, rate])
            return f"{middle(arm, rate) * 1e3:6.0f} ({times[0] * 1e3:.0f} to {times[-1] * 1e3:.0f})"

        print(f"{self.cached} blocks, {self.cached * self.size / 1e6:.0f} MB; ms")
        for rate in OVERLAPPED:
            longer = max(middle("load", rate), middle("compute", rate))
            print(
                f"{rate or 'unlimited':>9} MB/s: load {ms('load', rate)}, compute "
                f"{ms('compute', rate)}, hit {ms('hit', rate)}: {middle('hit', rate) / longer:.2f}"
                " of the longer"
            )
        print(f"all {ms('all', 0)}")
        for rate in ADMITTED:
            whole = middle("all", 0)
            print(
                f"{rate or 'unlimited':>9} MB/s, admission: first {ms('first', rate)}: "
                f"{middle('first', rate) / whole:.2f} of all; again {ms('again', rate)}: "
                f"{middle('again', rate) / whole:.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("tokens", 2048), ("cached", 1792), ("block", 64), ("rounds", 3), ("hidden", 512),
        ("layers", 8),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        settings = {"slab_bytes": 256 * MIB, "slab_dir": name}
        with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
            target = cluster.target("clusterd")
            bench = Bench(args, ClientConfig(cluster=(target,), token_file=cluster.token_file))
            for _ in range(args.rounds):
                bench.round()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"{args.cached} of {args.tokens} tokens cached, in chunks of {args.block}, ", end="")
    print(f"{args.layers} layers, {args.rounds} rounds; torch {torch.__version__}")
    bench.show()


if __name__ == "__main__":
    main()
