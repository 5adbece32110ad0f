"""Mooncake Store in its own Python, as a peer of the KVCache pool's bench: a line on standard input
is a thing to do, a line on standard output how many seconds it took.

    mooncakearm.py segment HOST META MASTER BYTES             has memory, until its input ends
    mooncakearm.py client  HOST META MASTER BLOCKS BYTES      put, get, remove: all blocks, TCP
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

from mooncake.store import MooncakeDistributedStore


def store(host: str, meta: str, master: str, segment: int, buffer: int) -> MooncakeDistributedStore:
    made = MooncakeDistributedStore()
    code = made.setup(host, meta, segment, buffer, "tcp", "", master)
    if code:
        raise SystemExit(f"setup: {code}")
    return made


def client(host: str, meta: str, master: str, blocks: int, size: int) -> None:
    one = store(host, meta, master, 0, 64 << 20)
    room = bytearray(2 * blocks * size)
    start = ctypes.addressof((ctypes.c_char * len(room)).from_buffer(room))
    for at in range(0, blocks * size, size):
        room[at : at + size] = os.urandom(size)
    if one.register_buffer(start, len(room)):
        raise SystemExit("register_buffer")
    keys = [f"block-{number}" for number in range(blocks)]
    mine = [start + number * size for number in range(blocks)]
    back = [start + (blocks + number) * size for number in range(blocks)]
    sizes = [size] * blocks
    say("ready")
    for line in sys.stdin:
        begun = time.perf_counter()
        if line == "put\n":
            good = not any(one.batch_put_from(keys, mine, sizes))
        elif line == "get\n":
            good = one.batch_get_into(keys, back, sizes) == sizes
        else:
            good = all(one.remove(key, True) == 0 for key in keys)
        seconds = time.perf_counter() - begun
        if line == "get\n" and room[: blocks * size] != room[blocks * size :]:
            good = False
        say(str(seconds) if good else "failed")


def say(text: str) -> None:
    print(f"ARM {text}", flush=True)


def main() -> None:
    kind, host, meta, master, *rest = sys.argv[1:]
    if kind == "client":
        client(host, meta, master, int(rest[0]), int(rest[1]))
        return
    kept = store(host, meta, master, int(rest[0]), 64 << 20)
    say("ready")
    sys.stdin.read()
    kept.close()


if __name__ == "__main__":
    main()
