"""Ranks of a gloo world as processes that stay: PyTorch is imported once, not once for each test.

    ranks.run("save", 2, path)        # jobs.save(path) on two ranks, in a world of their own

The functions live in `harness.ckptjobs` and `harness.ckptstock`. What one raises comes back as
RankFailed, with what the other ranks said.
"""

from __future__ import annotations

import os
import pickle
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
        self._processes: list[subprocess.Popen[bytes]] = []
        self._store = tempfile.TemporaryDirectory(prefix="superfs-ranks-")

    def run(self, job: str, world: int, *args: Any, **kwargs: Any) -> list[Any]:  # noqa: ANN401
        """What the job returns, by rank."""
        while len(self._processes) < world:
            self._processes.append(_spawn())
        store = str(Path(self._store.name) / uuid.uuid4().hex)
        for rank, process in enumerate(self._processes[:world]):
            assert process.stdin is not None
            _send(process.stdin, (job, rank, world, store, args, kwargs))
        answers = []
        for process in self._processes[:world]:
            assert process.stdout is not None
            answers.append(_receive(process.stdout))
        if any(failed for failed, _ in answers):
            raise RankFailed([value if failed else None for failed, value in answers])
        return [value for _, value in answers]

    def close(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self._store.cleanup()


def _spawn() -> subprocess.Popen[bytes]:
    path = [str(TESTS), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-m", "harness.ranks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
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
    """A rank: does each job in a fork of itself until its input ends."""
    import torch.distributed  # noqa: F401

    from harness import ckptjobs, ckptstock  # noqa: F401

    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a job prints does not mix with answers
    while (work := _receive(sys.stdin.buffer)) is not None:
        source, sink = os.pipe()
        child = os.fork()
        if not child:
            os.close(source)
            with open(sink, "wb") as answer:
                _send(answer, _do(*work))
            os._exit(0)
        os.close(sink)
        with open(source, "rb") as found:
            answer = _receive(found)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _send(out, answer or (True, (f"ended: {status}", "it ended")))


def _do(
    job: str,
    rank: int,
    world: int,
    store: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[bool, Any]:
    import torch.distributed as dist

    from harness import ckptjobs, ckptstock
    from superfs.checkpoint import session, steps

    function = getattr(ckptjobs, job, None) or getattr(ckptstock, job)
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        answer: tuple[bool, Any] = (False, function(*args, **kwargs))
    except BaseException as error:
        answer = (True, (str(error), traceback.format_exc()))
    steps.hook = None
    session.close_all()
    return answer


if __name__ == "__main__":
    main()
