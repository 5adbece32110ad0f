"""What a metadata daemon does in a second without its network: durable creates in batches, bulk
creation of small files, lookups, listings.

    python bench/meta_commit.py [--dir DIRECTORY] [--batch 256] [--rounds 5]

DIRECTORY should lie on the disk that is meant; every figure is the median of the rounds, with the
slowest and the fastest. A commit is one fdatasync: see the disk's own figure in the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import stat
import statistics
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superfs.core.attrs import Attr, pack_attr
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

MANY = 1000
ROOT_REF = {"ino": int(ROOT), "generation": 1}


class Bench:
    def __init__(self, node: MetaNode, batch: int, rounds: int) -> None:
        self.node, self.batch, self.rounds = node, batch, rounds
        self.grant = Grant("host", "bench", session_id=1)
        self.seq = 0

    async def send(self, *ops: meta_pb2.Op) -> meta_pb2.BatchReply:
        reply = await self.node.execute(
            self.grant, meta_pb2.Batch(ops=ops, acked_below=self.seq - len(ops) + 1)
        )
        assert not any(r.code for r in reply.results), reply.results[0]
        return reply

    def op(self, **verb: Any) -> meta_pb2.Op:  # noqa: ANN401
        self.seq += 1
        return meta_pb2.Op(seq=self.seq, **verb)

    async def creates(self) -> int:
        for _ in range(8):
            ops = []
            for _ in range(self.batch):
                name = b"file-%08d" % self.seq
                ops.append(self.op(create={"dir": ROOT_REF, "name": name, "mode": 0o100644}))
            await self.send(*ops)
        return 8 * self.batch

    async def one_by_one(self) -> int:
        for _ in range(50):
            name = b"file-%08d" % self.seq
            await self.send(self.op(create={"dir": ROOT_REF, "name": name, "mode": 0o100644}))
        return 50

    async def lookups(self) -> int:
        op = meta_pb2.Op(lookup={"dir": ROOT_REF, "name": b"file-00000000"})
        for _ in range(4):
            await self.send(*[op] * self.batch)
        return 4 * self.batch

    async def listing(self) -> int:
        reply = await self.send(meta_pb2.Op(read_dir={"dir": ROOT_REF, "plus": True}))
        return int(reply.results[0].listing.count)

    def many(self, size: int) -> meta_pb2.Op:
        names = [b"many-%08d-%04d" % (self.seq, i) for i in range(MANY)]
        attr = pack_attr(Attr(0, 0, 0, stat.S_IFREG | 0o644, 1, 0, 0, size))
        return self.op(
            create_many={
                "dir": ROOT_REF,
                "count": MANY,
                "names": b"".join(struct.pack("<H", len(n)) + n for n in names),
                "attrs": attr * MANY,
                "inline": bytes(size) * MANY,
                "inline_lengths": struct.pack("<I", size) * MANY,
            }
        )

    async def small_files(self) -> int:
        for _ in range(4):
            await self.send(self.many(1000))
        return 4 * MANY

    async def full_pages(self) -> int:
        for _ in range(4):
            await self.send(self.many(3500))
        return 4 * MANY

    async def measure(self, what: str, work: Callable[[], Awaitable[int]]) -> None:
        rates = []
        for _ in range(self.rounds):
            start = time.perf_counter()
            done = await work()
            rates.append(done / (time.perf_counter() - start))
        middle = statistics.median(rates)
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        print(f"{what:42} {middle:10,.0f}/s  ({spread})  {1e6 / middle:8.1f} us")


def disk_sync_ms(directory: Path) -> float:
    path = directory / "sync-probe"
    times = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(30):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(1000 * (time.perf_counter() - start))
    path.unlink()
    return statistics.median(times)


async def run(directory: Path, batch: int, rounds: int) -> None:
    config = MetadConfig(MetadCommon(state_dir=directory / "state"), MetaConfig())
    config.daemon.state_dir.mkdir()
    world, identity = World(Authority(bytes(32))), Identity("bench", "metad", 1, 1)
    make_empty(config, identity, world)
    node = MetaNode(config, identity, world)
    await node.open()
    async with asyncio.TaskGroup() as group:
        node.start(group)
        bench = Bench(node, batch, rounds)
        await node.hello(bench.grant, meta_pb2.Hello(protocol=1))
        await bench.measure(f"creates, {batch} in a batch", bench.creates)
        await bench.measure("creates, one in a batch", bench.one_by_one)
        await bench.measure("create_many, 1,000 files of 1,000 bytes", bench.small_files)
        await bench.measure("create_many, 1,000 files of 3,500 bytes", bench.full_pages)
        await bench.measure(f"lookups, {batch} in a batch", bench.lookups)
        await bench.measure("entries listed with attributes", bench.listing)
        await node.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="sfs-bench-", dir=args.dir))
    try:
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        asyncio.run(run(directory, args.batch, args.rounds))
        print(f"fdatasync of 4 KiB here: {disk_sync_ms(directory):.2f} ms")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
