"""The KVCache pool on one host: blocks stored and read, beside copies in memory of the same bytes.

    python bench/kvcache.py [--mib 256] [--block-kib 1024] [--rounds 7]

Arms take turns within each round: a copy from buffer to buffer (`memcpy`), `put` and `get_into` by
shared memory (both with checksums: that is what they are), the same reads, not compared, and put
and get by streams. Then `match` of 250 blocks. Medians, minima and maxima in MB/s.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.cluster import Cluster
from superfs.client import ClientConfig
from superfs.kvcache import Fingerprint, KeyChain, KVStore

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
CHAIN = KeyChain(Fingerprint("bench", "none", 1, 1, 1, block_tokens=1))


class Arms:
    def __init__(self, shared: KVStore, streams: KVStore, blocks: int, size: int) -> None:
        self.shared, self.streams = shared, streams
        self.blocks = [os.urandom(size) for _ in range(blocks)]
        self.room = [bytearray(size) for _ in range(blocks)]
        self.keys = CHAIN.keys(range(blocks))

    def memcpy(self) -> None:
        for room, block in zip(self.room, self.blocks, strict=True):
            room[:] = block

    def put(self, store: KVStore) -> None:
        assert store.put(self.keys, self.blocks) == len(self.keys)

    def get(self, store: KVStore) -> None:
        assert store.get_into(self.keys, self.room) == len(self.keys)

    def unverified(self) -> None:
        (home,) = self.shared._homes.values()
        slab = home.slab
        assert slab is not None
        for number, room in enumerate(self.room):
            slab.read_into(room, number * len(room))


def measure(arms: Arms, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = defaultdict(list)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("memcpy", arms.memcpy),
        ("put, memory", lambda: arms.put(arms.shared)),
        ("get_into, memory", lambda: arms.get(arms.shared)),
        ("read, not compared", arms.unverified),
        ("", lambda: arms.shared.remove(arms.keys[:1]) and None),
        ("put, stream", lambda: arms.put(arms.streams)),
        ("get_into, stream", lambda: arms.get(arms.streams)),
        ("", lambda: arms.shared.remove(arms.keys[:1]) and None),
    ]
    for _ in range(rounds + 1):
        for name, step in steps:
            begun = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - begun)
    return {name: times[1:] for name, times in seconds.items() if name}


def match(store: KVStore, calls: int) -> list[float]:
    keys = CHAIN.keys(range(250))
    store.put(keys, [b"x" * 16] * 250)
    found = []
    for _ in range(calls):
        begun = time.perf_counter()
        assert store.match(keys) == 250
        found.append(time.perf_counter() - begun)
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--block-kib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    blocks = args.mib * 1024 // args.block_kib
    settings = {"slab_bytes": (args.mib + 64) * MIB, "slab_dir": "/dev/shm"}
    with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
        config = ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
        with (
            KVStore.open(config, "bench", CHAIN) as shared,
            KVStore.open(config, "bench", CHAIN, shared=False) as streams,
        ):
            (home,) = shared._homes.values()
            assert home.slab is not None
            slab = Path(home.slab.path)
            try:
                seconds = measure(Arms(shared, streams, blocks, args.block_kib * 1024), args.rounds)
                calls = match(shared, 500)
            finally:
                for path in (slab, slab.with_suffix(".map")):
                    path.unlink()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"{blocks} blocks of {args.block_kib} KiB, {args.rounds} rounds")
    base = statistics.median(seconds["memcpy"])
    for name, times in seconds.items():
        rates = sorted(args.mib * MIB / 1e6 / one for one in times)
        middle = statistics.median(times)
        print(
            f"{name:20} {statistics.median(rates):8.0f} MB/s  ({rates[0]:.0f} to {rates[-1]:.0f})"
            f"  {base / middle:5.2f} of memcpy"
        )
    p50, p99 = calls[len(calls) // 2] * 1e3, calls[len(calls) * 99 // 100] * 1e3
    print(f"match of 250 blocks: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    main()
