"""A client that was away until its session had ended comes back with bytes that it had still to
write: they go to a file that nobody has changed meanwhile, and never over what others wrote."""

from __future__ import annotations

import signal
import time
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.cutoff import Cable, wire
from harness.hammers import LEASE_S, LEASE_TIMEOUT_S, QUICK
from harness.late import Late, digest
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from superfs.client.unpublished import DIRTY_AGE_S
from superfs.core.limits import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
TIMES = {"lease_s": LEASE_S, "lease_timeout_s": LEASE_TIMEOUT_S}
SETTINGS = {"metad": {"meta": {**TIMES, "session_timeout_s": LEASE_TIMEOUT_S}}}
SIZES = {"small": 100, "large": 300 * KIB}  # in metad, and on a data daemon


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(settings=SETTINGS) as cluster:
        yield cluster
        cluster.trouble([".*"])


@pytest.fixture
def other(cluster: Cluster) -> Iterator[Path]:
    """The top of the mount that stays."""
    with Mount(cluster, "other", settings=QUICK) as mount:
        yield mount.point
        fsck(cluster)


@contextmanager
def on_mount(cluster: Cluster, *, bypass: bool = True) -> Iterator[Late]:
    settings = {"client": {**QUICK["client"], "bypass": bypass}}
    with Mount(cluster, "late", settings=settings) as mount:
        late = Late(str(mount.point), cluster.dir / "log" / "program.log")
        children = Path(f"/proc/{mount.daemon.pid}/task/{mount.daemon.pid}/children").read_text()
        late.stops = [mount.daemon.pid, *map(int, children.split())]  # with its guard
        with late:
            late.log = mount.daemon.log
            yield late


@contextmanager
def on_sdk(
    cluster: Cluster, *, bypass: bool = True, address: str = "", cable: Cable | None = None
) -> Iterator[Late]:
    where = f"sdk:{cluster.token_file}:{address or cluster.target('clusterd')}:{int(bypass)}"
    late = Late(where, cluster.dir / "log" / "sdk.log")
    late.wrap = [] if cable is None else cable.wrap([])
    with late:
        yield late


@contextmanager
def away(
    cluster: Cluster,
    lates: Sequence[Late],
    write: Callable[[], None],
    stop: Callable[[], object],
    go_on: Callable[[], object],
) -> Iterator[None]:
    """They write, and are stopped before that has left them, until their sessions have ended."""

    def ended() -> int:
        return cluster.metad.log.read_text().count('"expired": true')

    before = ended()
    while True:
        begun = time.monotonic()
        write()
        stop()
        if time.monotonic() - begun < DIRTY_AGE_S:
            break
        go_on()  # some may have been sent: once more
    try:
        wait_until(lambda: ended() == before + len(lates), "their sessions end")
        yield
    finally:
        go_on()


