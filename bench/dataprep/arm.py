"""One arm of bench/chukonu.py: a process that keeps its session and runs workloads when asked.

    arm.py ARM THREADS

Reads lines of JSON ({"workload", "data", "out"}), answers each with {"seconds"}. The first line
that it writes says that the session is there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import Any

import programs


def spark(arm: str, threads: str) -> tuple[Any, Any, dict[str, Any]]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F
    from pyspark.sql import types as t

    builder = SparkSession.builder.master(f"local[{threads}]")
    for key, value in (
        ("spark.ui.enabled", "false"),
        ("spark.ui.showConsoleProgress", "false"),
        ("spark.driver.memory", "4g"),
        ("spark.log.level", "ERROR"),
    ):
        builder = builder.config(key, value)
    found = builder.getOrCreate()
    made = programs.python_programs(t) if arm == "python" else programs.BUILT_IN
    return found, F, made


def chukonu(arm: str, threads: str) -> tuple[Any, Any, dict[str, Any]]:
    from superfs.chukonu import Session
    from superfs.chukonu import functions as F

    if arm == "on-spark":
        builder = Session.builder.master(f"local[{threads}]")
        builder = builder.config("spark.driver.memory", "4g")
    else:
        builder = Session.builder.config("chukonu.threads", threads)
    return builder.getOrCreate(), F, programs.BUILT_IN


def main() -> None:
    arm, threads = sys.argv[1:]
    session, F, made = (chukonu if arm in ("chukonu", "on-spark") else spark)(arm, threads)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        shutil.rmtree(asked["out"], ignore_errors=True)
        started = time.perf_counter()
        frame = made[asked["workload"]](session, F, asked["data"])
        frame.write.parquet(asked["out"])
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
    session.stop()


if __name__ == "__main__":
    main()
