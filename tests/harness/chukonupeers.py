"""New random programs under real Spark and under Chukonu, side by side: run with a Python that has
pyspark and Polars (`make spark`). Prints those that differ, and a line of counts at the end.

PYTHONPATH=proto:clients:tests python tests/harness/chukonupeers.py SEED COUNT
"""

from __future__ import annotations

import collections
import os
import random
import sys
import time
from typing import Any

from harness.chukonuagree import REFUSALS, agree
from harness.chukonuchains import chain, program
from harness.chukonuspark import LocalRows, attempt


def outcome(spark: dict[str, Any], ours: dict[str, Any]) -> str:
    if ours.get("error") in REFUSALS:
        return "refused"
    if "error" in ours:
        return "both errors" if "error" in spark else "DIFFERENT"
    if "error" in spark:
        return "an error that nobody needs"
    try:
        agree(spark, ours)
    except AssertionError:
        return "DIFFERENT"
    return "same"


def main() -> None:
    seed, count = map(int, sys.argv[1:])
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["TZ"] = "UTC"
    time.tzset()
    from pyspark.sql import SparkSession
    from pyspark.sql import Window as SparkWindow
    from pyspark.sql import functions as spark_functions

    from superfs.chukonu import Session, Window
    from superfs.chukonu import functions as F

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    for key, value in (
        ("spark.ui.showConsoleProgress", "false"),
        ("spark.sql.session.timeZone", "UTC"),
        ("spark.sql.shuffle.partitions", "2"),
    ):
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    rows, session = LocalRows(spark), Session.builder.config("chukonu.threads", 2).getOrCreate()
    rng = random.Random(seed)
    counts: collections.Counter[str] = collections.Counter()
    for _ in range(count):
        text = chain(rng)
        run = program(text)
        theirs = attempt(lambda r=run: r(rows, spark_functions, SparkWindow))
        ours = attempt(lambda r=run: r(session, F, Window))
        found = outcome(theirs, ours)
        counts[found] += 1
        if found == "DIFFERENT":
            print(f"{text}\n  Spark   {theirs}\n  Chukonu {ours}", flush=True)
    spark.stop()
    print(f"seed {seed}: {dict(sorted(counts.items()))}")
    sys.exit(counts["DIFFERENT"] > 0)


if __name__ == "__main__":
    main()
