"""Ctrl-C, while the daemons are gone: what every operator tries first."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from superfs.core.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
PATIENT = {"client": {"retry_timeout_s": 120.0}}
CATCHES = """
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: print("caught", flush=True))
print("ready", flush=True)
file = os.open(sys.argv[1], os.O_WRONLY)
os.write(file, b"new")
os.fsync(file)
print("synced", flush=True)
"""


@pytest.fixture
def mount() -> Iterator[Mount]:
    with Cluster() as cluster, Mount(cluster, settings=PATIENT) as mount:
        yield mount
        fsck(cluster)
        cluster.trouble([".*"])


@contextlib.contextmanager
def waiting(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A program that waits for the mount."""
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        stack = Path(f"/proc/{program.pid}/stack")
        try:
            wait_until(
                lambda: re.search("request_wait_answer|folio_wait|filemap", stack.read_text()),
                lambda: f"it waits: {stack.read_text()}",
            )
            yield program
        finally:
            program.kill()


def test_while_metad_is_gone(mount: Mount) -> None:
    top, metad = mount.point, mount.cluster.metad
    (top / "file").write_bytes(b"old")
    metad.kill()
    for number in (signal.SIGINT, signal.SIGKILL):
        for command in (["ls", f"{top}/unknown"], ["mkdir", f"{top}/made{number}"]):
            with waiting(*command) as program:
                program.send_signal(number)
                assert program.wait(20) == -number, command
    with waiting(sys.executable, "-c", CATCHES, top / "file") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGINT)
        mount.cluster.start(["metad-1"])
        assert program.wait(60) == 0
        assert sorted(program.stdout.read().split()) == ["caught", "synced"]
    assert (top / "file").read_bytes() == b"new"
    (top / "file").unlink()
    # What was asked for by those who were killed may be there or not; it is the same for everybody.
    for name in os.listdir(top):
        assert (top / name).is_dir()
        (top / name).rmdir()
    assert not os.listdir(top)


def test_while_datad_is_gone(mount: Mount) -> None:
    file = mount.point / "big"
    file.write_bytes(os.urandom(8 * MIB))
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    mount.cluster.datad.kill()
    # Not dd, which catches SIGINT: a wait for what is read ahead ends by fatal signals only.
    for number in (signal.SIGINT, signal.SIGKILL):
        with waiting("md5sum", file) as program:
            program.send_signal(number)
            assert program.wait(20) == -number
    mount.cluster.start(["datad-2"])
    assert len(file.read_bytes()) == 8 * MIB
