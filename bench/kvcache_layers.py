"""Layers loaded while others are computed, from a store that gives so many bytes a second.

    python bench/kvcache_layers.py [--tokens 2048] [--cached 1792] [--rounds 3] [--threads 1]
        [--rates 16 32 64 128 0] [--admitted 1 4 16 64 256 0]

For each of `--rates`, in MB/s (0: unlimited): `load`, the prefix read and not used; `compute`, what
is behind it computed with the prefix in the process; `hit`, both by `prefill_with_store`, beside
the longer of the two. For each of `--admitted`: `hit` with an admission test that knows nothing yet
(`first`), and with the same one again, beside everything computed (`all`, without a store). What is
computed is measured right before and right after, and counts with the mean. Arms take turns within
each round, whose ratios are printed as they come; then medians, minima, maxima of these ratios.
`--threads 1` leaves a processor of two to the rest of the machine.
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

RATES = (16, 32, 64, 128, 0)
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
        self.logits = self.compute(copy.deepcopy(self.prefix), args.cached)
        self.keys = self.chain.keys(self.ids)
        self.cached = args.cached // args.block
        self.size = len(self.room()[0])

    def room(self) -> list[bytearray]:
        p = self.chain.model
        size = p.layers * 2 * p.kv_heads * p.head_dim * p.block_tokens * 4
        return [bytearray(size) for _ in range(self.cached)]

    def store(self, rate: int) -> KVStore:
        return KVStore.open(self.config, "bench", self.chain, bytes_per_s=rate * 1e6)

    def timed(
        self, arm: str, rate: int, work: Callable[[], Any], *, again: bool = False
    ) -> Any:  # noqa: ANN401  # fmt: skip
        """`again`: the mean with the last one counts."""
        started = time.perf_counter()
        found = work()
        took, times = time.perf_counter() - started, self.seconds[arm, rate]
        if again:
            took = (took + times.pop()) / 2
        times.append(took)
        return found

    def last(self, arm: str, rate: int) -> float:
        return self.seconds[arm, rate][-1]

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

    def behind_the_prefix(self, rate: int, *, again: bool) -> None:
        cache = copy.deepcopy(self.prefix)
        self.timed("compute", rate, lambda: self.compute(cache, self.args.cached), again=again)

    def everything(self, rate: int, *, again: bool) -> None:
        empty = type(self.prefix)(config=self.model.config)
        self.timed("all", rate, lambda: self.compute(empty, 0), again=again)

    def round(self) -> None:
        ratios = []
        for rate in self.args.rates:
            with self.store(rate) as store:
                room = self.room()
                found = self.timed(
                    "load", rate, lambda s=store, r=room: s.get_into(self.keys[: self.cached], r)
                )
                assert found == self.cached
                self.behind_the_prefix(rate, again=False)
                self.hit(store, "hit", rate, None)
                self.behind_the_prefix(rate, again=True)
            longer = max(self.last("load", rate), self.last("compute", rate))
            ratios.append(f"{rate or 'all'}: {self.last('hit', rate) / longer:.2f}")
        if ratios:
            print("hit of the longer:", ", ".join(ratios), flush=True)
        ratios.clear()
        for rate in self.args.admitted:
            with self.store(rate) as store:
                admission = Admission()
                self.everything(rate, again=False)
                self.hit(store, "first", rate, admission)
                self.hit(store, "again", rate, admission)
                self.everything(rate, again=True)
            first, again = (self.last(a, rate) / self.last("all", rate) for a in ("first", "again"))
            ratios.append(f"{rate or 'all'}: {first:.2f} {again:.2f}")
        if ratios:
            print("first and again of all:", ", ".join(ratios), flush=True)

    def show(self) -> None:
        def middle(arm: str, rate: int) -> float:
            return statistics.median(self.seconds[arm, rate])

        def ms(arm: str, rate: int) -> str:
            times = sorted(self.seconds[arm, rate])
            return f"{middle(arm, rate) * 1e3:6.0f} ({times[0] * 1e3:.0f} to {times[-1] * 1e3:.0f})"

        def of(arm: str, *others: str) -> str:
            """Medians, of each round beside the longest of the others."""
            found = []
            for n, mine in enumerate(self.seconds[arm, rate]):
                found.append(mine / max(self.seconds[other, rate][n] for other in others))
            return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"

        print(f"{self.cached} blocks, {self.cached * self.size / 1e6:.0f} MB; ms")
        for rate in self.args.rates:
            print(
                f"{rate or 'unlimited':>9} MB/s: load {ms('load', rate)}, compute "
                f"{ms('compute', rate)}, hit {ms('hit', rate)}: {of('hit', 'load', 'compute')} "
                "of the longer"
            )
        for rate in self.args.admitted:
            print(
                f"{rate or 'unlimited':>9} MB/s: all {ms('all', rate)}, with admission first "
                f"{of('first', 'all')} of it, again {of('again', 'all')}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("tokens", 2048), ("cached", 1792), ("block", 64), ("rounds", 3), ("hidden", 512),
        ("layers", 8), ("threads", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rates", type=int, nargs="*", default=RATES)
    parser.add_argument("--admitted", type=int, nargs="*", default=ADMITTED)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        settings = {"slab_bytes": 256 * MIB, "slab_dir": name}
        with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
            target = cluster.target("clusterd")
            bench = Bench(args, ClientConfig(cluster=(target,), token_file=cluster.token_file))
            for _ in range(args.rounds):
                bench.round()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"{args.cached} of {args.tokens} tokens cached, in chunks of {args.block}, ", end="")
    print(f"{args.layers} layers, {args.rounds} rounds, {args.threads} threads; ", end="")
    print(f"torch {torch.__version__}")
    bench.show()


if __name__ == "__main__":
    main()
