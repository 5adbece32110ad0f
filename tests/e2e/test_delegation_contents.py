"""Files that are too large for metad, made by a mount by itself: their contents go together, before
anybody hears of them."""

from __future__ import annotations

import os
import random
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from e2e.test_delegation import apart, figure, mounts, sync
from harness.waiting import wait_until
from superfs.client.delegation.shipping import SHIP_AFTER_S

if TYPE_CHECKING:
    from pathlib import Path

    from harness.mount import Mount

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
__all__ = ["mounts"]
SIZE = 64 * 1024


def body(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE + number % 100)


def make(directory: Path, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        (directory / f"f{number:05d}").write_bytes(body(number))


def check(directory: Path, *, cut: bool = False) -> int:
    """See test_delegation."""
    names = sorted(os.listdir(directory))
    assert names == [f"f{number:05d}" for number in range(len(names))]
    for number, name in enumerate(names):
        found = (directory / name).read_bytes()
        last = cut and number == len(names) - 1
        assert found == body(number) or (last and not found)
    return len(names)


def messages(mount: Mount) -> float:
    return sum(
        figure(mount, f'messages_total{{daemon="{daemon}",direction="sent"}}')
        for daemon in ("metad-1", "datad-2")
    )


def is_promised(mount: Mount) -> bool:
    """Whether contents are kept by now: a file costs its log no message to a data daemon."""
    probe = mount.point / "probe"
    probe.mkdir(exist_ok=True)
    sync(probe)
    before = figure(mount, 'messages_total{daemon="datad-2",direction="sent"}')
    (probe / "file").write_bytes(body(1))
    after = figure(mount, 'messages_total{daemon="datad-2",direction="sent"}')
    (probe / "file").unlink()
    return after == before


def test_they_cost_few_messages(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    own = first.point / "own"
    own.mkdir()
    wait_until(lambda: is_promised(first), "room is promised")
    before, started = messages(first), time.monotonic()
    make(own, 512)
    sync(own)
    beside = 12
    aged = (time.monotonic() - started) / SHIP_AFTER_S  # the log, contents, and what they commit
    assert messages(first) - before <= 512 / 32 + beside + 3 * aged
    assert check(own) == 512
    assert check(second.point / "own") == 512


def test_what_is_not_sent_yet_is_read_changed_and_removed(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    own = first.point / "own"
    own.mkdir()
    wait_until(lambda: is_promised(first), "room is promised")
    make(own, 6)
    assert check(own) == 6
    (own / "f00000").unlink()
    with (own / "f00001").open("r+b") as file:
        file.seek(10)
        file.write(b"other")
    with (own / "f00002").open("ab") as file:
        file.write(b"more")
    os.truncate(own / "f00003", 1000)
    (own / "f00004").rename(own / "f00005")
    (own / "new").write_bytes(body(7))
    (own / "new").rename(own / "f00005")
    expected = {
        "f00001": body(1)[:10] + b"other" + body(1)[15:],
        "f00002": body(2) + b"more",
        "f00003": body(3)[:1000],
        "f00005": body(7),
    }
    for mount in (first, second, first):
        there = mount.point / "own"
        assert {path.name: path.read_bytes() for path in there.iterdir()} == expected


def test_a_killed_mount_leaves_whole_files(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    own = first.point / "own"
    own.mkdir()
    wait_until(lambda: is_promised(first), "room is promised")
    make(own, 40)
    sync(own / "f00039")
    made = 40

    def go_on() -> None:
        nonlocal made
        try:
            while True:
                make(own, 1, made)
                made += 1
        except OSError:
            return

    thread = threading.Thread(target=go_on)
    thread.start()
    wait_until(lambda: made > 150, "some are made", timeout_s=60)
    first.daemon.kill()
    thread.join()
    assert 40 <= check(second.point / "own", cut=True) <= made + 1
    first.close()
    first.start()
    assert check(own, cut=True) >= 40


MAKER = """
from e2e.test_delegation_contents import make

own, stop, made = Path(sys.argv[1]), Path(sys.argv[2]), 0
while not stop.exists():
    make(own, 50, made)
    sync(own)
    made += 50
print(made)
"""


def test_datad_is_killed_again_and_again(mounts: tuple[Mount, Mount], tmp_path: Path) -> None:
    first, second = mounts
    own = first.point / "own"
    own.mkdir()
    wait_until(lambda: is_promised(first), "room is promised")
    cluster, stop = first.cluster, tmp_path / "stop"

    def is_more_shipped(before: float) -> bool:
        assert maker.poll() is None, "no error comes through"
        return figure(first, "log_shipped") > before

    with apart(MAKER, own, stop) as maker:
        for _ in range(8):
            # By what has come through, not by the clock: where daemons start slowly one that is
            # killed soon is away for longer than anybody waits.
            is_through = partial(is_more_shipped, figure(first, "log_shipped"))
            wait_until(is_through, "something is shipped", timeout_s=60)
            time.sleep(random.uniform(0, 0.25))
            cluster.datad.kill()
            cluster.start(["datad-2"])
        stop.touch()
        output, _ = maker.communicate(timeout=60)
    assert maker.returncode == 0
    made = int(output)
    assert check(own) == made
    assert check(second.point / "own") == made
