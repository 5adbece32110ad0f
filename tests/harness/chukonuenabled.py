"""Chukonu inside Spark: run by tests/chukonu/test_on_spark.py with a Python that has pyspark and
Polars, prints what it found as one line of JSON.

PYTHONPATH=proto:clients:tests python tests/harness/chukonuenabled.py
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROWS, FILES = 2000, 4


def data(folder: Path) -> None:
    for part in range(FILES):
        rows = [{"id": i, "text": f"é {i % 7}", "tags": ["a", f"{i % 3}"]} for i in range(ROWS)]
        lines = [json.dumps(row) for row in rows[part::FILES]]
        (folder / f"{part}.json").write_text("\n".join([*lines, "junk", '{"id": "x"}']) + "\n")


def checks(spark: Any, folder: Path) -> dict[str, Any]:  # noqa: ANN401
    from superfs.chukonu import enable
    from superfs.chukonu import functions as F
    from superfs.chukonu.errors import UnsupportedError
    from superfs.chukonu.sources.store import LocalStore

    source, bad = folder / "in", folder / "bad"
    schema = "id LONG, text STRING, tags ARRAY<STRING>"
    plain = spark.read.schema(schema).option("mode", "DROPMALFORMED").json(str(source))
    before = sorted(plain.selectExpr("id", "text", "explode(tags) t").where("id % 2 = 0").collect())

    def at_two(_: LocalStore, file: Any) -> list[Any]:  # noqa: ANN401
        return [(0, file.size, ("first", "second"))]

    setattr(LocalStore, "places", at_two)  # noqa: B010
    enable(spark)
    word = "x"

    def reader() -> Any:  # noqa: ANN401
        found = spark.chukonu.read.schema(schema).option("mode", "DROPMALFORMED")
        return found.option("splitBytes", 10_000).option("badRecordsPath", str(bad))

    def segment(docs: Any) -> Any:  # noqa: ANN401
        add = F.udf(lambda text: text + word, "string")
        made = docs.filter(F.col("id") % 2 == 0).withColumn("more", add("text"))
        return made.select("id", "text", F.explode("tags").alias("t"), "more")

    found = reader().segment(segment).json(str(source))
    rows = sorted(found.collect())
    rdd = found._jdf.queryExecution().toRdd()
    scheduler = spark.sparkContext._jsc.sc()
    parts = range(len(rdd.partitions()))
    places = [list(map(str, _scala(scheduler.getPreferredLocs(rdd, i)))) for i in parts]
    by_word = {row["text"]: row["count"] for row in found.groupBy("text").count().collect()}
    refused = ""
    try:
        reader().segment(lambda docs: docs.dropDuplicates(["text"])).json(str(source))
    except UnsupportedError as error:
        refused = str(error)
    return {
        "same": [row[:3] for row in rows] == [tuple(row) for row in before],
        "more": all(row["more"] == row["text"] + word for row in rows),
        "schema": found.schema.simpleString(),
        "places": places,
        "groups": sum(by_word.values()),
        "refused": refused,
        "kept bad": sum(len(path.read_text().splitlines()) for path in bad.iterdir()),
        "plain again": sorted(row["id"] for row in plain.where("id < 3").collect()) == [0, 1, 2],
    }


def _scala(names: Any) -> list[Any]:  # noqa: ANN401
    return [names.apply(i) for i in range(names.size())]


def main() -> None:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    builder = builder.config("spark.locality.wait", "0")
    spark = builder.config("spark.sql.shuffle.partitions", "2").getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        data(folder / "in")
        found = checks(spark, folder)
    spark.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
