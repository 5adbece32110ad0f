"""One mount that cannot speak, or is not heard, while another one changes what it has cached."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.cutoff import Cable, wire
from harness.hammers import LEASE_TIMEOUT_S, QUICK, SHORT, sdk_of
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from superfs.client.resolve import ref_of
from superfs.rpc.pending import run_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
SLACK_S = 2.0
EIO = 5


@pytest.fixture
def mounts() -> Iterator[tuple[Mount, Mount]]:
    with (
        Cluster(settings=SHORT) as cluster,
        Mount(cluster, "m0", settings=QUICK) as first,
        Mount(cluster, "m1", settings=QUICK) as second,
    ):
        yield first, second
        fsck(cluster)
        cluster.trouble([".*"])


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as cable:
        yield cable


@pytest.fixture
def wired(cable: Cable) -> Iterator[tuple[Mount, Mount]]:
    """The second one is on the other side of the cable."""
    cluster = Cluster(settings=SHORT)
    client = {**QUICK["client"], "cluster": [wire(cluster)["clusterd"]]}
    with cluster:
        second = Mount(cluster, "m1", settings={"client": client})
        second.daemon.command = cable.wrap(second.daemon.command)
        with Mount(cluster, "m0", settings=QUICK) as first, second:
            yield first, second
            fsck(cluster)
            cluster.trouble([".*"])


class Watch:
    """Asks the same thing again and again in a thread: (asked, answered, answer)."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.seen: list[tuple[float, float, object]] = []
        self._ask = ask
        self._stopped = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            asked = time.monotonic()
            answer = self._ask()
            self.seen.append((asked, time.monotonic(), answer))

    def stop(self) -> None:
        self._stopped = True
        self._thread.join(60)
        assert not self._thread.is_alive()

    def after(self, moment: float) -> list[object]:
        """What was said to questions of later."""
        return [answer for asked, _, answer in self.seen if asked > moment]


def facts(path: Path) -> object:
    try:
        return path.read_bytes()
    except OSError as error:
        return error.errno


def change_all(top: Path) -> dict[str, tuple[float, float]]:
    """One change of each kind, of what `prepare` has made: name -> (how long it took, when it was
    done)."""
    changes: dict[tuple[str, ...], Callable[[], object]] = {
        ("removed",): lambda: (top / "removed").unlink(),
        ("new",): lambda: (top / "new").write_bytes(b"new"),
        ("from", "to"): lambda: (top / "from").rename(top / "to"),
        ("written",): lambda: (top / "written").write_bytes(b"second"),
        ("cut",): lambda: os.truncate(top / "cut", 2),
    }
    done = {}
    for names, change in changes.items():
        start = time.monotonic()
        change()
        end = time.monotonic()
        done.update(dict.fromkeys(names, (end - start, end)))
    assert max(took for took, _ in done.values()) < LEASE_TIMEOUT_S + SLACK_S, done
    return done


OLD = {"removed": b"old", "new": 2, "from": b"from", "to": b"to", "written": b"1", "cut": b"12345"}
NEW = {"removed": 2, "new": b"new", "from": 2, "to": b"from", "written": b"second", "cut": b"12"}


def prepare(first: Mount, second: Mount) -> None:
    (first.point / "d").mkdir()
    for name, data in OLD.items():
        if isinstance(data, bytes):
            (first.point / "d" / name).write_bytes(data)
    for _ in range(2):
        assert {name: facts(second.point / "d" / name) for name in OLD} == OLD


def watch(path: Path) -> Watch:
    return Watch(lambda: facts(path))


def hindered(
    first: Mount, second: Mount, begin: Callable[[], object], end: Callable[[], object]
) -> None:
    """Who asks `second` after a change is told nothing old, whenever the answer comes."""
    prepare(first, second)
    watches = {name: watch(second.point / "d" / name) for name in OLD}
    try:
        wait_until(lambda: all(len(w.seen) > 2 for w in watches.values()), "everybody watches")
        begin()
        try:
            start = time.monotonic()
            done = change_all(first.point / "d")
            took = time.monotonic() - start
            assert took < LEASE_TIMEOUT_S + 2 * SLACK_S, "all wait for the same end"
        finally:
            end()
        wait_until(
            lambda: all(NEW[name] in w.after(done[name][1]) for name, w in watches.items()),
            lambda: f"it is seen there: { {n: w.seen[-1:] for n, w in watches.items()} }",
            timeout_s=30,
        )
    finally:
        end()
        for w in watches.values():
            w.stop()
    for name, w in watches.items():
        said = w.after(done[name][1])
        assert set(said) <= {NEW[name], EIO}, (name, said[:5])


