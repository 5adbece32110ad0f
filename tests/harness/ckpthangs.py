"""Rank jobs in which a rank is stopped, not dead: no socket closes, and only time tells."""

from __future__ import annotations

import datetime
import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from superfs.checkpoint import SuperFSReader, SuperFSWriter, steps

TIMEOUT_S = 6
SLACK_S = 30  # of a machine that does other things


def wait_for_the_stopped(root: str, what: str, step: str) -> None:
    """Rank 1 stops for good at a step of a save or a load; the other one hears of it within the
    time of the group, and ends it."""
    timeout = datetime.timedelta(seconds=TIMEOUT_S)
    group, rank = dist.new_group(backend="gloo", timeout=timeout), dist.get_rank()
    state = {"w": torch.ones(700_000), "step": 1}

    def save(name: str) -> None:
        writer = SuperFSWriter(f"{root}/{name}", process_group=group, timeout_s=TIMEOUT_S)
        if what == "async":
            dcp.async_save(state, storage_writer=writer, process_group=group).result()
        else:
            dcp.save(state, storage_writer=writer, process_group=group)

    def load() -> None:
        reader = SuperFSReader(f"{root}/good", process_group=group, timeout_s=TIMEOUT_S)
        dcp.load(state, storage_reader=reader, process_group=group)

    pids = Path(root) / "pid"
    if rank == 1:
        pids.write_text(str(os.getpid()))
    save("good")
    state["more"] = torch.ones(3) if what != "load" else state["w"]  # so that plans are exchanged

    def stop(name: str) -> None:
        if name == step and rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    steps.hook = stop
    start = time.monotonic()
    try:
        if what == "load":
            del state["more"]
            load()
        else:
            save("bad")
    except BaseException:  # DCP's own is no Exception
        assert time.monotonic() - start < TIMEOUT_S + SLACK_S
        return
    finally:
        os.kill(int(pids.read_text()), signal.SIGKILL)
    raise AssertionError("nobody missed a rank")
