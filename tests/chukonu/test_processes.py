"""Python functions in processes of their own: the same answers, loaded once, gone at the end."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import Session
from superfs.chukonu import functions as F
from superfs.chukonu.errors import RuntimeException, UnsupportedError
from superfs.chukonu.native import pa

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("cloudpickle", reason="make test installs it")
pytestmark = pytest.mark.slow
ROWS, THREADS = 20_000, 2


@pytest.fixture
def apart() -> Iterator[Session]:
    with Session.builder.config("chukonu.threads", THREADS).getOrCreate() as found:
        yield found


def pids(session: Session) -> set[int]:
    """In which processes functions run."""
    pid = F.udf(lambda _: os.getpid(), "long")
    rows = session.range(ROWS).repartition(4).select(pid("id").alias("p")).distinct().collect()
    return {row["p"] for row in rows}


def program(session: Session) -> list[Any]:
    class Plus:
        def __init__(self) -> None:
            self.step = 3

        def __call__(self, value: int) -> int:
            return value + self.step

    def doubled(values: Any) -> Any:  # noqa: ANN401
        return pa.array([None if v is None else 2 * v for v in values.to_pylist()])

    def even(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            yield batch.filter(pa.array([v % 2 == 0 for v in batch.column(0).to_pylist()]))

    d = session.range(ROWS).withColumn("n", F.when(F.col("id") % 7 > 0, F.col("id")))
    plus = F.udf(Plus, "long")("id").alias("p")
    d = d.select("id", F.arrow_udf(doubled, "long")("n").alias("d"), plus)
    d = d.filter(F.udf(lambda v, text: v % 3 == 0 and text == "é", "boolean")("id", F.lit("é")))
    again = F.udf(lambda inner: f"<{inner}>", "string")(F.udf(lambda v: f"{v}", "string")("id"))
    d = d.mapInArrow(even, "id LONG, d LONG, p LONG").withColumn("t", again)
    return sorted(d.collect())


def test_the_same_answers_elsewhere(apart: Session) -> None:
    found = program(apart)
    assert len(found) == len(range(0, ROWS, 6))
    assert found[1] == (6, 12, 9, "<6>")
    assert found[7] == (42, None, 45, "<42>")
    with Session.builder.config("chukonu.python.processes", 0).getOrCreate() as here:
        assert program(here) == found
        assert pids(here) == {os.getpid()}
    assert os.getpid() not in pids(apart)
    assert apart.executor.last_run.statistics()["cpu_seconds"] > 0


def test_a_small_job_starts_nothing(apart: Session) -> None:
    pid = F.udf(lambda _: os.getpid(), "long")
    assert apart.range(100).select(pid("id").alias("p")).distinct().collect() == [(os.getpid(),)]


def test_what_functions_need_is_loaded_once(
    apart: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    (tmp_path / "once_loaded.py").write_text(
        f"import os\nwith open({str(notes)!r}, 'a') as file:\n"
        "    file.write(f'{os.getpid()}\\n')\n"
        "def tail(value):\n    return value % 10\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import once_loaded  # type: ignore[import-not-found]

    tail = F.udf(once_loaded.tail, "long")
    for _ in range(3):
        made = apart.range(ROWS).repartition(6).select(tail("id").alias("t"))
        assert len(made.distinct().collect()) == 10
    loaded = {int(line) for line in notes.read_text().split()}
    assert len(loaded) == 2, "here, and where all others were forked from"
    assert os.getpid() in loaded


def test_processes_stay_for_the_same_functions(apart: Session) -> None:
    pid = F.udf(lambda _: os.getpid(), "long")
    seen = set()
    for _ in range(4):
        rows = apart.range(ROWS).repartition(6).select(pid("id").alias("p")).distinct().collect()
        seen |= {row["p"] for row in rows}
    assert 1 <= len(seen) <= THREADS


def test_errors_come_back_as_they_are(apart: Session) -> None:
    def bad(value: int) -> int:
        if value == 15_000:
            raise KeyError(f"no {value}")
        return value

    with pytest.raises(KeyError, match="no 15000") as caught:
        apart.range(ROWS).select(F.udf(bad, "long")("id")).collect()
    assert "in bad" in "".join(caught.value.__notes__)
    with pytest.raises(RuntimeException, match="values for"):
        apart.range(ROWS).select(F.arrow_udf(lambda a: a.slice(1), "long")("id")).collect()
    assert len(program(apart)) == len(range(0, ROWS, 6))


def test_a_process_that_is_killed_is_an_error(apart: Session) -> None:
    def dies(value: int) -> int:
        if value == 15_000:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    with pytest.raises(RuntimeException, match="the process of dies has ended"):
        apart.range(ROWS).select(F.udf(dies, "long")("id")).collect()
    assert len(program(apart)) == len(range(0, ROWS, 6))


def test_what_cannot_be_sent_is_refused(apart: Session) -> None:
    lock = threading.Lock()

    def locked(value: int) -> int:
        with lock:
            return value

    made = F.udf(locked, "long")
    with pytest.raises(UnsupportedError, match=r"cannot be sent.*processes = 0"):
        apart.range(ROWS).select(made("id")).collect()
    with Session.builder.config("chukonu.python.processes", 0).getOrCreate() as here:
        assert len(here.range(ROWS).select(made("id")).collect()) == ROWS


def test_who_takes_few_rows_leaves_nobody_behind(apart: Session) -> None:
    def endless(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            while True:
                yield batch

    assert len(apart.range(ROWS).mapInArrow(endless, "id LONG").limit(5).collect()) == 5


def test_nothing_is_left_when_a_session_ends() -> None:
    with Session.builder.getOrCreate() as session:
        watched = [os.pidfd_open(pid) for pid in pids(session)]
    try:
        for process in watched:
            assert select.select([process], [], [], 60)[0], "it lives on"
    finally:
        for process in watched:
            os.close(process)
