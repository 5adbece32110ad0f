"""What each idea of Chukonu is worth: the same programs without it, in turn, and the same rows.

    python bench/chukonu_ablation.py [--mib 8] [--rounds 3] [--threads 2] [--dir DIR]

The workloads are those of bench/chukonu.py (built-in functions). Without fusion: what every step of
a segment gives goes through a file of Arrow, as between stages of their own. All columns: nothing
is pruned, so everything that is read is carried through every shuffle. One row: frames have
one row each. One thread, for comparison. Seconds are wall time, medians, with the least and the
most; the factor is how many times as long it takes. Answers are compared as multisets of rows.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "dataprep"), str(HERE)]  # this folder has other `programs`

import programs  # noqa: E402

import chukonu as side_by_side  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKLOADS = ("word_count", "sort", "quality", "dedup")


@contextlib.contextmanager
def no_fusion(folder: str) -> Iterator[None]:
    from superfs.chukonu.embedded import steps
    from superfs.chukonu.native import pl

    done = steps._done

    def through_a_file(frame: Any, step: Any) -> Any:  # noqa: ANN401
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            done(frame, step).write_ipc(file.name)
            return pl.read_ipc(Path(file.name).read_bytes())

    with mock.patch.object(steps, "_done", through_a_file):
        yield


@contextlib.contextmanager
def all_columns(_: str) -> Iterator[None]:
    from superfs.chukonu.embedded import executor
    from superfs.chukonu.sinks import commit

    def kept(plan: Any) -> Any:  # noqa: ANN401
        return plan

    with mock.patch.object(executor, "prune", kept), mock.patch.object(commit, "prune", kept):
        yield


@contextlib.contextmanager
def one_row(_: str) -> Iterator[None]:
    from superfs.chukonu.sources import files

    gathered = files.gathered

    def single(frames: Any, size: int) -> Any:  # noqa: ANN401
        for frame, records in gathered(frames, size):
            for place, row in enumerate(frame.iter_slices(1)):
                yield row, 0 if place else records

    with mock.patch.object(files, "gathered", single):
        yield


@contextlib.contextmanager
def whole(_: str) -> Iterator[None]:
    yield


ARMS: dict[str, tuple[Callable[[str], Any], bool]] = {
    "as it is": (whole, False),
    "without fusion": (no_fusion, False),
    "all columns": (all_columns, False),
    "frames of one row": (one_row, False),
    "one thread": (whole, True),
}


def run(workload: str, arm: str, work: Path, threads: int) -> tuple[float, str]:
    from superfs.chukonu import Session
    from superfs.chukonu import functions as F

    patch, single = ARMS[arm]
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    builder = Session.builder.config("chukonu.threads", 1 if single else threads)
    with builder.getOrCreate() as session, patch(str(work)):
        started = time.perf_counter()
        programs.BUILT_IN[workload](session, F, str(work)).write.parquet(str(out))
        seconds = time.perf_counter() - started
    return seconds, side_by_side.digest(out, workload)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dir", default="/var/tmp")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
    try:
        side_by_side.make_data(work, args.mib << 20, 0)
        print(
            f"{platform.node()}: {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {args.mib} "
            f"MiB of documents, {args.threads} threads, {args.rounds} rounds"
        )
        for workload in WORKLOADS:
            took: dict[str, list[float]] = {arm: [] for arm in ARMS}
            known = run(workload, "as it is", work, args.threads)[1]
            for _ in range(args.rounds):
                for arm in ARMS:
                    seconds, answer = run(workload, arm, work, args.threads)
                    if answer != known:
                        print(f"{workload}, {arm}: other rows")
                        return 1
                    took[arm].append(seconds)
            usual = statistics.median(took["as it is"])
            print(workload)
            for arm, runs in took.items():
                middle = statistics.median(runs)
                spread = f"({min(runs):.2f}-{max(runs):.2f})"
                print(f"  {arm:18} {middle:7.2f} s {spread:14} x {middle / usual:.2f}", flush=True)
    finally:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
