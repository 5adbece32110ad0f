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
from typing import TYPE_CHECKING, Any

import programs

if TYPE_CHECKING:
    from collections.abc import Callable


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

    if arm == "same-python":
        from superfs.chukonu import types as t

        session = Session.builder.config("chukonu.threads", threads).getOrCreate()
        return session, F, programs.python_programs(t)
    if arm == "on-spark":
        builder = Session.builder.master(f"local[{threads}]")
        builder = builder.config("spark.driver.memory", "4g")
    else:
        builder = Session.builder.config("chukonu.threads", threads)
    return builder.getOrCreate(), F, programs.BUILT_IN


def answered(run: Callable[[dict[str, str]], None]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print is no answer
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        shutil.rmtree(asked["out"], ignore_errors=True)
        started = time.perf_counter()
        try:
            run(asked)
            found: dict[str, Any] = {"seconds": time.perf_counter() - started}
        except Exception as error:
            found = {"refused": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(found), file=answers, flush=True)


def main() -> None:
    arm, threads = sys.argv[1:]
    session, F, made = (spark if arm in ("python", "built-in") else chukonu)(arm, threads)

    def run(asked: dict[str, str]) -> None:
        made[asked["workload"]](session, F, asked["data"]).write.parquet(asked["out"])

    answered(run)
    session.stop()


if __name__ == "__main__":
    main()