def test_what_was_still_to_be_written(cluster: Cluster, other: Path) -> None:
    with on_mount(cluster) as first, on_sdk(cluster) as second:
        lates = {"mount": first, "sdk": second}
        files = [
            (late, f"{kind}.{size}", SIZES[size]) for kind, late in lates.items() for size in SIZES
        ]
        for late, name, size in files:
            for file in (f"{name}.changed", f"{name}.left"):
                (other / file).write_bytes(b"a" * size)
                assert late.do("open", file) == "ok"
                assert late.do("read", file) == digest(b"a" * size)

        def write() -> None:
            for late, name, size in files:
                assert late.do("write", f"{name}.changed", 10, "z", size // 2) == "ok"
                assert late.do("write", f"{name}.left", 10, "z", 5) == "ok"

        def stop() -> None:
            for late in lates.values():
                late.stop()

        def go_on() -> None:
            for late in lates.values():
                late.go_on()

        with away(cluster, list(lates.values()), write, stop, go_on):
            for _, name, size in files:
                with (other / f"{name}.changed").open("r+b") as rewriting:
                    rewriting.write(b"b" * size)  # in place: the same generation of the data
        for late, name, size in files:
            changed, left = f"{name}.changed", f"{name}.left"
            assert late.do("sync", left) == "ok", left
            assert (other / left).read_bytes() == b"a" * 10 + b"z" * 5 + b"a" * (size - 15), left
            assert late.do("sync", changed) == "EIO", changed
            assert late.do("read", changed) == digest(b"b" * size), changed
            assert (other / changed).read_bytes() == b"b" * size, changed
            assert late.do("close", changed) == "ok", "it was told once"
            assert late.do("open", changed) == "ok"
            assert late.do("write", changed, 0, "z", size) == "ok"
            assert late.do("sync", changed) == "ok"
            assert (other / changed).read_bytes() == b"z" * size, "and it goes on"
        for late in lates.values():
            assert late.log.read_text().count("written bytes are lost") == len(SIZES)


@pytest.mark.parametrize("kind", [on_mount, on_sdk])
def test_what_was_on_its_way_already(
    cluster: Cluster, other: Path, kind: Callable[..., AbstractContextManager[Late]]
) -> None:
    """Part of it in the socket, with the right of a session that has ended."""
    with kind(cluster, bypass=False) as late:
        (other / "x").write_bytes(b"a" * 8 * MIB)
        assert late.do("open", "x") == "ok"

        def stop() -> None:
            late.stop()
            cluster.datad.signal(signal.SIGCONT)

        cluster.datad.signal(signal.SIGSTOP)
        assert late.do("write", "x", 0, "z", 8 * MIB) == "ok"
        with (
            away(cluster, [late], lambda: None, stop, late.go_on),
            (other / "x").open("r+b") as rewriting,
        ):
            rewriting.write(b"b" * 8 * MIB)
        assert late.do("sync", "x") == "EIO"
        assert late.do("read", "x") == digest(b"b" * 8 * MIB)
        assert (other / "x").read_bytes() == b"b" * 8 * MIB
        assert late.do("close", "x") == "ok"


def test_what_lay_in_a_segment_that_was_lent(cluster: Cluster, other: Path) -> None:
    """It was written there, and not placed when its session ended."""
    with on_sdk(cluster) as late:
        for name in ("warm", "x", "left"):
            (other / name).write_bytes(b"a" * 8 * MIB)
            assert late.do("open", name) == "ok"
        for _ in range(2):  # then it has borrowed one
            assert late.do("write", "warm", 0, "z", 8 * MIB) == "ok"
            assert late.do("sync", "warm") == "ok"

        def stop() -> None:
            late.stop()
            cluster.datad.signal(signal.SIGCONT)

        cluster.datad.signal(signal.SIGSTOP)
        for name in ("x", "left"):
            assert late.do("write", name, 0, "z", 8 * MIB) == "ok"
        with (
            away(cluster, [late], lambda: None, stop, late.go_on),
            (other / "x").open("r+b") as rewriting,
        ):
            rewriting.write(b"b" * 8 * MIB)
        assert late.do("sync", "x") == "EIO"
        assert (other / "x").read_bytes() == b"b" * 8 * MIB
        assert late.do("sync", "left") == "ok"
        assert (other / "left").read_bytes() == b"z" * 8 * MIB, "nobody has touched it"
        assert late.do("read", "left") == digest(b"z" * 8 * MIB)


def test_cut_off() -> None:
    """It runs all the time, and tries."""
    with Cable() as cable:
        cluster = Cluster(settings=SETTINGS)
        address = wire(cluster)["clusterd"]
        with (
            cluster,
            Mount(cluster, "other", settings=QUICK) as mount,
            on_sdk(cluster, address=address, cable=cable) as late,
        ):
            cut_off(cluster, mount.point, late, cable)


def cut_off(cluster: Cluster, other: Path, late: Late, cable: Cable) -> None:
    for name, size in SIZES.items():
        (other / name).write_bytes(b"a" * size)
        assert late.do("open", name) == "ok"

    def write() -> None:
        for name, size in SIZES.items():
            assert late.do("write", name, 10, "z", size // 2) == "ok"

    with away(cluster, [late], write, cable.pull, cable.plug):
        for name, size in SIZES.items():
            with (other / name).open("r+b") as rewriting:
                rewriting.write(b"b" * size)
    for name, size in SIZES.items():
        assert late.do("sync", name) == "EIO", name
        assert late.do("read", name) == digest(b"b" * size), name
        assert (other / name).read_bytes() == b"b" * size, name
    fsck(cluster)
    cluster.trouble([".*"])
