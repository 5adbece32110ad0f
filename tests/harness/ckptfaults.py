"""Rank jobs in which something dies, fills up, or gets in the way of something else."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from harness.ckptjobs import load_plain, load_step, save_plain
from superfs.checkpoint import SuperFSWriter, committed, directory, session, steps
from superfs.core.errors import FsError


def save_and_die(path: str, step: str, rank: int, asynchronous: bool) -> None:
    """A committed save, then one in which a rank is killed at a step."""
    waves = step == "before-wave"

    def die(name: str) -> None:
        if name == step and dist.get_rank() == rank:
            os.kill(os.getpid(), signal.SIGKILL)

    group = dist.new_group(backend="gloo")
    for number in range(2):
        steps.hook = die if number else None
        # another structure each time, so that plans are exchanged
        state = {"w": torch.full((700_000,), float(number)), "step": number}
        state |= {"other": torch.ones(number + 1), "more": torch.ones(3_000_000 * waves)}
        where = f"{path}/step-{number}"
        arena = 1 if waves else None
        writer = SuperFSWriter(where, process_group=group, timeout_s=20, arena_bytes=arena)
        start = time.monotonic()
        try:
            if asynchronous:
                future = dcp.async_save(state, storage_writer=writer, process_group=group)
                future.result()
            else:
                dcp.save(state, storage_writer=writer, process_group=group)
        except BaseException as error:  # DCP's own is no Exception
            if time.monotonic() - start > 60:
                raise RuntimeError("too late") from error
            raise


def save_without_courier(path: str) -> str:
    """The writer process of rank 1 is killed: that save fails, the next does not."""
    group = dist.new_group(backend="gloo")
    said = ""
    for number in range(3):
        state = {"w": torch.full((700_000,), float(number)), "step": number}
        writer = SuperFSWriter(f"{path}/step-{number}", process_group=group)
        courier = session.of(group).courier
        if number == 1 and dist.get_rank() == 1 and courier is not None:
            steps.hook = functools.partial(_kill_at, "before-delivery", courier.pid)
        try:
            dcp.async_save(state, storage_writer=writer, process_group=group).result()
        except BaseException as error:  # DCP's own is no Exception
            said = str(error)
        steps.hook = None
    return said


def _kill_at(step: str, pid: int, name: str) -> None:
    if name == step:
        os.kill(pid, signal.SIGKILL)


def fail_on(path: str, step: str, rank: int) -> None:
    """A rank meets a full disk at a step. By the time that anybody hears of it nothing is left."""
    import errno

    def full(name: str) -> None:
        if name == step and dist.get_rank() == rank:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "r.data")

    steps.hook = full
    try:
        save_plain(path, 300_000)
    finally:
        steps.hook = None
        assert directory.attempts(Path(path).parent) == []


def save_until_full(root: str, size: int, asynchronous: bool) -> tuple[int, str]:
    """Saves until one fails: which one, and what it said."""
    group = dist.new_group(backend="gloo")
    for number in range(100):
        state = {"w": torch.full((size,), float(number)), "step": number}
        writer = SuperFSWriter(f"{root}/step-{number:02}", process_group=group)
        try:
            if asynchronous:
                dcp.async_save(state, storage_writer=writer, process_group=group).result()
            else:
                dcp.save(state, storage_writer=writer, process_group=group)
        except BaseException as error:  # DCP's own is no Exception
            assert directory.attempts(root) == []
            return number, str(error)
    raise AssertionError("the disk is too large")


def race(path: str, size: int) -> str:
    """Every rank is a job of its own that saves to the same path; all rename at the same time."""

    def line_up(name: str) -> None:
        if name == "before-rename":
            dist.barrier()

    rank = dist.get_rank()
    steps.hook = line_up
    try:
        state = {"w": torch.full((size,), float(rank)), "step": rank}
        dcp.save(state, storage_writer=SuperFSWriter(path, no_dist=True), no_dist=True)
    except BaseException as error:  # DCP's own is no Exception
        return str(error)
    return "won"


def load_while_saving(root: str, size: int) -> list[int]:
    """What is loaded while the next save is held up before it is committed, and after."""
    group, go_on, found = dist.new_group(backend="gloo"), threading.Event(), []

    def hold(name: str) -> None:
        if name in ("before-delivery", "before-rename"):
            go_on.wait(60)

    for number in range(2):
        steps.hook = hold if number else None
        state = {"w": torch.full((size,), float(number)), "step": number}
        writer = SuperFSWriter(f"{root}/step-{number}", process_group=group)
        future = dcp.async_save(state, storage_writer=writer, process_group=group)
        if number:
            found.append(load_step(str(committed(root)[-1]), size))
            go_on.set()
        future.result()
    return [*found, load_step(str(committed(root)[-1]), size)]


def refused_by_process(path: str) -> tuple[str, int]:
    """What PROCESS does with a writer: it is staged, and then cannot be sent. The next save goes on
    at once."""
    group, state = dist.new_group(backend="gloo"), {"w": torch.ones(5000)}
    writer = SuperFSWriter(f"{path}-0", process_group=group)
    writer.stage(state)
    said = ""
    try:
        pickle.dumps(writer)
    except FsError as error:
        said = error.detail
    start = time.monotonic()
    writer = SuperFSWriter(f"{path}-1", process_group=group)
    dcp.async_save(state, storage_writer=writer, process_group=group).result()
    return said, int(time.monotonic() - start)


def while_one_is_being_skipped(path: str) -> list[str]:
    """What DCP does for a skipped save is held up on rank 0 after the first is over."""
    group = dist.new_group(backend="gloo")
    go_on, go_through = threading.Event(), threading.Event()
    begun = []

    def hold(step: str) -> None:
        if step == "before-delivery" and dist.get_rank() == 0:
            go_on.wait(60)
        if step == "attempt-begun":
            begun.append(step)
            if len(begun) == 2:
                go_through.wait(60)

    steps.hook = hold
    state = {"w": torch.ones(100_000)}
    outcomes: list[str] = []
    futures: list[Any] = []
    for number, policy in enumerate(("skip", "skip", "fail", "fail")):
        if number == 2:
            go_on.set()
            futures[0].result()
        if number == 3:
            go_through.set()
            futures[1].result()
        writer = SuperFSWriter(f"{path}-{number}", process_group=group, in_flight=policy)
        try:
            futures.append(dcp.async_save(state, storage_writer=writer, process_group=group))
            outcomes.append("saved")
        except Exception as error:
            outcomes.append(str(error))
            go_on.set()
    futures[-1].result()
    return outcomes


def load_without_memory(path: str, size: int) -> tuple[str, bool]:
    """Rank 1 cannot take what others have read for it: what it says, whether anybody waited."""
    from superfs.checkpoint.reading import Block

    def refuse(_self: Block, _raw: torch.Tensor) -> None:
        raise MemoryError

    if dist.get_rank() == 1:
        Block.paste = refuse  # type: ignore[assignment, method-assign]
    start = time.monotonic()
    try:
        load_plain(path, size, share="always")
    except BaseException as error:  # DCP's own is no Exception
        return str(error), time.monotonic() - start < 60
    return "", True
