"""The check of a store by a child: what is damage, what is not, and that it can be ended."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import lmdb
import pytest

from superfs.core.errors import Code, FsError
from superfs.daemon import lmdbfile
from superfs.daemon.lmdbfile import check_in_child, child_main, end_checks, fault_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def outcome(tmp_path: Path, statement: str) -> FsError:
    """Of a child that runs this. `timeit` is a module that runs a statement."""
    with pytest.raises(FsError) as caught:
        check_in_child("timeit", ["-n1", "-r1", statement], tmp_path / "data.mdb")
    return caught.value


@pytest.mark.parametrize("name", ["SIGABRT", "SIGBUS", "SIGSEGV"])
def test_a_page_that_kills_the_child_is_damage(tmp_path: Path, name: str) -> None:
    error = outcome(tmp_path, f"import os, signal; os.kill(os.getpid(), signal.{name})")
    assert error.code is Code.DAMAGED
    assert name in error.detail
    assert "Nothing was changed" in error.detail


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"])
def test_a_child_that_is_killed_from_outside_says_nothing_of_the_store(
    tmp_path: Path, name: str
) -> None:
    """The kernel does so when memory runs out, systemd when it stops a service."""
    dies = f"signal.signal(signal.{name}, signal.SIG_DFL)" if name == "SIGINT" else "0"
    error = outcome(tmp_path, f"import os, signal; {dies}; os.kill(os.getpid(), signal.{name})")
    assert error.code is Code.IO
    assert name in error.detail
    assert "amage" not in error.detail


def test_a_child_does_without_the_libraries_of_a_daemon() -> None:
    """A small store is checked in less time than they take, at each start and fsck."""
    modules = ["superfs.meta.fsck", "superfs.meta.verify", "superfs.data.verify"]
    code = f"import {', '.join(modules)}, json, sys; print(json.dumps(sorted(sys.modules)))"
    path = ":".join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded >= {"superfs", "lmdb"}
    assert not loaded & {"asyncio", "google", "grpc", "prometheus_client", "structlog"}


def test_a_check_that_is_no_longer_wanted_ends(tmp_path: Path) -> None:
    ended: list[FsError] = []

    def wait() -> None:
        ended.append(outcome(tmp_path, "import time; time.sleep(600)"))

    thread = threading.Thread(target=wait)
    thread.start()
    while not lmdbfile._children:
        thread.join(0.005)
    end_checks()
    thread.join(20)
    assert ended[0].code is Code.IO


def raising(error: BaseException) -> Callable[[], None]:
    def check() -> None:
        raise error

    return check


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FsError(Code.DAMAGED, "it is"), 78),
        (FsError(Code.IO, "it cannot be read"), 75),
        (MemoryError(), 75),
        (OSError(12, "Cannot allocate memory"), 75),
    ],
)
def test_what_the_child_answers(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert child_main(raising(error)) == status
    assert '"detail"' in capsys.readouterr().out


def test_errors_of_lmdb(tmp_path: Path) -> None:
    of_the_machine: list[type[lmdb.Error]] = [lmdb.MemoryError, lmdb.ReadersFullError]
    of_the_file: list[type[lmdb.Error]] = [lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.Error]
    for kind in of_the_machine:
        assert fault_of(tmp_path, kind("says LMDB")).code is Code.IO
    for kind in of_the_file:
        assert fault_of(tmp_path, kind("says LMDB")).code is Code.DAMAGED
