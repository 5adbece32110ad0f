"""Peak memory, as the kernel counts it: wide operations on several times their budget."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from pathlib import Path

ROWS, BUDGET, OVER = 250_000, 64 << 20, 256 << 20
JOB = """
import sys
from superfs.chukonu import Session, Window, functions as F
builder = Session.builder.config("chukonu.threads", 2).config("chukonu.memory.bytes", sys.argv[1])
s = builder.config("chukonu.local.dir", sys.argv[2]).getOrCreate()
d = s.read.parquet(sys.argv[2] + "/in.parquet")
d = d.withColumn("t", F.concat(F.col("i").cast("string"), F.lit(" "), "t"))
w = Window.orderBy("m")
made = {
    "orderBy": lambda: d.orderBy("m", "t"),
    "dropDuplicates": lambda: d.dropDuplicates(["t"]),
    "join": lambda: d.join(d.select("i", F.col("t").alias("u")), "i"),
    "window": lambda: d.withColumn("n", F.row_number().over(w)),
    "coalesce": lambda: d.coalesce(1),
}[sys.argv[3]]()
rows = made.write.mode("overwrite").save(sys.argv[2] + "/out")["rows"]
# Not ru_maxrss, which begins with what the process had that has started this one.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(rows, int(status["VmHWM"].split()[0]) << 10)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 MB of text, which is little as a file."""
    found = tmp_path_factory.mktemp("memory")
    numbers = pl.int_range(ROWS, eager=True)
    frame = pl.DataFrame({"i": numbers, "m": numbers * 7919 % 10_007})
    text = pl.lit(" ".join(f"word{n}" for n in range(140)))
    frame.with_columns(text.alias("t")).write_parquet(found / "in.parquet", row_group_size=20_000)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["orderBy", "dropDuplicates", "join", "window", "coalesce"])
def test_peak(name: str, folder: Path) -> None:
    command = [sys.executable, "-c", JOB, str(BUDGET), str(folder), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, peak = map(int, done.stdout.split())
    assert rows == ROWS
    assert peak <= BUDGET + OVER
