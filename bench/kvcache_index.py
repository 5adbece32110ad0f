"""The index of a KVCache pool with many blocks: what each takes of the daemon's memory, and how
long `match` of 250 keys takes over its wire.

    python bench/kvcache_index.py [--blocks 1000000] [--prompt 250] [--calls 3000]

A data daemon with granules of 4 KiB; blocks of 16 bytes in prompts of `--prompt` are stored through
the library, then prompts are matched in random order. Memory is what the daemon has resident more
than before the first block, its slab and map are files and do not count.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.cluster import Cluster
from superfs.client import ClientConfig
from superfs.kvcache import Fingerprint, KeyChain, KVStore

CHAIN = KeyChain(Fingerprint("bench", "none", 1, 1, 1, block_tokens=1))
GRANULE = 4096


def resident(pid: int) -> int:
    """Of its own: no pages of files."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--prompt", type=int, default=250)
    parser.add_argument("--calls", type=int, default=3000)
    args = parser.parse_args()
    prompts = args.blocks // args.prompt
    with tempfile.TemporaryDirectory(dir="/dev/shm") as slab:
        room = (args.blocks + 1024) * GRANULE
        settings = {"slab_bytes": room, "granule_bytes": GRANULE, "slab_dir": slab}
        with Patient(settings={"datad": {"kvcache": settings}}) as cluster:
            target = cluster.target("clusterd")
            config = ClientConfig(cluster=(target,), token_file=cluster.token_file)
            process = cluster.datad.process
            assert process is not None
            with KVStore.open(config, "bench", CHAIN) as store:
                measure(store, process.pid, prompts, args)


class Patient(Cluster):
    """The daemon takes its memory first."""

    def wait_healthy(self, name: str, timeout_s: float = 120.0) -> None:
        super().wait_healthy(name, timeout_s)


def measure(store: KVStore, pid: int, prompts: int, args: argparse.Namespace) -> None:
    before, begun = resident(pid), time.perf_counter()
    for prompt in range(prompts):
        keys = CHAIN.keys([prompt] * args.prompt)
        assert store.put(keys, keys) == len(keys)
    seconds, blocks = time.perf_counter() - begun, prompts * args.prompt
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(
        f"{blocks:,} blocks in prompts of {args.prompt}, stored at {blocks / seconds:,.0f} a second"
    )
    print(f"memory: {(resident(pid) - before) / blocks:.0f} bytes a block")
    rng = random.Random(1)
    calls = []
    for _ in range(args.calls):
        keys = CHAIN.keys([rng.randrange(prompts)] * args.prompt)
        begun = time.perf_counter()
        assert store.match(keys) == len(keys)
        calls.append(time.perf_counter() - begun)
    calls.sort()
    p50, p99 = calls[len(calls) // 2] * 1e3, calls[len(calls) * 99 // 100] * 1e3
    print(f"match of {args.prompt} blocks, {len(calls)} calls: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    main()
