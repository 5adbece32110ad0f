"""Peak memory of every wide operation of Chukonu on more than its budget.

    python bench/chukonu_memory.py [--mib 2048] [--budget-mib 512] [--dir DIR] [--only NAME]

Each operation is a process of its own that reads JSON documents, does it, and writes parquet; what
is printed is the most memory that the process ever had resident, as the kernel counts it (its
program and libraries included), how long it took, and the rows of its output, which are checked.
The limit is the budget and 256 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

OVER_BYTES = 256 << 20
FILES, SITES, KEYS = 8, 5000, 20_000
OPERATIONS = ("groupBy", "groupBy lists", "join", "join one key", "dropDuplicates", "orderBy")
OPERATIONS += ("orderBy one value", "window", "window of all", "repartition", "coalesce to one")
OPERATIONS += ("shuffle",)
SCHEMA = "id LONG, key INT, site STRING, text STRING"


def made(name: str, session: Any, folder: str, F: Any, Window: Any) -> Any:  # noqa: ANN401
    docs = session.read.schema(SCHEMA).json(f"{folder}/docs")
    other = docs.select(F.col("id").alias("id2"), F.upper("text").alias("u"))
    few = docs.filter(F.col("id") < 3).select(F.lit(1).alias("one"), F.col("id").alias("j"))
    by_site = Window.partitionBy("site").orderBy("id")
    makes: dict[str, Callable[[], Any]] = {
        "groupBy": lambda: docs.groupBy("text").agg(F.count("*").alias("n"), F.max("id")),
        "groupBy lists": lambda: docs.groupBy("key").agg(F.collect_list("text").alias("t")),
        "join": lambda: docs.join(other, F.col("id") == F.col("id2")),
        "join one key": lambda: docs.withColumn("one", F.lit(1)).join(few, "one"),
        "dropDuplicates": lambda: docs.dropDuplicates(["text"]),
        "orderBy": lambda: docs.orderBy("site", F.desc("id")),
        "orderBy one value": lambda: docs.withColumn("one", F.lit(1)).orderBy("one"),
        "window": lambda: docs.withColumn("n", F.row_number().over(by_site)),
        "window of all": lambda: docs.withColumn("n", F.row_number().over(Window.orderBy("id"))),
        "repartition": lambda: docs.repartition(7, "site"),
        "coalesce to one": lambda: docs.coalesce(1),
        "shuffle": lambda: docs.orderBy(F.md5(F.concat(F.lit("seed"), F.col("id").cast("string")))),
    }
    assert tuple(makes) == OPERATIONS
    return makes[name]()


def rows_of(name: str, rows: int, texts: int) -> int:
    known = {
        "groupBy": texts,
        "dropDuplicates": texts,
        "groupBy lists": KEYS,
        "join one key": 3 * rows,
    }
    return known.get(name, rows)


def one(name: str, folder: str, budget: int, threads: int) -> None:
    from superfs.chukonu import Session, Window
    from superfs.chukonu import functions as F

    builder = Session.builder.config("chukonu.memory.bytes", budget)
    builder = builder.config("chukonu.threads", threads).config("chukonu.local.dir", folder)
    started = time.perf_counter()
    with builder.getOrCreate() as session:
        frame = made(name, session, folder, F, Window)
        manifest = frame.write.mode("overwrite").save(f"{folder}/out")
    seconds = time.perf_counter() - started
    # Not ru_maxrss, which begins with what the process had that has started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
    print(json.dumps({"seconds": seconds, "peak": peak, "rows": manifest["rows"]}))


def make_data(folder: Path, size: int) -> tuple[int, int]:
    """(documents, different texts). A tenth of them are copies."""
    rng = random.Random(11)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 10))) for _ in range(5000)]
    lines = [" ".join(rng.choices(words, k=14)) for _ in range(5000)]
    (folder / "docs").mkdir()
    done = number = copies = 0
    before: list[str] = []
    for part in range(FILES):
        with (folder / "docs" / f"{part}.json").open("w") as out:
            while done < size * (part + 1) // FILES:
                copy = number > 0 and rng.random() < 0.1
                text = (
                    rng.choice(before) if copy else f"{number} " + " ".join(rng.choices(lines, k=9))
                )
                copies += copy
                before[number % 1000 : number % 1000 + 1] = [text]
                site = f"site{int(rng.paretovariate(0.7)) % SITES}.example"
                row = {"id": number, "key": number % KEYS, "site": site, "text": text}
                done += out.write(json.dumps(row) + "\n")
                number += 1
    return number, number - copies


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=2048, help="of documents")
    parser.add_argument("--budget-mib", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--only", action="append", choices=OPERATIONS)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    budget = args.budget_mib << 20
    if args.run:
        one(*args.run, budget, args.threads)
        return 0
    work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
    try:
        rows, texts = make_data(work, args.mib << 20)
        print(
            f"{platform.node()}: {os.cpu_count()} CPUs, {args.mib} MiB of JSON ({rows:,} "
            f"documents), budget {args.budget_mib} MiB, {args.threads} threads"
        )
        return measure(args, work, rows, texts)
    finally:
        shutil.rmtree(work)


def measure(args: argparse.Namespace, work: Path, rows: int, texts: int) -> int:
    limit = (args.budget_mib << 20) + OVER_BYTES
    bad = 0
    for name in args.only or OPERATIONS:
        command = [sys.executable, __file__, "--run", name, str(work)]
        command += ["--budget-mib", str(args.budget_mib), "--threads", str(args.threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{name:18} FAILED: status {done.returncode}")
            bad += 1
            continue
        found = json.loads(done.stdout)
        fits, right = found["peak"] <= limit, found["rows"] == rows_of(name, rows, texts)
        bad += not (fits and right)
        print(
            f"{name:18} peak {found['peak'] >> 20:5} MiB (limit {limit >> 20}) "
            f"{found['seconds']:7.1f} s {found['rows']:>9,} rows"
            f"{'' if fits else '  TOO MUCH'}{'' if right else '  WRONG'}",
            flush=True,
        )
        left = [p.name for p in work.iterdir() if p.name not in ("docs", "out")]
        assert not left, left
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
