"""The long ones: one directory that everybody wants, and ten minutes of mishaps."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.hammers import QUICK, SHORT, WEIGHTS, Hammers, Plan
from harness.history import Latencies
from harness.mount import Mount, fsck
from harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.soak, pytest.mark.timeout(1800)]
NAMES_ONLY = {"create": 10, "unlink": 9, "rename": 8, "noreplace": 1, "stat": 2, "list": 1}
LOST = [(verb, code) for verb in WEIGHTS for code in ("ENOTCONN", "ECONNABORTED")]
OPENED = [(verb, "ESTALE") for verb in ("append", "read", "stat")]
SECONDS, MISHAPS_S, MOST_MS = 60.0, 600.0, 1000.0


def by_verb(crowd: Hammers) -> str:
    ops = crowd.ops()
    verbs = sorted({op.verb for op in ops})
    lines = [f"{verb}: {Latencies.of(op for op in ops if op.verb == verb)}" for verb in verbs]
    return "\n".join([f"all: {Latencies.of(ops)}", *lines])


def test_everybody_wants_one_directory(tmp_path: Path) -> None:
    plan = Plan.of(16, 4, **NAMES_ONLY)
    with Cluster() as cluster, Mount(cluster, "m0") as first, Mount(cluster, "m1") as second:
        (first.point / "d").mkdir()
        tops = [first.point / "d", second.point / "d"]
        with Hammers(cluster, tops, tmp_path, plan) as crowd:
            crowd.start(8)
            end = time.monotonic() + SECONDS
            wait_until(lambda: time.monotonic() > end, "a minute", timeout_s=SECONDS + 5)
            crowd.finish(allowed=OPENED)
            print(by_verb(crowd))
            slow = [op for op in crowd.ops() if op.answered - op.invoked > MOST_MS * 1e6]
        fsck(cluster)
        assert not slow, "\n".join(map(str, slow[:10]))


def test_mishaps(tmp_path: Path) -> None:
    rng = random.Random(1)
    with (
        Cluster(settings=SHORT) as cluster,
        Mount(cluster, "m0", settings=QUICK) as first,
        Mount(cluster, "m1", settings=QUICK) as second,
    ):
        mounts = [first, second]
        (first.point / "d").mkdir()
        tops = [mount.point / "d" for mount in mounts]

        def freeze(crowd: Hammers) -> None:
            n = rng.randrange(2)
            mounts[n].daemon.signal(signal.SIGSTOP)
            try:
                crowd.progress(rng.randrange(1, 80), [*crowd.of_mount(1 - n), "sdk0"])
            finally:
                mounts[n].daemon.signal(signal.SIGCONT)

        def kill(crowd: Hammers) -> None:
            cluster.restart(rng.choice([*cluster.daemons, "metad-1", "metad-1"]), kill=True)

        def kill_mount(crowd: Hammers) -> None:
            n = rng.randrange(2)
            mounts[n].daemon.kill()
            crowd.progress(rng.randrange(1, 40), [*crowd.of_mount(1 - n), "sdk0"])
            subprocess.run(["umount", "-l", mounts[n].point], check=True)
            mounts[n].start()
            crowd.again(n)

        mishaps: list[Callable[[Hammers], None]] = [freeze, kill, kill_mount]
        rounds = 0
        end = time.monotonic() + MISHAPS_S
        while time.monotonic() < end:
            rounds += 1
            for top in tops[:1]:
                for path in top.iterdir():
                    path.unlink()
            outside = tmp_path / str(rounds)
            outside.mkdir()
            with Hammers(cluster, tops, outside, Plan.of(2, 4), 1000 * rounds) as crowd:
                crowd.start(3, sdk=1)
                for _ in range(5):
                    crowd.progress(rng.randrange(1, 100))
                    rng.choice(mishaps)(crowd)
                crowd.progress(30)
                crowd.finish(allowed=[*OPENED, *LOST])
                print(rounds, Latencies.of(crowd.ops()), flush=True)
        fsck(cluster)
