"""Writing: an output is there whole or not at all, once, whatever is killed when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import Session
from superfs.chukonu import functions as F
from superfs.chukonu.errors import AnalysisException, ArithmeticException, UnsupportedError
from superfs.chukonu.sinks.target import LocalTarget

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 3000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    for part in range(3):
        lines = (json.dumps({"i": i, "s": f"text {i % 7}"}) for i in range(part, ROWS, 3))
        (path / f"{part}.json").write_text("".join(line + "\n" for line in lines))
    return path


def clean(session: Session, source: Path) -> Any:  # noqa: ANN401
    frame = session.read.option("splitBytes", 10_000).json(str(source), schema="i INT, s STRING")
    return frame.filter(F.col("i") % 2 == 0).withColumn("u", F.upper("s"))


def left(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith(".out"))


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_what_is_written_is_read_back(session: Session, source: Path, kind: str) -> None:
    out = source.parent / "out"
    frame = clean(session, source)
    frame.write.format(kind).save(str(out))
    back = session.read.format(kind).schema("i INT, s STRING, u STRING").load(str(out))
    assert sorted(back.collect()) == sorted(frame.collect())
    assert not left(out.parent)
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["rows"] == ROWS / 2
    assert sum(part["rows"] for part in manifest["parts"]) == ROWS / 2
    for part in manifest["parts"]:
        assert (out / part["name"]).stat().st_size == part["bytes"]


def test_modes(session: Session, source: Path) -> None:
    out = source.parent / "out"
    frame = clean(session, source)
    frame.write.parquet(str(out))
    with pytest.raises(AnalysisException, match="PATH_ALREADY_EXISTS"):
        frame.write.parquet(str(out))
    frame.limit(3).write.mode("ignore").parquet(str(out))
    assert session.read.parquet(str(out)).count() == ROWS / 2
    frame.limit(3).write.mode("overwrite").parquet(str(out))
    assert session.read.parquet(str(out)).count() == 3
    assert not left(out.parent)
    with pytest.raises(UnsupportedError, match="append"):
        frame.write.mode("append")


def test_the_same_job_writes_the_same_bytes(session: Session, source: Path) -> None:
    contents = []
    for name in ("one", "two"):
        out = source.parent / name
        clean(session, source).write.parquet(str(out))
        contents.append({p.name: p.read_bytes() for p in out.glob("part-*")})
    assert contents[0] == contents[1]
    other = source.parent / "three"
    clean(session, source).filter(F.col("i") > 5).write.parquet(str(other))
    assert not {p.name for p in other.glob("part-*")} & contents[0].keys()


class Stopping(LocalTarget):
    """Fails for good at the n-th put."""

    def __init__(self, puts: int) -> None:
        self.puts = puts

    def put(self, path: str, data: bytes) -> None:
        self.puts -= 1
        if self.puts < 0:
            raise OSError(28, "No space left on device")
        super().put(path, data)


class Counting(LocalTarget):
    def __init__(self) -> None:
        self.parts: list[str] = []

    def put(self, path: str, data: bytes) -> None:
        if "/part-" in path:
            self.parts.append(path)
        super().put(path, data)


def test_it_goes_on_where_it_stopped(
    session: Session, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = source.parent / "out"
    reference = source.parent / "reference"
    clean(session, source).write.parquet(str(reference))
    parts = sorted(p.name for p in reference.glob("part-*"))
    done = 0
    for puts in (0, 1, 4, 5):
        stopping = Stopping(puts)
        monkeypatch.setattr("superfs.chukonu.sinks.target.target_for", lambda *_, s=stopping: s)
        with pytest.raises(OSError, match="No space"):
            clean(session, source).write.parquet(str(out))
        assert not out.exists()
        (attempt,) = left(out.parent)
        done = len(os.listdir(out.parent / attempt / "_done"))
    assert done >= 3
    counting = Counting()
    monkeypatch.setattr("superfs.chukonu.sinks.target.target_for", lambda *_: counting)
    clean(session, source).write.parquet(str(out))
    assert len(counting.parts) == len(parts) - done
    assert sorted(p.name for p in out.glob("part-*")) == parts
    for name in parts:
        assert (out / name).read_bytes() == (reference / name).read_bytes()
    assert not left(out.parent)


def test_changed_input_is_another_job(session: Session, source: Path) -> None:
    """What was done for other contents is not taken."""
    out = source.parent / "out"
    stopping = Stopping(4)
    from superfs.chukonu.sinks.commit import Output

    with pytest.raises(OSError, match="No space"):
        Output(stopping, str(out), "parquet", clean(session, source).plan).write(
            session.executor, replace=False
        )
    (source / "0.json").write_text('{"i": 2, "s": "new"}\n')
    frame = clean(session, source)
    frame.write.parquet(str(out))
    assert session.read.parquet(str(out)).filter(F.col("s") == "new").count() == 1
    assert session.read.parquet(str(out)).count() == frame.count()


JOB = """
import sys
from superfs.chukonu import Session, functions as F
s = Session.builder.config("chukonu.threads", 2).getOrCreate()
d = s.read.option("splitBytes", 10_000).json(sys.argv[1], schema="i INT, s STRING")
d = d.filter(F.col("i") % 2 == 0).withColumn("u", F.upper("s"))
print("begin", flush=True)
d.write.parquet(sys.argv[2])
print("end", flush=True)
"""


@pytest.mark.slow
def test_kill_at_any_time(session: Session, source: Path) -> None:
    """Killed whenever another part is there, the job ends with the output of one that was not."""
    out, reference = source.parent / "out", source.parent / "reference"
    clean(session, source).write.parquet(str(reference))
    kills = 0
    for wanted in range(2, 7, 4):
        with subprocess.Popen(
            [sys.executable, "-c", JOB, str(source), str(out)], stdout=subprocess.PIPE, text=True
        ) as job:
            assert job.stdout is not None
            assert job.stdout.readline() == "begin\n"
            while job.poll() is None:
                done = [f for a in left(out.parent) for f in (out.parent / a / "_done").glob("0*")]
                if len(done) >= wanted:
                    job.send_signal(signal.SIGKILL)
                    break
            kills += job.wait() == -signal.SIGKILL
        if out.exists():
            break
    if not out.exists():
        clean(session, source).write.parquet(str(out))
    assert kills >= 1
    names = sorted(p.name for p in reference.iterdir() if p.is_file())
    assert sorted(p.name for p in out.iterdir() if p.is_file()) == names
    for name in names:
        if name.startswith("part-"):
            assert (out / name).read_bytes() == (reference / name).read_bytes(), name


def test_what_a_killed_process_was_putting_there_is_not_published(tmp_path: Path) -> None:
    attempt, out = tmp_path / "attempt", tmp_path / "out"
    (attempt / "_done").mkdir(parents=True)
    target = LocalTarget()
    for name in ("part-00000", "_done/00000.json"):
        target.put(str(attempt / name), b"whole")
        (attempt / name).with_name(f".{(attempt / name).name}-1-2").write_bytes(b"ha")
    target.publish(str(attempt), str(out), replace=False)
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == [
        "_done/00000.json",
        "part-00000",
    ]


def test_a_fault_leaves_no_output(session: Session, source: Path) -> None:
    out = source.parent / "out"
    frame = session.read.json(str(source), schema="i INT")
    with pytest.raises(ArithmeticException):
        frame.select((F.lit(1) / F.col("i")).alias("x")).write.parquet(str(out))
    assert not out.exists()
