"""What real Spark answers to the cases: run with a Python that has pyspark, writes tests/golden.

PYTHONPATH=tests python tests/harness/chukonuspark.py
"""

from __future__ import annotations

import datetime
import decimal
import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from harness import chukonucases, chukonuchains, chukonufiles, chukonuprograms

GOLDEN = Path(__file__).parents[1] / "golden" / "chukonu_spark.json"


def plain(value: Any) -> Any:  # noqa: ANN401
    """For JSON, telling apart what JSON does not."""
    if isinstance(value, float):
        return {"f": repr(value)}
    if isinstance(value, (bytes, bytearray)):
        return {"b": bytes(value).hex()}
    if isinstance(value, datetime.datetime):
        return {"t": value.isoformat()}
    if isinstance(value, decimal.Decimal):
        return {"m": f"{value:f}"}
    if isinstance(value, dict):
        pairs = [[plain(k), plain(v)] for k, v in value.items()]
        return {"k": sorted(pairs, key=json.dumps)}
    if isinstance(value, datetime.date):
        return {"d": value.isoformat()}
    if hasattr(value, "asDict"):
        return {"r": [plain(v) for v in value]}
    return [plain(v) for v in value] if isinstance(value, list) else value


def answer(frame: Any) -> dict[str, Any]:  # noqa: ANN401
    rows = [[plain(v) for v in row] for row in frame.collect()]
    return {"schema": frame.schema.simpleString(), "rows": rows}


def attempt(make: Any) -> dict[str, Any]:  # noqa: ANN401
    try:
        return answer(make())
    except Exception as error:
        return {"error": condition_of(error)}


def condition_of(error: Exception) -> str:
    for name in ("getCondition", "getErrorClass"):
        found = getattr(error, name, lambda: None)()
        if found:
            return str(found).partition(".")[0]
    text = str(error)
    if "[" in text and "]" in text:
        return text.partition("[")[2].partition("]")[0].partition(".")[0]
    return type(error).__name__


def one_by_one(frames: list[Any], F: Any, make: Any) -> dict[str, Any]:  # noqa: ANN401
    """All rows together, or, where one of them is an error, each by itself."""
    whole = attempt(lambda: frames[0].select(make(F).alias("x")))
    if "error" not in whole:
        return whole
    return {"each": [attempt(lambda f=f: f.select(make(F).alias("x"))) for f in frames[1:]]}


class LocalRows:
    """A session whose rows are there at once: Spark then computes in the driver, in milliseconds,
    and not in a job of Python workers for each case."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        self.session = session

    def createDataFrame(self, rows: list[Any], schema: Any) -> Any:  # noqa: ANN401
        import pyarrow as pa
        from pyspark.sql.pandas.types import to_arrow_schema
        from pyspark.sql.types import _parse_datatype_string

        if not isinstance(schema, str) or "STRUCT" in schema or "MAP" in schema:
            return self.session.createDataFrame(rows, schema)
        fields = to_arrow_schema(_parse_datatype_string(schema))
        columns = zip(*rows, strict=True)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, fields, strict=True)]
        return self.session.createDataFrame(pa.Table.from_arrays(arrays, schema=fields))

    @property
    def read(self) -> Any:  # noqa: ANN401
        return self.session.read


def main() -> None:
    import pyspark
    from pyspark.sql import SparkSession, Window
    from pyspark.sql import functions as F

    import harness.chukonucsv  # noqa: F401 - enters its programs

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["TZ"] = "UTC"  # rows of Python have moments in the zone of the process
    time.tzset()
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    builder = builder.config("spark.sql.session.timeZone", "UTC")
    spark = builder.config("spark.sql.shuffle.partitions", "2").getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    logging.disable()  # every expected error comes with its trace
    s = LocalRows(spark)
    rows, schema = chukonucases.ROWS, chukonucases.SCHEMA
    frames = [s.createDataFrame(part, schema) for part in (rows, *([row] for row in rows))]
    found = {
        "spark": pyspark.__version__,
        "functions": sorted(name for name in dir(F) if not name.startswith("_")),
        "expressions": {
            text: one_by_one(frames, F, make) for text, make in chukonucases.EXPRESSIONS.items()
        },
        "programs": {
            name: attempt(lambda make=make: make(s, F, Window))
            for name, make in chukonuprograms.PROGRAMS.items()
        },
        "chains": {
            text: attempt(lambda make=make: make(s, F, Window))
            for text, make in chukonuchains.CHAINS.items()
        },
    }
    spark.stop()
    shutil.rmtree(chukonufiles.folder())
    GOLDEN.write_text(json.dumps(found, ensure_ascii=True, indent=0, sort_keys=True) + "\n")
    print(f"{GOLDEN}: {len(found['expressions'])} + {len(found['programs'])}")


if __name__ == "__main__":
    main()
