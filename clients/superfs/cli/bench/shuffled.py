"""A training job's reader: every epoch goes over all files in an order of its own, and every
process takes its share of that order, as a distributed sampler deals it. Open, read, close."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from superfs.cli.bench.smallfiles import read_file, write_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.cli.bench.smallfiles import Part

FILES_PER_DIRECTORY = 1000


def dataset(part: Part) -> int:
    """Makes this process's share of the files, unless they are there."""
    for number in range(part.job.files):
        path = _path(part, part.rank, number)
        if number % FILES_PER_DIRECTORY == 0:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.exists(path):
                return 0
        write_file(path, part.stamped(number), fsync=False)
    return part.job.files


def epoch(part: Part) -> int:
    job = part.job
    part.epoch += 1
    order = [(rank, number) for rank in range(job.procs) for number in range(job.files)]
    random.Random(job.seed * 1000 + part.epoch).shuffle(order)
    mine = order[part.rank :: job.procs]
    for rank, number in mine:
        read_file(_path(part, rank, number), job.file_bytes, rank, number)
    return len(mine)


def _path(part: Part, rank: int, number: int) -> str:
    return f"{part.job.top}/s{rank}-{number // FILES_PER_DIRECTORY:04}/{number:07}"


ACTS: dict[str, Callable[[Part], int]] = {"dataset": dataset, "epoch": epoch}
