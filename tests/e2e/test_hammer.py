"""Many clients on few names of one directory, at random, under the checker; and what becomes of it
when clients are killed, frozen or cut off and daemons restart in the middle."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.hammers import LEASE_TIMEOUT_S, QUICK, SHORT, WEIGHTS, Hammers, Plan
from harness.history import Latencies
from harness.mount import Mount, fsck

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.soak]


@pytest.fixture
def mounts() -> Iterator[list[Mount]]:
    """Two of one cluster, with leases that end soon."""
    with (
        Cluster(settings=SHORT) as cluster,
        Mount(cluster, "m0", settings=QUICK) as first,
        Mount(cluster, "m1", settings=QUICK) as second,
    ):
        yield [first, second]
        fsck(cluster)
        cluster.trouble([".*"])


def hammers(mounts: list[Mount], outside: Path, plan: Plan, seed: int = 0) -> Hammers:
    (mounts[0].point / "d").mkdir()
    return Hammers(mounts[0].cluster, [m.point / "d" for m in mounts], outside, plan, seed)


REMOVED = [("append", "ESTALE"), ("read", "ESTALE"), ("stat", "ESTALE")]
"""A file may be removed between the look-up of its name and its use; the kernel tries once more."""


SLACK_S = 2.0
"""Of a busy machine, and of the ticks of daemons and clients."""
LOST = [(verb, code) for verb in WEIGHTS for code in ("ENOTCONN", "ECONNABORTED")]


def finish(crowd: Hammers, *, most_s: float, allowed: Iterable[tuple[str, str]] = ()) -> None:
    """`most_s`: longer than that nobody waited, but those who were hindered themselves."""
    ops = crowd.finish(allowed=[*REMOVED, *allowed])
    print(Latencies.of(ops))
    slow = [op for op in ops if op.client[:2] != "m1" and op.answered - op.invoked > most_s * 1e9]
    assert not slow, "\n".join(map(str, slow[:5]))


def test_nobody_interferes(mounts: list[Mount], tmp_path: Path) -> None:
    with hammers(mounts, tmp_path, Plan.of(2, 4)) as crowd:
        crowd.start(3, sdk=1).progress(150)
        finish(crowd, most_s=SLACK_S)


def test_metad_is_killed(mounts: list[Mount], tmp_path: Path) -> None:
    cluster = mounts[0].cluster
    with hammers(mounts, tmp_path, Plan.of(2, 4), 100) as crowd:
        crowd.start(3, sdk=1).progress(50)
        for _ in range(2):
            cluster.restart("metad-1", kill=True)
            crowd.progress(40)
        finish(crowd, most_s=LEASE_TIMEOUT_S + 2 * SLACK_S)


def test_a_mount_is_frozen(mounts: list[Mount], tmp_path: Path) -> None:
    """Past the end of its leases. The others wait for that end, and no longer."""
    with hammers(mounts, tmp_path, Plan.of(2, 4), 200) as crowd:
        crowd.start(3, sdk=1).progress(50)
        mounts[1].daemon.signal(signal.SIGSTOP)
        try:
            mounts[0].cluster.metad.wait_for_log("leases ran out")
            crowd.progress(40, [*crowd.of_mount(0), "sdk0"])
        finally:
            mounts[1].daemon.signal(signal.SIGCONT)
        crowd.progress(40)
        finish(crowd, most_s=LEASE_TIMEOUT_S + SLACK_S)


def test_a_mount_is_killed(mounts: list[Mount], tmp_path: Path) -> None:
    with hammers(mounts, tmp_path, Plan.of(2, 4), 300) as crowd:
        crowd.start(3, sdk=1).progress(50)
        mounts[1].daemon.kill()
        crowd.wait(crowd.of_mount(1))
        crowd.progress(60, [*crowd.of_mount(0), "sdk0"])
        subprocess.run(["umount", "-l", mounts[1].point], check=True)
        mounts[1].start()
        finish(crowd, most_s=LEASE_TIMEOUT_S + SLACK_S, allowed=LOST)
