"""Planning a save by 1,024 ranks of 2,000 tensors each: CPU, memory, and what ranks exchange.

    python bench/checkpoint_plan.py [--ranks 1024] [--tensors 2000]

The descriptions are made before (each rank makes its own). Measured is what the coordinator does
with them: decode, merge, balance, cut, compare the hashes of replicas; and then what it does when
everything is as remembered.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time

from superfs.checkpoint import agreement, holdings, plan
from superfs.checkpoint.agreement import Details, Record
from superfs.checkpoint.boxes import Box, whole
from superfs.checkpoint.holdings import Holding, Kind

GRID = 32
CPU_S_MAX, CACHED_S_MAX, MEMORY_BYTES_MAX, RECORD_BYTES_MAX = 5.0, 0.1, 4 * 2**30, 256


def replicated(_: int, tensors: int) -> list[Holding]:
    return [
        Holding(f"layers.{n}.weight", "bfloat16", shape(n), whole(shape(n)), Kind.PLAIN)
        for n in range(tensors)
    ]


def hsdp(rank: int, tensors: int) -> list[Holding]:
    part = rank % GRID
    return [
        Holding(
            f"layers.{n}.weight",
            "bfloat16",
            shape(n),
            Box((part * shape(n)[0] // GRID, 0), (shape(n)[0] // GRID, shape(n)[1])),
            Kind.SHARD,
        )
        for n in range(tensors)
    ]


def shape(number: int) -> tuple[int, int]:
    return (4096, 4096) if number % 3 else (64, 128)


def peak_bytes() -> int:
    """Not ru_maxrss, which begins with what the process had that has started this one."""
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return int(status["VmHWM"].split()[0]) << 10


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--tensors", type=int, default=2000)
    args = parser.parse_args()
    print(f"{platform.platform()}; {args.ranks} ranks, {args.tensors} tensors each")
    good = True
    for name, make in (("all replicated", replicated), (f"HSDP {GRID} x {GRID}", hsdp)):
        by_part: dict[int, bytes] = {}
        parts = 1 if make is replicated else GRID
        for part in range(parts):
            by_part[part] = holdings.encode(make(part, args.tensors), {})
        encoded = [by_part[rank % parts] for rank in range(args.ranks)]

        def records_of(encoded: list[bytes] = encoded) -> list[bytes]:
            keys = {id(one): holdings.key_of(one, "") for one in encoded}
            return [Record(False, False, keys[id(one)], b"\0" * 16, 0, 0).pack() for one in encoded]

        gathered = records_of()
        plain = args.tensors if make is replicated else 0
        contents = [{place: place * 7 for place in range(plain)} for _ in range(args.ranks)]
        start = time.process_time()
        records = [Record.unpack(raw) for raw in gathered]
        sends = agreement.senders(records)
        details = [
            Details(one if send else None, hashes, {})
            for one, send, hashes in zip(encoded, sends, contents, strict=True)
        ]
        held, _ = agreement.held(records, details)
        made = plan.make(args.ranks, held)
        agreement.compare_contents(made, [one.ranks for one in held], details)
        cpu = time.process_time() - start
        key = agreement.global_key(records)

        start = time.process_time()
        remembered = {key: made}
        records = [Record.unpack(raw) for raw in gathered]
        alike = len({(record.contents, record.objects) for record in records}) == 1
        found = remembered.get(agreement.global_key(records)) if alike else None
        cached = time.process_time() - start
        assert found is made
        loads = made.loads()
        mean = sum(loads) / args.ranks
        sent = sum(len(d.description) for d in details if d.description is not None)
        memory = peak_bytes()
        print(
            f"  {name}: {cpu:.2f} CPU-s (at most {CPU_S_MAX}), remembered {cached * 1000:.1f} ms, "
            f"{agreement.RECORD_BYTES} B a rank; {sent / 2**20:.1f} MiB of descriptions in all; "
            f"{sum(map(len, made.pieces))} pieces, max/mean {max(loads) / mean:.4f}; "
            f"peak {memory / 2**20:.0f} MiB"
        )
        good &= cpu <= CPU_S_MAX and cached <= CACHED_S_MAX
        good &= memory <= MEMORY_BYTES_MAX and agreement.RECORD_BYTES <= RECORD_BYTES_MAX
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
