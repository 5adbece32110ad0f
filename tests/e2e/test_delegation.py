"""What a mount does by itself and tells later: cheap, seen by others at once, never half of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from harness.daemon import BIN
from harness.hammers import LEASE_TIMEOUT_S, QUICK, SHORT, sdk_of
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from superfs.client.delegation.shipping import SHIP_AFTER_S

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
DELEGATING: dict[str, dict[str, Any]] = {**QUICK, "mount": {"delegate": True}}
MEASURED: dict[str, dict[str, Any]] = {
    **QUICK,
    "mount": {"delegate": True, "metrics": "127.0.0.1:0"},
}
DATA = b"d" * 4096


@pytest.fixture
def mounts() -> Iterator[tuple[Mount, Mount]]:
    with (
        Cluster(settings=SHORT) as cluster,
        Mount(cluster, "m0", settings=MEASURED) as first,
        Mount(cluster, "m1", settings=DELEGATING) as second,
    ):
        yield first, second
        fsck(cluster)
        cluster.trouble([".*"])


def figure(mount: Mount, name: str) -> float:
    line = mount.daemon.wait_for_log("metrics at")
    url = line[line.index("http://") :].split('"')[0].split()[0]
    with urllib.request.urlopen(url) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith(f"superfs_mount_{name}")
    )


def messages(mount: Mount) -> float:
    return figure(mount, 'messages_total{daemon="metad-1",direction="sent"}')


def make(directory: Path, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        (directory / f"f{number:05d}").write_bytes(DATA + b"%d" % number)


@contextlib.contextmanager
def apart(code: str, *args: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs this, with what is in this module, in a process that starts no daemon. The child that is
    to become one begins with a copy of every open file, and closes these first: where such a close
    waits for the daemon, both wait for each other."""
    begin = "import sys; from pathlib import Path; from e2e.test_delegation import *\n"
    with subprocess.Popen(
        [sys.executable, "-c", begin + code, *args],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    ) as maker:
        try:
            yield maker
        finally:
            maker.kill()


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check(directory: Path, *, cut: bool = False) -> int:
    """How many files there are: the first so many that were made, each whole. `cut`: the last one
    may have been made and not written."""
    names = sorted(os.listdir(directory))
    assert names == [f"f{number:05d}" for number in range(len(names))]
    for number, name in enumerate(names):
        found = (directory / name).read_bytes()
        last = cut and number == len(names) - 1
        assert found == DATA + b"%d" % number or (last and not found)
    return len(names)


def test_files_of_an_own_directory_cost_few_messages(mounts: tuple[Mount, Mount]) -> None:
    first, _ = mounts
    (first.point / "own").mkdir()
    make(first.point / "own", 8)
    before, started = messages(first), time.monotonic()
    make(first.point / "own", 1024, 8)
    sync(first.point / "own")
    beside = 12  # keep-alives, and late news of what is open
    aged = (time.monotonic() - started) / SHIP_AFTER_S  # on a machine with much else to do
    assert messages(first) - before <= 1024 / 128 + beside + aged
    assert check(first.point / "own") == 1032


