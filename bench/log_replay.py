"""What a part of a client's log costs a metadata daemon, without its network: files of 4 KiB, all
in one directory, beside `create_many` of the same files in the same run.

    python bench/log_replay.py [--dir DIRECTORY] [--files 256] [--parts 16] [--rounds 5]

DIRECTORY should lie on the disk that is meant. Of each round: files per second with all durable,
and microseconds of CPU time of the process per file, which is what many clients share. The figure
is the median of the rounds, with the lowest and the highest. Contents are packed by the client
(they are not part of what is measured).
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import stat
import statistics
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superfs.cli.bench.results import file_system, machine
from superfs.core.attrs import Attr, pack_attr
from superfs.core.ids import ROOT, delegated_file_id, slot_of
from superfs.core.tokens import Authority, Grant
from superfs.daemon.statedir import Identity
from superfs.daemon.world import World
from superfs.meta.config import MetaConfig, MetadCommon, MetadConfig
from superfs.meta.founding import make_empty
from superfs.meta.node import MetaNode
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE_BYTES = 4096
INLINE = 1
IDENTITY = Identity("bench", "metad", 1, 2)


class Client:
    """One session, and the stream that it is told on."""

    def __init__(self, node: MetaNode, files: int) -> None:
        self.node = node
        self.files = files
        self.grant = Grant("host", "bench", session_id=1)
        self.seq = 0
        self.counter = 0
        self.range = 0

    def push(self, invalidate: meta_pb2.Invalidate) -> None:
        raise AssertionError(invalidate)

    def close(self, reason: str) -> None:
        raise AssertionError(reason)

    async def hello(self) -> None:
        hello = meta_pb2.Hello(protocol=1, client="bench", leases=True, exclusive=True)
        self.range = (await self.node.hello(self.grant, hello, self)).number_range

    async def do(self, op: meta_pb2.Op) -> meta_pb2.Result:
        batch = meta_pb2.Batch(ops=[op], acked_below=op.seq)
        (result,) = (await self.node.submit(self.grant, batch, self)).results
        assert not result.code, result
        return result

    def op(self, **verb: Any) -> meta_pb2.Op:  # noqa: ANN401
        self.seq += 1
        return meta_pb2.Op(seq=self.seq, **verb)

    def columns(self, directory: int, numbers: Sequence[int]) -> dict[str, Any]:
        now, count = time.time_ns(), self.files
        names = [b"file-%08d-%04d" % (self.seq, i) for i in range(count)]
        attrs = [
            Attr(
                number, 1 if number else 0, directory, stat.S_IFREG | 0o644, 1, 0, 0, FILE_BYTES,
                0, now, now, now, now, INLINE,
            )
            for number in numbers
        ]  # fmt: skip
        return {
            "dir": {"ino": directory, "place": directory},
            "count": count,
            "names": b"".join(struct.pack("<H", len(n)) + n for n in names),
            "attrs": b"".join(map(pack_attr, attrs)),
            "inline": bytes(FILE_BYTES) * count,
            "inline_lengths": struct.pack("<I", FILE_BYTES) * count,
        }

    def log(self, directory: int) -> meta_pb2.Op:
        first = self.counter + 1
        self.counter += self.files
        slot = slot_of(directory)
        numbers = [delegated_file_id(slot, self.range, first + i) for i in range(self.files)]
        entry = {"now_ns": time.time_ns(), "files": self.columns(directory, numbers)}
        return self.op(log={"entries": [entry]})

    def many(self, directory: int) -> meta_pb2.Op:
        return self.op(create_many={**self.columns(directory, [0] * self.files), "bare": True})


async def measure(node: MetaNode, args: argparse.Namespace) -> None:
    client = Client(node, args.files)
    await client.hello()
    rates: dict[str, list[float]] = {"log": [], "create_many": []}
    cpu: dict[str, list[float]] = {"log": [], "create_many": []}
    for number in range(args.rounds):
        for kind, make in (("log", client.log), ("create_many", client.many)):
            name = b"%s-%d" % (kind.encode(), number)
            root = {"ino": int(ROOT), "generation": 1}
            made = await client.do(client.op(mkdir={"dir": root, "name": name, "mode": 0o755}))
            ops = [make(made.attr.ino) for _ in range(args.parts)]
            wall, used = time.perf_counter(), time.process_time()
            for op in ops:
                await client.do(op)
            files = args.parts * args.files
            cpu[kind].append(1e6 * (time.process_time() - used) / files)
            rates[kind].append(files / (time.perf_counter() - wall))
    for kind in rates:
        print(f"{kind:12} {_spread(rates[kind], '/s'):36} CPU {_spread(cpu[kind], ' us a file')}")


def _spread(figures: list[float], unit: str) -> str:
    middle = statistics.median(figures)
    return f"{middle:,.1f}{unit} ({min(figures):,.1f} to {max(figures):,.1f})"


async def run(args: argparse.Namespace, directory: Path) -> None:
    config = MetadConfig(MetadCommon(state_dir=directory / "metad"), MetaConfig())
    config.daemon.state_dir.mkdir()
    world = World(Authority(b"b" * 32))
    make_empty(config, IDENTITY, world)
    node = MetaNode(config, IDENTITY, world)
    await node.open()
    async with asyncio.TaskGroup() as group:
        node.start(group)
        await measure(node, args)
        await node.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--files", type=int, default=256, help="of one part of the log")
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
    print(machine(), file_system(directory))
    try:
        asyncio.run(run(args, directory))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
