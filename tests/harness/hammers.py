"""Several mounts and workers of the SDK on one directory, and what all of them were told."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness import history
from harness.checker import check
from harness.daemon import Daemon
from harness.waiting import wait_until
from superfs.client import ClientConfig, FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from harness.cluster import Cluster

LEASE_S, LEASE_TIMEOUT_S, KEEP_ALIVE_S = 1.5, 2.5, 0.5
SHORT = {"metad": {"meta": {"lease_s": LEASE_S, "lease_timeout_s": LEASE_TIMEOUT_S}}}
"""Settings of a cluster whose leases end soon."""
QUICK = {"client": {"keep_alive_s": KEEP_ALIVE_S}}
"""And of a mount that keeps such leases."""
WEIGHTS = {
    "create": 14, "unlink": 9, "rename": 8, "noreplace": 3, "exchange": 3, "stat": 25,
    "list": 6, "append": 8, "read": 10, "put": 3, "get": 5, "chmod": 3, "mode": 5,
}  # fmt: skip


def sdk_of(cluster: Cluster) -> FileSystem:
    config = ClientConfig(
        cluster=(cluster.target("clusterd"),), token_file=cluster.token_file, client_name="test"
    )
    return FileSystem.connect(config)


@dataclass(frozen=True)
class Plan:
    groups: list[list[str]]
    fixed: list[str] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=lambda: dict(WEIGHTS))

    @classmethod
    def of(cls, groups: int, names: int, **weights: int) -> Plan:
        """`weights`: of other verbs than usual, or with other weights."""
        named = [[f"{chr(ord('a') + g)}{n}" for n in range(names)] for g in range(groups)]
        return cls(named, ["r0", "r1"], weights or dict(WEIGHTS))

    @property
    def names(self) -> list[str]:
        return [name for group in self.groups for name in group]


class Hammers:
    """`tops`: the directory through each mount. Ends its workers, whatever happens."""

    def __init__(
        self, cluster: Cluster, tops: Sequence[Path], outside: Path, plan: Plan, seed: int = 0
    ) -> None:
        self.cluster, self.tops, self.outside, self.plan = cluster, tops, outside, plan
        self.seed = seed
        self.workers: list[Daemon] = []
        self.ended: list[Daemon] = []
        self.processes = 0
        self.plan_file = outside / "plan.json"
        self.plan_file.write_text(json.dumps(asdict(plan)))
        for name in plan.fixed:
            (tops[0] / name).touch()
            (tops[0] / name).chmod(0)

    def start(self, processes: int, sdk: int = 0) -> Hammers:
        """So many on each mount, and so many that have no mount."""
        self.processes = processes
        for m in range(len(self.tops)):
            self._populate(m)
        mount_point = self.tops[0].parent
        for n in range(sdk):
            inside = f"/{self.tops[0].relative_to(mount_point)}"
            address = self.cluster.target("clusterd")
            self._add(f"sdk{n}", f"sdk:{self.cluster.token_file}:{inside}:{address}")
        self.progress(1)
        return self

    def _populate(self, mount: int) -> None:
        before = sum(w.name.startswith(f"m{mount}") for w in self.ended)
        for n in range(before, before + self.processes):
            self._add(f"m{mount}p{n}", str(self.tops[mount]))

    def again(self, mount: int) -> None:
        """A mount has died and is there again: new workers on it, in place of those that went."""
        gone = self.of_mount(mount)
        self.wait(gone)
        self.ended += [w for w in self.workers if w.name in gone]
        self.workers = [w for w in self.workers if w.name not in gone]
        self._populate(mount)
        self.progress(1, self.of_mount(mount))

    def _add(self, client: str, where: str) -> None:
        self.seed += 1
        command = [sys.executable, "-m", "harness.hammer", self.plan_file, client, where]
        tests = str(Path(__file__).parents[1])
        worker = Daemon(
            client,
            [*map(str, command), str(self._history(client)), str(self.seed)],
            self.outside / f"{client}.log",
            env={**os.environ, "PYTHONPATH": tests},
        )
        self._history(client).touch()
        worker.start()
        self.workers.append(worker)

    def _history(self, client: str) -> Path:
        return self.outside / f"{client}.history"

    def progress(
        self, count: int, clients: Iterable[str] | None = None, timeout_s: float = 60.0
    ) -> None:
        """Until each of these has had so many more answers."""
        wanted = [w for w in self.workers if clients is None or w.name in set(clients)]
        goals = {w.name: self.answers(w.name) + count for w in wanted}

        def done() -> bool:
            for worker in wanted:
                assert worker.running, f"{worker.name} failed\n{worker.tail()}"
            return all(self.answers(name) >= goal for name, goal in goals.items())

        wait_until(done, lambda: f"{count} more of each: {goals}", timeout_s=timeout_s)

    def answers(self, client: str) -> int:
        return self._history(client).read_bytes().count(b'\n["r"')

    def of_mount(self, mount: int) -> list[str]:
        return [w.name for w in self.workers if w.name.startswith(f"m{mount}")]

    def wait(self, clients: Iterable[str]) -> None:
        """Until these have ended by themselves."""
        for worker in self.workers:
            if worker.name in set(clients):
                assert worker.wait(60) == 0, worker.tail()

    def stop(self) -> list[history.Op]:
        for worker in self.workers:
            if worker.running:
                worker.signal(15)
        for worker in self.workers:
            assert worker.wait(60) == 0, worker.tail()
        return self.ops()

    def ops(self) -> list[history.Op]:
        return [op for w in self.ended + self.workers for op in history.load(self._history(w.name))]

    def finish(self, *, allowed: Iterable[tuple[str, str]] = ()) -> list[history.Op]:
        """Stops everybody, checks everything, and gives the history back."""
        ops = self.stop()
        wrong = check(ops, self.plan.names, fixed=self.plan.fixed, allowed=allowed)
        assert not wrong, f"{len(wrong)} of {len(ops)} are wrong\n" + "\n".join(wrong[:5])
        return ops

    def __enter__(self) -> Hammers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self.workers:
            worker.kill()
