"""pandas, pyarrow, Polars and DuckDB on superfs://, as their users write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from superfs.fsspec import SuperFileSystem
from superfs.fsspec.pool import close_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.cluster import Cluster

pytestmark = pytest.mark.slow
TOP = "/programs"
ROWS = 10_000


@pytest.fixture
def options(cluster: Cluster) -> Iterator[dict[str, Any]]:
    options = {"cluster": cluster.target("clusterd"), "token_file": str(cluster.token_file)}
    yield options
    fsspec.filesystem("superfs", **options).rm(TOP, recursive=True)
    close_all()
    SuperFileSystem.clear_instance_cache()


def test_pandas(options: dict[str, Any]) -> None:
    pd = pytest.importorskip("pandas", reason="make test installs it")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"n": range(ROWS), "s": [f"row {n}" for n in range(ROWS)]})
    for name in ("t.csv", "t.csv.gz"):
        url = f"superfs:/{TOP}/{name}"
        frame.to_csv(url, index=False, storage_options=options)
        assert pd.read_csv(url, storage_options=options).equals(frame)
    url = f"superfs:/{TOP}/t.parquet"
    frame.to_parquet(url, storage_options=options)
    assert pd.read_parquet(url, storage_options=options).equals(frame)
    column = pd.read_parquet(url, columns=["n"], storage_options=options)
    assert column["n"].sum() == ROWS * (ROWS - 1) // 2
    frame.to_json(f"superfs:/{TOP}/t.json", orient="records", lines=True, storage_options=options)
    with fsspec.open(f"superfs:/{TOP}/t.json", "r", **options) as file:
        assert sum(1 for _ in file) == ROWS


def test_pyarrow_datasets(options: dict[str, Any]) -> None:
    pa = pytest.importorskip("pyarrow", reason="make test installs it")
    dataset = pytest.importorskip("pyarrow.dataset")
    parquet = pytest.importorskip("pyarrow.parquet")
    fs = fsspec.filesystem("superfs", **options)
    table = pa.table({"part": [n % 5 for n in range(ROWS)], "n": list(range(ROWS))})
    dataset.write_dataset(
        table, f"{TOP}/set", filesystem=fs, format="parquet", partitioning=["part"]
    )
    assert len(fs.glob(f"{TOP}/set/*/*.parquet")) == 5
    found = dataset.dataset(f"{TOP}/set", filesystem=fs, partitioning=["part"])
    assert found.count_rows() == ROWS
    third = found.to_table(filter=dataset.field("part") == 3)
    assert sorted(third["n"].to_pylist()) == list(range(3, ROWS, 5))
    parquet.write_table(table, f"{TOP}/one.parquet", filesystem=fs)
    assert parquet.read_table(f"{TOP}/one.parquet", filesystem=fs).equals(table)


def test_polars(options: dict[str, Any]) -> None:
    pl = pytest.importorskip("polars", reason="make test installs it")
    dataset = pytest.importorskip("pyarrow.dataset")
    fs = fsspec.filesystem("superfs", **options)
    frame = pl.DataFrame({"n": range(ROWS), "s": [f"row {n}" for n in range(ROWS)]})
    fs.mkdir(TOP)
    with fs.open(f"{TOP}/t.parquet", "wb") as file:
        frame.write_parquet(file)
    with fs.open(f"{TOP}/t.csv", "wb") as file:
        frame.write_csv(file)
    with fs.open(f"{TOP}/t.parquet", "rb") as file:
        assert pl.read_parquet(file).equals(frame)
    with fs.open(f"{TOP}/t.csv", "rb") as file:
        assert pl.read_csv(file).equals(frame)
    lazy = pl.scan_pyarrow_dataset(dataset.dataset(f"{TOP}/t.parquet", filesystem=fs))
    assert lazy.filter(pl.col("n") >= ROWS - 3).select("n").collect()["n"].to_list() == [
        ROWS - 3, ROWS - 2, ROWS - 1,
    ]  # fmt: skip


def test_duckdb(options: dict[str, Any]) -> None:
    duckdb = pytest.importorskip("duckdb", reason="make test installs it")
    fs = fsspec.filesystem("superfs", **options)
    fs.mkdir(TOP)
    with duckdb.connect() as db:
        db.register_filesystem(fs)
        for part in range(3):
            db.execute(
                f"COPY (SELECT range AS n, {part} AS part FROM range({ROWS})) "
                f"TO 'superfs:/{TOP}/p{part}.parquet' (FORMAT parquet)"
            )
        query = f"SELECT count(*), sum(n) FROM 'superfs:/{TOP}/*.parquet' WHERE part > 0"
        assert db.execute(query).fetchone() == (2 * ROWS, ROWS * (ROWS - 1))
        db.execute(f"COPY (SELECT 1 AS a, 'x' AS b) TO 'superfs:/{TOP}/t.csv'")
        assert db.execute(f"SELECT * FROM 'superfs:/{TOP}/t.csv'").fetchall() == [(1, "x")]


def test_shuffled_small_files(options: dict[str, Any], tmp_path: Path) -> None:
    """A training-style reader: thousands of small files in batches, in no order."""
    fs = fsspec.filesystem("superfs", **options)
    files = {f"{TOP}/class{n % 10}/sample{n}": b"%d" % n * (n % 300) for n in range(5000)}
    fs.pipe(files)
    names = sorted(files, key=hash)
    for start in range(0, len(names), 500):
        batch = names[start : start + 500]
        assert fs.cat(batch) == {name: files[name] for name in batch}
    mapper = fs.get_mapper(f"{TOP}/class3")
    assert len(mapper) == 500
    assert mapper["sample13"] == files[f"{TOP}/class3/sample13"]
