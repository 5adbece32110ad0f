"""The KVCache pool beside Mooncake Store across network namespaces: streams of ours, its TCP.

    make mooncake
    python bench/kvcache_netns.py [--mib 128] [--block-kib 1024] [--rounds 7]

Daemons (ours, and Mooncake's master and segment) are in one network, each client is a process in
another one, with a pair of interfaces between them: root, and `ip`. Blocks are stored, read and
removed by one stream at a time; what we read is compared with its checksums. In each round all
arms take turns, and so does a plain socket that carries as much (`TCP alone`): the limit. Medians,
minima, maxima; ratios of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kvcache_mooncake import CHAIN, MIB, TOP, Ours, Peer, measure, mooncake, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.cluster import Cluster
from harness.cutoff import INSIDE, OUTSIDE, Cable, wire
from superfs.client import ClientConfig
from superfs.kvcache import KVStore

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = MIB


def client(target: str, token: str, blocks: int, size: int) -> None:
    """In a process of its own: a line is a thing to do, or how long it took."""
    config = ClientConfig(cluster=(target,), token_file=Path(token))
    with KVStore.open(config, "bench", CHAIN, shared=False) as store:
        answer(Ours(store, blocks, size).do)


def plain(host: str, port: int, blocks: int, size: int) -> None:
    """The same bytes by a socket: a letter says which way, 8 bytes that it is done."""
    room = bytearray(PIECE)
    with socket.create_connection((host, int(port))) as peer:

        def do(verb: str) -> float:
            begun = time.perf_counter()
            peer.sendall(verb[:1].encode())
            if verb == "put":
                for _ in range(blocks * size // PIECE):
                    peer.sendall(room)
            left = blocks * size if verb == "get" else 1
            while left:
                left -= peer.recv_into(room, min(left, PIECE))
            return time.perf_counter() - begun

        answer(do)


def answer(do: object) -> None:
    assert callable(do)
    print("ARM ready", flush=True)
    for line in sys.stdin:
        print(f"ARM {do(line.strip())}", flush=True)


@contextlib.contextmanager
def serving(blocks: int, size: int) -> Iterator[int]:
    """The other end of `plain`: its port."""
    listener = socket.create_server((OUTSIDE, 0))

    def serve() -> None:
        peer, _ = listener.accept()
        room = bytearray(PIECE)
        with peer:
            while verb := peer.recv(1):
                left = blocks * size
                while verb == b"p" and left:
                    left -= peer.recv_into(room, min(left, PIECE))
                while verb == b"g" and left:
                    peer.sendall(room)
                    left -= PIECE
                if verb != b"g":
                    peer.sendall(b".")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield listener.getsockname()[1]
    thread.join(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=128)
    parser.add_argument("--block-kib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--python", type=Path, default=TOP / ".venv-mooncake" / "bin" / "python")
    args = parser.parse_args()
    size = args.block_kib * 1024
    blocks = args.mib * MIB // size
    settings = {"slab_bytes": (args.mib + 64) * MIB, "slab_dir": "/dev/shm"}
    with contextlib.ExitStack() as opened:
        cable = opened.enter_context(Cable())
        cluster = Cluster(settings={"datad": {"kvcache": settings}})
        target = wire(cluster)["clusterd"]
        opened.enter_context(cluster)
        config = ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
        with KVStore.open(config, "bench", CHAIN) as store:
            (home,) = store._homes.values()
            assert home.slab is not None
            slab = Path(home.slab.path)
        opened.callback(slab.unlink)
        opened.callback(slab.with_suffix(".map").unlink)

        def inside(*words: object) -> Peer:
            command = [sys.executable, __file__, *map(str, words), str(blocks), str(size)]
            process = subprocess.Popen(
                cable.wrap(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            opened.callback(process.wait)
            opened.callback(process.terminate)
            return Peer(process)

        peer = opened.enter_context(
            mooncake(args.python, blocks, size, here=OUTSIDE, there=INSIDE, wrap=cable.wrap)
        )
        port = opened.enter_context(serving(blocks, size))
        arms = {
            "Mooncake, TCP": peer.do,
            "streams": inside("client", target, cluster.token_file).do,
            "TCP alone": inside("plain", OUTSIDE, port).do,
        }
        seconds = measure(arms, args.rounds)
    report(seconds, list(arms), blocks, size, args.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        client(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
    elif sys.argv[1:2] == ["plain"]:
        plain(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
