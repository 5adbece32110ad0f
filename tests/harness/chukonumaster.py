"""Chukonu on Apache Spark: run by tests/chukonu/test_master.py with a Python that has pyspark and
Polars. Prints what the programs answered as one line of JSON.

PYTHONPATH=proto:clients:tests python tests/harness/chukonumaster.py MASTER FOLDER [PROGRAM...]
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import harness.chukonucsv  # noqa: F401 - enters programs that read files
from harness.chukonuprograms import PROGRAMS
from harness.chukonuspark import attempt

ROWS, PARTS = 3000, 3


class Doubled:
    def __call__(self, values: Any) -> Any:  # noqa: ANN401
        import pyarrow.compute

        return pyarrow.compute.multiply(values, 2)


class Marked:
    def __init__(self) -> None:
        self.mark = "!"

    def __call__(self, value: str) -> str:
        return value + self.mark


def outputs(session: Any, F: Any, folder: Path) -> dict[str, Any]:  # noqa: ANN401
    source = folder / "in"
    source.mkdir()
    for part in range(PARTS):
        lines = [json.dumps({"i": i, "s": f"text {i % 7}"}) for i in range(part, ROWS, PARTS)]
        (source / f"{part}.json").write_text("\n".join([*lines, "junk"]) + "\n")
    reader = session.read.schema("i INT, s STRING").option("mode", "DROPMALFORMED")
    reader = reader.option("splitBytes", 10_000).option("badRecordsPath", str(folder / "bad"))
    docs = reader.json(str(source))
    made = docs.dropDuplicates(["s"]).select("i", F.upper("s").alias("u"))
    manifest = made.write.save(str(folder / "out"))
    ordered = docs.orderBy(F.desc("s"), "i").write.mode("overwrite")
    ordered.parquet(str(folder / "sorted"))
    back = session.read.parquet(str(folder / "sorted"))
    counted = docs.filter(F.col("i") >= 10).groupBy("s").count()
    groups = len(counted.collect())
    statistics = session.executor.last_run.statistics()
    doubled, marked = F.arrow_udf(Doubled, "int"), F.udf(Marked, "string")
    functions = docs.select(doubled("i").alias("d"), marked("s").alias("m"), "i")
    divided = ""
    try:
        docs.select(1 / F.col("i")).collect()
    except Exception as error:
        divided = f"{type(error).__name__} {error}"
    judged: list[Any] = []
    (folder / "judged").mkdir()
    for fraction in (0.1, 0.0005):
        out = str(folder / "judged" / f"{fraction}")
        read = session.read.option("maxBadFraction", fraction).json(str(source), schema="i INT")
        try:
            read.write.parquet(out)
            judged.append(session.read.parquet(out).count())
        except Exception as error:
            judged.append(f"{type(error).__name__} {error}")
    there = (folder / "judged" / "0.0005").exists()
    return {
        "first": sorted(row["i"] for row in session.read.parquet(str(folder / "out")).collect()),
        "rows": manifest["rows"],
        "written": manifest["statistics"],
        "counted": statistics,
        "groups": groups,
        "functions": [list(row) for row in functions.orderBy("i").limit(3).collect()],
        "left": [path.name for path in folder.glob(".*")],
        "sorted": [(row["s"], row["i"]) for row in back.collect()],
        "bad": sum(len(p.read_text().splitlines()) for p in (folder / "bad").iterdir()),
        "divided": divided,
        "judged": [*judged, there],
    }


def main() -> None:
    master, folder, *names = sys.argv[1:]
    from superfs.chukonu import Session, Window
    from superfs.chukonu import functions as F

    session = Session.builder.master(master).getOrCreate()
    spark = session.executor.spark
    spark.sparkContext.setLogLevel("OFF")
    found: dict[str, Any] = {"outputs": outputs(session, F, Path(folder)), "programs": {}}
    for name in names or {**PROGRAMS}:
        found["programs"][name] = attempt(functools.partial(PROGRAMS[name], session, F, Window))
    process = spark.sparkContext._gateway.proc
    session.stop()
    found["ended"] = process.poll() is not None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
