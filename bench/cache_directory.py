"""What bounding a directory costs the metadata daemon: durable creates in an ordinary directory, in
a cache that has room, and in one that is full (each create evicts a file), and uses told.

    python bench/cache_directory.py [--dir DIRECTORY] [--files 20000] [--rounds 5]

All in one run, in turn; each figure is the median of the rounds, with the slowest and the fastest,
and the ratio to the ordinary directory. They hold `--files` files before anything is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import statistics
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superfs.core.attrs import Attr, pack_attr
from superfs.core.cachedirs import CACHE_XATTR, POLICIES, CacheSettings
from superfs.core.ids import ROOT
from superfs.core.tokens import Authority, Grant
from superfs.daemon.statedir import Identity
from superfs.daemon.world import World
from superfs.meta.config import MetaConfig, MetadCommon, MetadConfig
from superfs.meta.founding import make_empty
from superfs.meta.node import MetaNode
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BATCH, BATCHES, SIZE = 256, 4, 100
ROOT_REF = {"ino": int(ROOT), "generation": 1}
Ref = dict[str, int]


class Bench:
    def __init__(self, node: MetaNode) -> None:
        self.node = node
        self.grant = Grant("host", "bench", session_id=1)
        self.seq = 0

    async def send(self, *ops: meta_pb2.Op) -> list[meta_pb2.Result]:
        batch = meta_pb2.Batch(ops=ops, acked_below=self.seq - len(ops) + 1)
        reply = await self.node.execute(self.grant, batch)
        assert not any(r.code for r in reply.results), reply.results[0]
        return list(reply.results)

    def op(self, **verb: Any) -> meta_pb2.Op:  # noqa: ANN401
        self.seq += 1
        return meta_pb2.Op(seq=self.seq, **verb)

    async def directory(self, name: bytes, settings: CacheSettings | None, files: int) -> Ref:
        """With so many files in it."""
        made = {"dir": ROOT_REF, "name": name, "mode": 0o755}
        attr = (await self.send(self.op(mkdir=made)))[0].attr
        ref = {"ino": attr.ino, "generation": attr.generation}
        if settings is not None:
            body = {"inode": ref, "name": CACHE_XATTR, "value": settings.pack()}
            await self.send(self.op(setxattr=body))
        for _ in range(0, files, 1000):
            names = [b"old-%08d-%04d" % (self.seq, i) for i in range(1000)]
            body = {
                "dir": ref, "count": 1000,
                "names": b"".join(struct.pack("<H", len(n)) + n for n in names),
                "attrs": pack_attr(Attr(0, 0, 0, 0o100644, 1, 0, 0, SIZE)) * 1000,
                "inline": bytes(SIZE) * 1000, "inline_lengths": struct.pack("<I", SIZE) * 1000,
            }  # fmt: skip
            await self.send(self.op(create_many=body))
        return ref

    async def creates(self, directory: Ref) -> int:
        for _ in range(BATCHES):
            ops = [
                self.op(create={
                    "dir": directory, "name": b"new-%08d-%d" % (self.seq, i), "mode": 0o100644,
                    "inline": bytes(SIZE),
                })
                for i in range(BATCH)
            ]  # fmt: skip
            await self.send(*ops)
        return BATCH * BATCHES

    async def uses(self, directory: Ref) -> int:
        listing = (await self.send(meta_pb2.Op(read_dir={"dir": directory, "plus": True})))[0]
        inos = listing.listing.inos[: 8 * 1024]
        count = len(inos) // 8
        now = self.node.now_ns()
        body = {
            "place": directory["ino"], "inos": inos,
            "generations": bytes(4 * count),
            "atimes": struct.pack(f"<{count}q", *[now] * count),
        }  # fmt: skip
        await self.send(self.op(touch=body))
        return count


async def measured(work: Callable[[], Awaitable[int]]) -> float:
    start = time.perf_counter()
    done = await work()
    return done / (time.perf_counter() - start)


async def run(directory: Path, files: int, rounds: int) -> None:
    config = MetadConfig(MetadCommon(state_dir=directory / "state"), MetaConfig())
    config.daemon.state_dir.mkdir()
    world, identity = World(Authority(bytes(32))), Identity("bench", "metad", 1, 1)
    make_empty(config, identity, world)
    node = MetaNode(config, identity, world)
    await node.open()
    async with asyncio.TaskGroup() as group:
        node.start(group)
        bench = Bench(node)
        await node.hello(bench.grant, meta_pb2.Hello(protocol=1))
        cases = {"ordinary": await bench.directory(b"ordinary", None, files)}
        cases["cache with room, lru"] = await bench.directory(
            b"room", CacheSettings(1 << 40), files
        )
        for policy in POLICIES:
            settings = CacheSettings(files * SIZE, policy)
            cases[f"full cache, {policy}"] = await bench.directory(policy.encode(), settings, files)
        for what, work in (("creates", bench.creates), ("uses told", bench.uses)):
            await _compare(what, cases, work, rounds)
        await node.stop()


async def _compare(
    what: str, cases: dict[str, Ref], work: Callable[[Ref], Awaitable[int]], rounds: int
) -> None:
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, directory in cases.items():
            rates[name].append(await measured(lambda directory=directory: work(directory)))
    base = statistics.median(rates["ordinary"])
    for name, found in rates.items():
        middle = statistics.median(found)
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"{what}, {name:24} {middle:9,.0f}/s ({spread})  {middle / base:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="sfs-bench-", dir=args.dir))
    try:
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        asyncio.run(run(directory, args.files, args.rounds))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