def test_another_mount_sees_at_once_what_was_done(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    (first.point / "own").mkdir()
    for number in range(0, 60, 20):
        make(first.point / "own", 20, number)
        assert check(second.point / "own") == number + 20
    (second.point / "own" / "f00000").unlink()
    assert not (first.point / "own" / "f00000").exists()


def test_a_tree_that_one_mount_makes_is_whole_for_another(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    top = first.point / "tree"
    for path in ("a/b/c", "a/d", "e"):
        (top / path).mkdir(parents=True)
        make(top / path, 5)
        os.symlink("f00001", top / path / "link")
    (top / "a" / "d" / "f00004").rename(top / "a" / "d" / "moved")
    there = second.point / "tree"
    listing = ["find", ".", "-printf", "%P %y %s %m %l\n"]
    ours, theirs = (
        sorted(subprocess.run(listing, cwd=p, check=True, capture_output=True).stdout.splitlines())
        for p in (top, there)
    )
    assert ours == theirs
    subprocess.run(["rm", "-r", there], check=True)
    assert not top.exists()


def test_a_killed_mount_leaves_a_prefix(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    own = first.point / "own"
    own.mkdir()
    make(own, 50)
    sync(own / "f00049")
    maker = subprocess.Popen([sys.executable, "-c", MAKER, own, "50"])
    try:
        wait_until(lambda: (own / "f00400").exists(), lambda: "some are made")
        first.daemon.kill()
    finally:
        maker.kill()
        maker.wait()
    assert check(second.point / "own", cut=True) >= 50, "what was synced is there"
    first.close()
    first.start()
    assert check(own, cut=True) >= 50


MAKER = """
import sys
number = int(sys.argv[2])
while True:
    with open(f"{sys.argv[1]}/f{number:05d}", "wb") as f:
        f.write(b"d" * 4096 + b"%d" % number)
    number += 1
"""


def test_metad_is_killed_again_and_again(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    own = first.point / "own"
    own.mkdir()
    with apart("make(Path(sys.argv[1]), 600)", own) as maker:
        for limit in (100, 250, 400):
            wait_until((own / f"f{limit:05d}").exists, f"{limit} are made")
            first.cluster.metad.kill()
            first.cluster.start(["metad-1"])
        assert maker.wait(60) == 0
    assert check(second.point / "own") == 600


def test_a_mount_that_was_frozen_too_long_does_no_harm_and_says_so(
    mounts: tuple[Mount, Mount],
) -> None:
    first, second = mounts
    own = first.point / "own"
    own.mkdir()
    make(own, 3)
    sync(own)
    make(own, 3, 3)
    held = os.open(own / "f00005", os.O_WRONLY)
    os.kill(first.daemon.pid, signal.SIGSTOP)
    try:
        there = second.point / "own"
        started = time.monotonic()
        assert sorted(os.listdir(there))[:3] == ["f00000", "f00001", "f00002"]
        assert time.monotonic() - started < 4 * LEASE_TIMEOUT_S
        (there / "f00003").write_bytes(b"somebody else's")
        (there / "f00000").unlink()
    finally:
        os.kill(first.daemon.pid, signal.SIGCONT)
    wait_until(
        lambda: (own / "f00003").read_bytes() == b"somebody else's",
        lambda: "the one that was frozen sees what is so",
    )
    assert sorted(os.listdir(own)) == sorted(os.listdir(second.point / "own"))
    assert not (own / "f00000").exists()
    try:
        with pytest.raises(OSError, match=r"error|handle"):
            os.fsync(held)
    finally:
        os.close(held)
    with pytest.raises(OSError, match="error"):
        sync(own)  # of what was lost there nobody has heard
    sync(own)
    assert figure(first, "lost_files") == 3
    command: list[str | Path] = [BIN / "superfs", "sync", first.point]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode != 0
    assert "could not be shipped" in told.stderr
    assert subprocess.run(command).returncode == 0, "it was told once"


def test_space_for_what_is_made_here_is_used_as_ever(mounts: tuple[Mount, Mount]) -> None:
    """Larger files go to data daemons, removed ones leave nothing there."""
    first, second = mounts
    own = first.point / "own"
    own.mkdir()
    for number in range(20):
        (own / f"big{number}").write_bytes(b"%d" % number * 40_000)
        if number % 2:
            (own / f"big{number}").unlink()
    for number in range(0, 20, 2):
        assert (second.point / "own" / f"big{number}").read_bytes() == b"%d" % number * 40_000
    with sdk_of(first.cluster) as sdk:
        assert len(list(sdk.listdir("/own"))) == 10


def test_superfs_sync_leaves_nothing_to_lose(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    own = first.point / "own"
    own.mkdir()
    make(own, 40)
    held = os.open(own / "open", os.O_CREAT | os.O_WRONLY)
    try:
        os.write(held, b"not closed yet")
        subprocess.run([BIN / "superfs", "sync", own], check=True)
        first.daemon.kill()
    finally:
        with contextlib.suppress(OSError):  # of a mount that is dead
            os.close(held)
    (second.point / "own" / "open").rename(second.point / "rest")
    assert check(second.point / "own") == 40
    assert (second.point / "rest").read_bytes() == b"not closed yet"
    first.close()
    first.start()
