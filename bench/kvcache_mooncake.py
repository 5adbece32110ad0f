"""The KVCache pool beside Mooncake Store on one host: blocks stored, read and removed, in turn.

    make mooncake
    python bench/kvcache_mooncake.py [--mib 250] [--block-kib 1024] [--rounds 7]

Mooncake's segment and its client are two processes, with TCP between them, and its calls of many
blocks from and into registered memory (`batch_put_from`, `batch_get_into`). Ours is a data daemon
and a client: by shared memory, and by gRPC streams as between hosts; reads are compared with their
checksums, as always. All arms take turns within each round. Medians, minima, maxima; ratios of the
medians.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import socket
import statistics
import subprocess
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
    from collections.abc import Callable, Iterator, Mapping

TOP = Path(__file__).parents[1]
ARM = TOP / "tests" / "harness" / "mooncakearm.py"
CHAIN = KeyChain(Fingerprint("bench", "none", 1, 1, 1, block_tokens=1))
MIB = 2**20


class Peer:
    """Mooncake's client: each call is a line and its answer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.answer()

    def answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ARM "):
                return line.removeprefix("ARM ").strip()
        raise SystemExit("Mooncake's process has ended")

    def do(self, verb: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{verb}\n")
        self._process.stdin.flush()
        return float(self.answer())


def free_port(host: str) -> int:
    with socket.socket() as one:
        one.bind((host, 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def mooncake(
    python: Path, blocks: int, size: int, *, here: str = "127.0.0.1", there: str = "127.0.0.1",
    wrap: Callable[[list[str]], list[str]] = list,
) -> Iterator[Peer]:  # fmt: skip
    """`here`: the address of the segment and of its master; `there`: of the client, which is run by
    the command that `wrap` makes of its own."""
    rpc, meta, metrics = free_port(here), free_port(here), free_port(here)
    master = [
        str(python.parent / "mooncake_master"), f"-rpc_port={rpc}", f"-metrics_port={metrics}",
        "-enable_http_metadata_server=true", f"-http_metadata_server_port={meta}",
        f"-http_metadata_server_host={here}",
    ]  # fmt: skip
    where = [f"http://{here}:{meta}/metadata", f"{here}:{rpc}"]
    arm = [str(python), str(ARM)]
    with contextlib.ExitStack() as running:

        def start(command: list[str], host: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, env={**os.environ, "MC_TCP_BIND_ADDRESS": host},
            )  # fmt: skip
            running.callback(process.wait)
            running.callback(process.terminate)
            return process

        start(master, here)
        for port in (rpc, meta):
            listening(here, port)
        Peer(start([*arm, "segment", here, *where, str(4 * blocks * size)], here))
        yield Peer(start(wrap([*arm, "client", there, *where, str(blocks), str(size)]), there))


def listening(host: str, port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.1)
    raise SystemExit(f"nobody listens on port {port}")


class Ours:
    def __init__(self, store: KVStore, blocks: int, size: int) -> None:
        self.store = store
        self.blocks = [os.urandom(size) for _ in range(blocks)]
        self.room = [bytearray(size) for _ in range(blocks)]
        self.keys = CHAIN.keys(range(blocks))

    def do(self, verb: str) -> float:
        begun = time.perf_counter()
        if verb == "put":
            done = self.store.put(self.keys, self.blocks)
        elif verb == "get":
            done = self.store.get_into(self.keys, self.room)
        else:
            done = self.store.remove(self.keys[:1])
        seconds = time.perf_counter() - begun
        assert done == len(self.keys)
        assert verb != "get" or self.room == self.blocks
        return seconds


def measure(
    arms: Mapping[str, Callable[[str], float]], rounds: int
) -> dict[tuple[str, str], list[float]]:
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        for name, do in arms.items():
            for verb in ("put", "get", "remove"):
                took = do(verb)
                if turn:
                    seconds[name, verb].append(took)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=250)
    parser.add_argument("--block-kib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--python", type=Path, default=TOP / ".venv-mooncake" / "bin" / "python")
    args = parser.parse_args()
    size = args.block_kib * 1024
    blocks = args.mib * MIB // size
    settings = {"slab_bytes": (args.mib + 64) * MIB, "slab_dir": "/dev/shm"}
    with contextlib.ExitStack() as opened:
        cluster = opened.enter_context(Cluster(settings={"datad": {"kvcache": settings}}))
        config = ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
        shared = opened.enter_context(KVStore.open(config, "bench", CHAIN))
        streams = opened.enter_context(KVStore.open(config, "bench", CHAIN, shared=False))
        (home,) = shared._homes.values()
        assert home.slab is not None
        slab = Path(home.slab.path)
        opened.callback(slab.unlink)
        opened.callback(slab.with_suffix(".map").unlink)
        peer = opened.enter_context(mooncake(args.python, blocks, size))
        arms = {
            "Mooncake, TCP": peer.do,
            "shared memory": Ours(shared, blocks, size).do,
            "streams": Ours(streams, blocks, size).do,
        }
        seconds = measure(arms, args.rounds)
    report(seconds, list(arms), blocks, size, args.rounds)


def report(
    seconds: dict[tuple[str, str], list[float]], arms: list[str], blocks: int, size: int,
    rounds: int,
) -> None:  # fmt: skip
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"{blocks} blocks of {size // 1024} KiB, {rounds} rounds")
    for verb in ("put", "get"):
        base = statistics.median(seconds["Mooncake, TCP", verb])
        for name in arms:
            times = seconds[name, verb]
            rates = sorted(blocks * size / 1e6 / one for one in times)
            print(
                f"{verb} {name:15} {statistics.median(rates):7.0f} MB/s "
                f"({rates[0]:.0f} to {rates[-1]:.0f})  {base / statistics.median(times):5.2f}"
            )


if __name__ == "__main__":
    main()