def test_frozen(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    hindered(
        first,
        second,
        lambda: second.daemon.signal(signal.SIGSTOP),
        lambda: second.daemon.signal(signal.SIGCONT),
    )


def test_cut_off(wired: tuple[Mount, Mount], cable: Cable) -> None:
    hindered(*wired, cable.pull, cable.plug)


def test_killed(mounts: tuple[Mount, Mount]) -> None:
    """Its leases end with time, and nothing else waits for it."""
    first, second = mounts
    prepare(first, second)
    second.daemon.kill()
    change_all(first.point / "d")
    assert {name: facts(first.point / "d" / name) for name in NEW} == NEW
    second.close()
    second.start()
    assert {name: facts(second.point / "d" / name) for name in NEW} == NEW


def test_what_a_frozen_mount_still_had_to_write(mounts: tuple[Mount, Mount]) -> None:
    """Goes to the file that it was written to, and to no other of that name."""
    first, second = mounts
    (first.point / "x").write_bytes(b"first")
    woken = False
    # Of a file that is removed; close tells it once more.
    with contextlib.suppress(OSError), (second.point / "x").open("r+b", buffering=0) as file:
        assert file.read() == b"first"
        file.write(b" and more")
        second.daemon.signal(signal.SIGSTOP)
        try:
            (first.point / "x").unlink()
            (first.point / "x").write_bytes(b"second")
            first.cluster.metad.wait_for_log("leases ran out")
        finally:
            second.daemon.signal(signal.SIGCONT)
        assert (second.point / "x").read_bytes() == b"second"
        woken = True
        file.write(b" and even more")
        os.fsync(file.fileno())
    assert woken
    for mount in mounts:
        assert (mount.point / "x").read_bytes() == b"second"


def test_killed_while_the_kernel_drops_a_name() -> None:
    """Which waits for the lock of a directory, and that for an answer of the mount: whoever waits
    is told that it is dead."""
    leases = {"metad": {"meta": {"lease_s": 6.0, "lease_timeout_s": 8.0}}}
    with Cluster(settings=leases) as cluster, Mount(cluster, "m1", settings=QUICK) as second:
        first = Mount(cluster, "m0", settings=QUICK)
        try:
            killed_while_the_kernel_drops_a_name(first.start(), second)
        finally:
            first.close()
        fsck(cluster)


def killed_while_the_kernel_drops_a_name(first: Mount, second: Mount) -> None:
    (first.point / "d").mkdir()
    (first.point / "d" / "old").touch()
    for mount in (first, second):
        assert (mount.point / "d" / "old").exists()
    errors: list[int | None] = []

    def make() -> None:
        try:
            (first.point / "d" / "new").mkdir()
        except OSError as error:
            errors.append(error.errno)

    making = threading.Thread(target=make)
    with sdk_of(first.cluster) as fs:
        above = ref_of(run_sync(fs.paths.stat("/d")))

        def remove() -> None:  # by its number: a look-up would wait for that acknowledgement, too
            run_sync(fs.connection.meta.unlink(above, b"old"))

        removing = threading.Thread(target=remove)
        second.daemon.signal(signal.SIGSTOP)  # its acknowledgement is waited for
        try:
            making.start()
            waits = Path(f"/proc/self/task/{making.native_id}/stack")
            wait_until(lambda: "request_wait_answer" in waits.read_text(), "the directory is held")
            removing.start()
            wait_until(lambda: is_dropping(first), "the kernel waits for the directory")
            first.daemon.kill()
        finally:
            second.daemon.signal(signal.SIGCONT)
        for thread in (making, removing):
            thread.join(60)
            assert not thread.is_alive()
    assert errors in ([errno.ECONNABORTED], [errno.ENOTCONN])
    assert not (second.point / "d" / "old").exists()


def is_dropping(mount: Mount) -> bool:
    tasks = Path(f"/proc/{mount.daemon.pid}/task").iterdir()
    return any("fuse_reverse_inval_entry" in (task / "stack").read_text() for task in tasks)
