"""Chukonu: data preparation with PySpark's names, run natively where the data is.

    from superfs.chukonu import Session, functions as F

    session = Session.builder.getOrCreate()
    docs = session.read.json("superfs:///raw/", schema="id LONG, text STRING")
    docs.filter(F.length("text") > 200).dropDuplicates(["text"]).write.parquet("/mnt/clean")

`plan/` decides what is computed and knows no files; `catalog/` is the table of functions;
`sources/` and `sinks/` read and write; `embedded/` runs a plan on this machine;
`onspark/` puts segments into jobs of Spark.
"""

from __future__ import annotations

from typing import Any

from superfs.chukonu import functions, types
from superfs.chukonu.column import Column
from superfs.chukonu.frame import DataFrame
from superfs.chukonu.rows import Row
from superfs.chukonu.session import Session
from superfs.chukonu.windows import Window


def enable(spark: Any) -> Any:  # noqa: ANN401
    """Adds `spark.chukonu` to a PySpark session (onspark/)."""
    from superfs.chukonu.onspark import enable as enabled

    return enabled(spark)


__all__ = ["Column", "DataFrame", "Row", "Session", "Window", "enable", "functions", "types"]
