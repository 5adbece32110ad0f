"""Checkpoints beside stock DCP and beside what the storage can do: save, stall, load, by two ranks.

    python bench/checkpoint.py [--dir DIR] [--mib 1024] [--rounds 7] [--world 2] [--what save,...]

The state is replicated on all ranks (plain tensors, as of DDP). Arms take turns within each round;
medians and minima are printed. Ours hashes, verifies and commits. The limits beside it: `os.write`
of a constant buffer by the same processes, a copy in memory of the rank's own bytes, `preadv` of as
many bytes into memory that is there. CPU is user and system time of ranks and writer processes.

    save      page cache: ours (durable=False), stock (sync_files=False), os.write
    durable   ours, stock (its default), os.write + fsync
    async     until `async_save` returns: ours, stock; a copy of the rank's own bytes. And training
              steps while it is written, against steps without
    load      warm, same layout, verified: ours, stock, preadv
    reshard   4 -> 2 -> 3 -> 4 ranks, two hosts simulated, nothing cached for either: bytes from
              storage per host over the state's
    loop      200 saves: memory, descriptors, threads at save 20 and at save 200
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
CHUNK = 4 * MIB
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
WHATS = ("save", "durable", "async", "load", "reshard", "loop")


class Rank:
    """What one rank measures. Results of rank 0 are printed as one JSON object."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch
        import torch.distributed as dist
        import torch.distributed.checkpoint as dcp

        from superfs.checkpoint import SuperFSReader, SuperFSWriter

        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", init_method=f"file://{args.store}", rank=args.rank, world_size=args.world
        )
        self.torch, self.dist, self.dcp = torch, dist, dcp
        self.Writer, self.Reader = SuperFSWriter, SuperFSReader
        self.args, self.rank, self.world = args, args.rank, args.world
        self.group = dist.new_group(backend="gloo")
        self.found: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}
        self.number = 0

    def state(self, fill: float = 1.0) -> dict[str, Any]:  # large and small tensors
        items = self.args.mib * MIB // 4
        sizes = [items // 4]
        while sum(sizes) < items:
            sizes += [min(2 * MIB, items - sum(sizes))]
            if sum(sizes) < items:
                sizes.append(1024)
        return {f"w{n}": self.torch.full((size,), fill) for n, size in enumerate(sizes)}

    def path(self) -> Path:
        self.number += 1
        return Path(self.args.dir) / f"c{self.number}"

    def timed(self, name: str, work: Callable[[], object]) -> None:
        self.dist.barrier()
        before, start = self.cpu_s(), time.perf_counter()
        work()
        self.dist.barrier()
        self.found.setdefault(name, []).append(time.perf_counter() - start)
        used = self.torch.tensor([self.cpu_s() - before])
        self.dist.all_reduce(used)
        self.cpu.setdefault(name, []).append(used.item())

    def cpu_s(self) -> float:
        times = os.times()
        courier = self.session().courier
        own = times.user + times.system
        return own + (cpu_of(courier.pid) if courier is not None else 0.0)

    def session(self) -> Any:  # noqa: ANN401
        from superfs.checkpoint import session

        return session.of(self.group)

    def forget(self, path: Path) -> None:
        self.dist.barrier()
        if self.rank == 0:
            shutil.rmtree(path, ignore_errors=True)
        self.dist.barrier()

    # ---- what is measured -------------------------------------------------------------------

    def save(self, durable: bool = False) -> None:
        state = self.state()
        dcp, group = self.dcp, self.group

        def ours(path: Path) -> None:
            writer = self.Writer(path, process_group=group, durable=durable)
            dcp.save(state, storage_writer=writer, process_group=group)

        def stock(path: Path) -> None:
            writer = dcp.FileSystemWriter(path, sync_files=durable)
            dcp.save(state, storage_writer=writer, process_group=group)

        def raw(path: Path) -> None:
            self.write_raw(path, durable)

        arms = {"ours": ours, "stock": stock, "limit": raw}
        for _ in range(self.args.rounds + 1):
            for name, arm in arms.items():
                path = self.path()
                self.timed(name, lambda arm=arm, path=path: arm(path))  # type: ignore[misc]
                self.forget(path)

    def write_raw(self, path: Path, durable: bool) -> None:
        path.mkdir(parents=True, exist_ok=True)
        buffer = bytes(CHUNK)
        fd = os.open(path / f"raw{self.rank}", os.O_WRONLY | os.O_CREAT)
        for _ in range(self.args.mib * MIB // self.world // CHUNK):
            os.write(fd, buffer)
        if durable:
            os.fsync(fd)
        os.close(fd)

    def stall(self) -> None:
        state = self.state()
        torch, dcp, group = self.torch, self.dcp, self.group
        own = self.args.mib * MIB // self.world
        source, copy = torch.ones(own // 4), torch.ones(own // 4)
        matrix = torch.ones((400, 400))

        def step_s(until: Callable[[], bool] | None = None) -> float:
            times = []
            while len(times) < 20 or (until is not None and not until()):
                start = time.perf_counter()
                matrix.mm(matrix)
                times.append(time.perf_counter() - start)
            return statistics.median(times)

        for _ in range(self.args.rounds + 1):
            for name in ("ours", "stock"):
                path = self.path()
                make = dcp.FileSystemWriter if name == "stock" else self.Writer
                options = {} if name == "stock" else {"process_group": group}
                writer: Any = make(path, **options)
                alone = step_s()
                futures: list[Any] = []

                def start(writer: object = writer, futures: list[Any] = futures) -> None:
                    futures.append(
                        dcp.async_save(state, storage_writer=writer, process_group=group)
                    )

                self.timed(name, start)
                during = step_s(futures[0].done)
                futures[0].result()
                self.found.setdefault(f"{name} step inflation", []).append(during / alone)
                self.forget(path)
            self.timed("limit", lambda: copy.copy_(source))

    def load(self) -> None:
        state = self.state()
        dcp, group = self.dcp, self.group
        paths = {name: self.path() for name in ("ours", "stock", "limit")}
        writer = self.Writer(paths["ours"], process_group=group)
        dcp.save(state, storage_writer=writer, process_group=group)
        dcp.save(state, storage_writer=dcp.FileSystemWriter(paths["stock"]), process_group=group)
        self.write_raw(paths["limit"], durable=True)
        into = self.state(0.0)
        buffer = self.torch.ones(self.args.mib * MIB, dtype=self.torch.uint8).numpy()

        def raw() -> None:
            for rank in range(self.world):
                size = self.args.mib * MIB // self.world
                view = memoryview(buffer)[rank * size : (rank + 1) * size]
                fd = os.open(paths["limit"] / f"raw{rank}", os.O_RDONLY)
                for at in range(0, size, CHUNK):
                    os.preadv(fd, [view[at : at + CHUNK]], at)
                os.close(fd)

        arms: dict[str, Callable[[], object]] = {
            "ours": lambda: dcp.load(
                into,
                storage_reader=self.Reader(paths["ours"], process_group=group),
                process_group=group,
            ),
            "stock": lambda: dcp.load(
                into, storage_reader=dcp.FileSystemReader(paths["stock"]), process_group=group
            ),
            "limit": raw,
        }
        for _ in range(self.args.rounds + 1):
            for name, arm in arms.items():
                self.timed(name, arm)
        assert all(self.torch.equal(into[name], tensor) for name, tensor in state.items())
        for path in paths.values():
            self.forget(path)

    def reshard(self, ours: bool) -> None:
        """One load by these ranks of what other ranks saved: bytes read on each host."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import Shard, distribute_tensor

        mesh = init_device_mesh("cpu", (self.world,))
        state = {
            name: distribute_tensor(tensor, mesh, [Shard(0)])
            for name, tensor in self.state(float(self.world)).items()
        }
        source, target = self.args.source, self.args.target
        host = f"host{self.rank * 2 // self.world}"
        before = read_chars()
        if source and ours:
            reader = self.Reader(source, process_group=self.group, share="always", host=host)
            self.dcp.load(state, storage_reader=reader, process_group=self.group)
            read = float(reader.statistics["bytes_read"])
        elif source:
            reader = self.dcp.FileSystemReader(source)
            self.dcp.load(state, storage_reader=reader, process_group=self.group)
            read = float(read_chars() - before)
        else:
            read = 0.0
        hosts = self.torch.zeros(2, dtype=self.torch.float64)
        hosts[int(host[-1])] = read
        self.dist.all_reduce(hosts)
        writer: Any = self.dcp.FileSystemWriter(target, sync_files=False)
        if ours:
            writer = self.Writer(target, process_group=self.group, durable=False)
        self.dcp.save(state, storage_writer=writer, process_group=self.group)
        self.found["hosts"] = hosts.tolist()

    def loop(self) -> None:
        import threading

        state = self.state()
        saves = 200
        for number in range(1, saves + 1):
            path = self.path()
            writer = self.Writer(path, process_group=self.group, durable=False)
            self.dcp.async_save(state, storage_writer=writer, process_group=self.group).result()
            self.forget(path)
            if number in (20, saves):
                courier = self.session().courier
                resident = resident_bytes(os.getpid()) + resident_bytes(courier.pid)
                counted = [resident / MIB, len(os.listdir("/proc/self/fd")) + 0.0]
                self.found[f"save {number}"] = [*counted, threading.active_count() + 0.0]


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Shared memory counts for each process that maps it."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def read_chars() -> int:
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


def run(args: argparse.Namespace, what: str, world: int, **more: object) -> dict[str, Any]:
    """All ranks of one measurement; what rank 0 found."""
    with tempfile.TemporaryDirectory() as store:
        words = [sys.executable, __file__, "--dir", str(args.dir), "--rounds", str(args.rounds)]
        words += ["--mib", str(args.mib), "--world", str(world), "--what", what]
        words += [word for key, value in more.items() for word in (f"--{key}", str(value))]
        ranks = [
            subprocess.Popen(
                [*words, "--store", f"{store}/store", "--rank", str(rank)],
                stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for rank in range(world)
        ]
        out, _ = ranks[0].communicate()
        statuses = [rank.wait() for rank in ranks]
        if any(statuses):
            sys.exit(f"{what}: a rank failed")
    found: dict[str, Any] = json.loads(out)
    return found


def show(what: str, args: argparse.Namespace, found: dict[str, Any]) -> None:
    """Without the first round: of ours it is the one that plans and compares whole tensors."""
    print(f"\n{what}: {args.mib} MiB, {args.world} ranks, {args.rounds} rounds")
    medians = {}
    for name, values in found["found"].items():
        rest = values[1:]
        medians[name] = statistics.median(rest)
        cpu = found["cpu"].get(name)
        if cpu is None:
            print(f"  {name:22} median {medians[name]:6.2f}x  min {min(rest):6.2f}x")
            continue
        per_gib = statistics.median(cpu[1:]) / (args.mib / 1024)
        print(
            f"  {name:22} median {medians[name]:6.3f} s  min {min(rest):6.3f}  max {max(rest):6.3f}"
            f"  first {values[0]:6.3f}  CPU {per_gib:5.2f} s/GiB"
        )
    stock = [s / o for s, o in zip(found["found"]["stock"], found["found"]["ours"], strict=True)]
    limit = [x / o for x, o in zip(found["found"]["limit"], found["found"]["ours"], strict=True)]
    print(
        f"  stock/ours: {statistics.median(stock[1:]):.2f} (median of rounds), "
        f"limit/ours: {statistics.median(limit[1:]):.2f}"
    )


def reshard(args: argparse.Namespace) -> None:
    print(f"\nreshard: {args.mib} MiB, bytes read on each of two hosts over the state's")
    for ours in (True, False):
        ratios = []
        source: Path | str = ""
        for number, world in enumerate((4, 2, 3, 4)):
            target = Path(args.dir) / f"reshard{number}-{int(ours)}"
            what = "reshard" if ours else "reshard-stock"
            found = run(args, what, world, source=source, target=target)["found"]["hosts"]
            if source:
                ratios.append([read / (args.mib * MIB) for read in found])
                shutil.rmtree(source)
            source = target
        shutil.rmtree(source)
        text = ", ".join(" and ".join(f"{r:.2f}" for r in hosts) for hosts in ratios)
        print(f"  {'ours' if ours else 'stock':6} 4->2->3->4: {text}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--dir", default="", help="where to write; default: a temporary directory")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--what", default=",".join(WHATS))
    for hidden in ("--store", "--source", "--target"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=-1, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = arguments()
    if args.rank >= 0:
        rank = Rank(args)
        work: dict[str, Callable[[], None]] = {
            "save": rank.save,
            "durable": lambda: rank.save(durable=True),
            "async": rank.stall,
            "load": rank.load,
            "reshard": lambda: rank.reshard(ours=True),
            "reshard-stock": lambda: rank.reshard(ours=False),
            "loop": rank.loop,
        }
        work[args.what]()
        if rank.rank == 0:
            print(json.dumps({"found": rank.found, "cpu": rank.cpu}))
        return 0
    try:
        import torch
    except ModuleNotFoundError:
        print("PyTorch is not installed: make torch")
        return 0
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {load}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="superfs-bench-", dir=args.dir or None) as where:
        args.dir = where
        for what in args.what.split(","):
            if what == "reshard":
                reshard(args)
            elif what == "loop":
                small = argparse.Namespace(**{**vars(args), "mib": 32})
                print(
                    "\nloop: 200 asynchronous saves of 32 MiB: MiB resident, descriptors, threads"
                )
                for name, values in run(small, what, args.world)["found"].items():
                    print(f"  {name}: {values[0]:.1f}, {values[1]:.0f}, {values[2]:.0f}")
            else:
                show(what, args, run(args, what, args.world))
    return 0


if __name__ == "__main__":
    sys.exit(main())
