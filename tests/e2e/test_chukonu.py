"""Chukonu on a cluster: read past the mount, written past it, seen through it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("polars", reason="make test installs it")

from superfs.chukonu import Session
from superfs.chukonu import functions as F
from superfs.chukonu.plan.explain import explained
from superfs.client import ClientConfig, FileSystem
from superfs.fsspec.pool import close_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.cluster import Cluster
    from harness.mount import Mount

pytestmark = pytest.mark.slow
TOP = "/chukonu"
SMALL, LARGE = 300, 20_000
"""Files of a few lines, and lines of one file that is cut into splits."""


@pytest.fixture
def options(cluster: Cluster) -> Iterator[dict[str, Any]]:
    config = ClientConfig((cluster.target("clusterd"),), cluster.token_file)
    with FileSystem.connect(config) as fs:
        fs.makedirs(f"{TOP}/raw/small")
        text = "".join(json.dumps({"i": i, "s": "é" * (i % 9)}) + "\n" for i in range(LARGE))
        files = {f"{TOP}/raw/small/{i}.json": b'{"i": -1, "s": "x"}\n' for i in range(SMALL)}
        fs.put_many({**files, f"{TOP}/raw/large.json": text.encode() + b"junk\n"})
        yield {"cluster": cluster.target("clusterd"), "token_file": str(cluster.token_file)}
        fs.remove_tree(TOP)
    close_all()


def clean(session: Session, options: dict[str, Any], path: str) -> Any:  # noqa: ANN401
    reader = session.read.schema("i INT, s STRING").options(splitBytes=50_000, **options)
    return reader.option("mode", "DROPMALFORMED").json(path).filter(F.col("i") % 2 != 0)


def test_past_the_mount(options: dict[str, Any], shared_mount: Mount) -> None:
    with Session.builder.getOrCreate() as session:
        frame = clean(session, options, f"superfs:/{TOP}/raw")
        expected = frame.groupBy("s").count().collect()
        assert sum(row[1] for row in expected) == LARGE / 2 + SMALL
        assert "100% of the bytes on this machine" in explained(frame.plan)
        run = session.executor.last_run
        assert run is not None
        found = run.statistics()
        assert sum(found["bytes_by_way"].values()) == found["bytes_read"]
        assert set(found["bytes_by_way"]) <= {"descriptor", "grpc", "metadata"}
        assert found["bytes_by_way"]["metadata"] >= SMALL * 20
        assert found["bytes_by_way"].keys() & {"descriptor", "grpc"}
        through = clean(session, {}, f"{shared_mount.point}{TOP}/raw")
        assert sorted(through.groupBy("s").count().collect()) == sorted(expected)
        run = session.executor.last_run
        assert run is not None
        assert run.statistics()["bytes_by_way"] == {"mount": found["bytes_read"]}
        for number in range(2):
            writer = frame.write.options(**options).mode("overwrite")
            writer.parquet(f"superfs:/{TOP}/out")
            seen = session.read.parquet(f"{shared_mount.point}{TOP}/out")
            assert seen.count() == LARGE / 2 + SMALL, number
            assert sorted(p.name for p in (shared_mount.point / TOP[1:]).iterdir()) == [
                "out",
                "raw",
            ]
        again = through.limit(5)
        again.write.mode("overwrite").parquet(f"{shared_mount.point}{TOP}/out")
        back = session.read.options(**options).parquet(f"superfs:/{TOP}/out")
        assert sorted(back.collect()) == sorted(again.collect())
