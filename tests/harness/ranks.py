"""Ranks of a gloo world as forks of one process that stays: PyTorch is imported once, not for each.

    ranks.run("save", 2, path)        # ckptjobs.save(path) on two ranks, in a world of their own
    ranks.run("ckpttrain:train", 2)   # of another module of the harness

What one raises comes back as RankFailed, with what the other ranks said.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
import uuid
import warnings
from pathlib import Path
from typing import Any, BinaryIO

TESTS = Path(__file__).parents[1]
_LENGTH = struct.Struct("<Q")


class RankFailed(Exception):
    """By rank: None, or what it raised (the last line) with its trace."""

    def __init__(self, failures: list[tuple[str, str] | None]) -> None:
        self.failures = failures
        texts = [f"rank {n}: {f[1]}" for n, f in enumerate(failures) if f is not None]
        super().__init__("\n".join(texts))

    @property
    def texts(self) -> list[str]:
        return ["" if one is None else one[0] for one in self.failures]


class Ranks:
    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._store = tempfile.TemporaryDirectory(prefix="superfs-ranks-")

    def run(self, job: str, world: int, *args: Any, **kwargs: Any) -> list[Any]:  # noqa: ANN401
        """What the job returns, by rank."""
        if self._process is None:
            self._process = _spawn()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        store = str(Path(self._store.name) / uuid.uuid4().hex)
        _send(self._process.stdin, (job, world, store, args, kwargs))
        try:
            answers = _receive(self._process.stdout)
        except BaseException:  # they hang, and would in every job to come
            self._kill()
            raise
        if any(failed for failed, _ in answers):
            raise RankFailed([value if failed else None for failed, value in answers])
        return [value for _, value in answers]

    def _kill(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait(20)
            self._process.stdout.close()
        self._store.cleanup()


def _spawn() -> subprocess.Popen[bytes]:
    path = [str(TESTS), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-m", "harness.ranks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # with its forks, one group
        env={**os.environ, "PYTHONPATH": ":".join(path), "OMP_NUM_THREADS": "1"},
    )


def _send(to: BinaryIO | Any, value: object) -> None:  # noqa: ANN401
    raw = pickle.dumps(value)
    to.write(_LENGTH.pack(len(raw)) + raw)
    to.flush()


def _receive(source: BinaryIO | Any) -> Any:  # noqa: ANN401
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    return pickle.loads(source.read(_LENGTH.unpack(head)[0]))


def main() -> None:
    """Does each job in as many forks of itself as it has ranks, until its input ends."""
    import torch._dynamo  # what the first DTensor imports: a second, in each rank of each job
    import torch.distributed  # noqa: F401

    from harness import ckptjobs  # noqa: F401

    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a job prints does not mix with answers
    while (work := _receive(sys.stdin.buffer)) is not None:
        job, world, store, args, kwargs = work
        _module(job)  # before the fork: once, not in each rank
        ranks = [_fork(job, rank, world, store, args, kwargs) for rank in range(world)]
        _send(out, [_answer(*rank) for rank in ranks])


def _fork(*work: Any) -> tuple[int, int]:  # noqa: ANN401
    """The process, and where its answer comes from."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        with open(sink, "wb") as answer:
            _send(answer, _do(*work))
        os._exit(0)
    os.close(sink)
    return child, source


def _answer(child: int, source: int) -> tuple[bool, Any]:
    with open(source, "rb") as found:
        answer: tuple[bool, Any] | None = _receive(found)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return answer or (True, (f"ended: {status}", "it ended"))


def _module(job: str) -> Any:  # noqa: ANN401
    return importlib.import_module(f"harness.{job.rpartition(':')[0] or 'ckptjobs'}")


def _do(
    job: str,
    rank: int,
    world: int,
    store: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[bool, Any]:
    import torch.distributed as dist

    from superfs.checkpoint import direct, session, steps

    function = getattr(_module(job), job.rpartition(":")[2])
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        answer: tuple[bool, Any] = (False, function(*args, **kwargs))
    except BaseException as error:
        answer = (True, (str(error), traceback.format_exc()))
    steps.hook = None
    session.close_all()
    direct.close_all()  # by _exit nothing else does; what it has open would outlive it for a minute
    return answer


if __name__ == "__main__":
    main()
