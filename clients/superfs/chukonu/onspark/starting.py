"""A Spark session for `master("local[N]")` and `master("spark://...")`, and its end: what was
started is stopped, the JVM included."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from superfs.chukonu.onspark import daemon
from superfs.chukonu.onspark.edges import BATCH_BYTES, BATCH_OPTION

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.adaptive.enabled": "false",
    "spark.executorEnv.POLARS_MAX_THREADS": "1",
    "spark.python.daemon.module": daemon.__name__,
    BATCH_OPTION: str(BATCH_BYTES),
}
"""Adaptive execution would join partitions, whose numbers are part of the order of rows."""


def started(master: str, options: dict[str, str]) -> tuple[Any, bool]:
    """(a Spark session, whether it is ours to stop)."""
    # Workers take the Python and the modules of this process, not those of the system.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    try:
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"master {master!r} needs {error.name}: pip install 'superfs[chukonu,spark]'",
            name=error.name,
        ) from None
    active = SparkSession.getActiveSession()
    if active is not None:
        return active, False
    before = os.environ.get("POLARS_MAX_THREADS")
    os.environ["POLARS_MAX_THREADS"] = "1"  # each task computes with one thread
    builder = SparkSession.builder.master(master)
    builder = builder.appName(options.get("app.name", "chukonu"))
    settings = {**SETTINGS, **{k: v for k, v in options.items() if k.startswith("spark.")}}
    if "PYTHONPATH" in os.environ:
        settings.setdefault("spark.executorEnv.PYTHONPATH", os.environ["PYTHONPATH"])
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
        spark.sparkContext.environment["POLARS_MAX_THREADS"] = "1"
    finally:
        del os.environ["POLARS_MAX_THREADS"]
        if before is not None:
            os.environ["POLARS_MAX_THREADS"] = before
    return spark, True


def stop(spark: Any) -> None:  # noqa: ANN401
    """The session, and the JVM, which would stay until this process ends."""
    from pyspark import SparkContext

    spark.stop()
    gateway = SparkContext._gateway
    if gateway is None:
        return
    process = getattr(gateway, "proc", None)
    with contextlib.suppress(Exception):  # it may have gone by itself
        gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None
    if process is not None:
        process.stdin.close()
        process.wait(timeout=60)
