"""Many blocks of a KVCache pool under `.kv` of a mount: what listing and reading them takes, and
what it costs the mount.

    python bench/kvcache_mount.py [--blocks 1000000] [--looked 10000] [--read 64]

Blocks of 16 bytes, and `--read` of 1 MiB in a namespace of their own. All names are listed
(`find`), `--looked` of them are looked at (`stat`), the large ones are copied (`cp`). While the
listing goes on, another program makes and writes files in the mount.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.cluster import Cluster
from harness.mount import Mount
from superfs.client import ClientConfig
from superfs.kvcache import Fingerprint, KeyChain, KVStore

CHAIN = KeyChain(Fingerprint("bench", "none", 1, 1, 1, block_tokens=1))
GRANULE, MIB, PROMPT = 4096, 2**20, 250


class Patient(Cluster):
    """The daemon takes its memory first."""

    def wait_healthy(self, name: str, timeout_s: float = 120.0) -> None:
        super().wait_healthy(name, timeout_s)


def resident_mib(pid: int) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def fill(config: ClientConfig, blocks: int, large: int) -> None:
    with KVStore.open(config, "small", CHAIN) as store:
        for prompt in range(blocks // PROMPT):
            keys = CHAIN.keys([prompt] * PROMPT)
            assert store.put(keys, keys) == len(keys)
    with KVStore.open(config, "large", CHAIN) as store:
        keys = CHAIN.keys(range(large))
        assert store.put(keys, [os.urandom(MIB) for _ in keys]) == large


class Others:
    """Programs that make files meanwhile, and how long each waits."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.waits_ms: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._over.wait(0.002):
            number += 1
            begun = time.perf_counter()
            (self.where / f"f{number}").write_bytes(b"x")
            self.waits_ms.append((time.perf_counter() - begun) * 1e3)

    def __enter__(self) -> Others:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def __str__(self) -> str:
        waits = sorted(self.waits_ms)
        middle, late = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
        return f"p50 {middle:.2f} ms, p99 {late:.2f} ms, longest {waits[-1]:.1f} ms ({len(waits)})"


def measure(mount: Mount, args: argparse.Namespace, scratch: Path) -> None:
    process = mount.daemon.process
    assert process is not None
    small = mount.point / ".kv" / "small" / "blocks"
    large = mount.point / ".kv" / "large" / "blocks"
    before = resident_mib(process.pid)
    print(f"the mount has {before:.0f} MiB; a file is made and written meanwhile:")
    with Others(mount.point) as others:
        time.sleep(3)
    print(f"  nobody lists            {others}")
    with Others(mount.point) as others:
        begun = time.perf_counter()
        out = subprocess.run(["find", small, "-type", "f"], check=True, capture_output=True).stdout
        seconds = time.perf_counter() - begun
    names = out.split()
    assert len(names) == args.blocks // PROMPT * PROMPT == len(set(names))
    print(f"  somebody lists          {others}")
    print(f"find: {len(names):,} names in {seconds:.1f} s, {len(names) / seconds:,.0f} a second")
    begun = time.perf_counter()
    for name in names[: args.looked]:
        os.stat(name)
    seconds = time.perf_counter() - begun
    print(f"stat: {args.looked:,} of them, {args.looked / seconds:,.0f} a second")
    begun = time.perf_counter()
    subprocess.run(["cp", "-r", large, scratch / "copy"], check=True)
    seconds = time.perf_counter() - begun
    print(f"cp: {args.read} blocks of 1 MiB, {args.read * MIB / 1e6 / seconds:.0f} MB/s")
    print(f"the mount has {resident_mib(process.pid):.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--looked", type=int, default=10_000)
    parser.add_argument("--read", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        room = (args.blocks + 1024) * GRANULE + args.read * MIB
        settings = {"slab_bytes": room, "granule_bytes": GRANULE, "slab_dir": name}
        with Patient(settings={"datad": {"kvcache": settings}}) as cluster:
            target = cluster.target("clusterd")
            fill(
                ClientConfig(cluster=(target,), token_file=cluster.token_file),
                args.blocks,
                args.read,
            )
            print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
            with Mount(cluster) as mount:
                measure(mount, args, Path(name))


if __name__ == "__main__":
    main()
