"""What bench/compare.py asks of a file system that it measures."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from systems.fusecount import FuseCount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = "SUPERFS_BENCH_SYSTEM"
TICKS = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0


class Unavailable(Exception):
    """Why a system cannot be measured here."""


@dataclass(slots=True)
class Usage:
    """What a system used while something was measured, summed over rounds."""

    operations: int = 0
    cpu_s: float = 0.0
    worker_cpu_s: float = 0.0
    fuse: int | None = None
    rpcs: int | None = None

    def add(self, other: Usage) -> None:
        self.cpu_s += other.cpu_s
        for name in ("fuse", "rpcs"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, theirs if mine is None else mine + (theirs or 0))


class System(ABC):
    name: str  # in columns
    about: str  # in a sentence

    def __init__(self, work: Path) -> None:
        self.work = work / self.name
        self.mount = self.work / "mnt"
        self._mark = uuid.uuid4().hex
        self._count: FuseCount | None = None

    @property
    def directory(self) -> Path:
        """Where the jobs are done."""
        return self.mount

    @abstractmethod
    def start(self) -> None:
        """Raises Unavailable; `stop` is called after that, too."""

    @abstractmethod
    def stop(self) -> None: ...

    def rpcs(self) -> int | None:
        """Messages between client and daemons until now."""
        return None

    def count_fuse(self, tracefs: Path) -> None:
        self._count = FuseCount(tracefs, self.mount)

    def close(self) -> None:
        """Nothing of it is left, whatever happened."""
        try:
            if self._count is not None:
                self._count.close()
            self.stop()
        finally:
            if os.path.ismount(self.mount):
                subprocess.run(["umount", "-l", self.mount], check=False)
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)

    # ---- its processes

    @property
    def environment(self) -> dict[str, str]:
        """Whoever inherits it belongs to this system."""
        return os.environ | {MARK: self._mark}

    def spawn(self, command: list[str | Path]) -> subprocess.Popen[bytes]:
        with (self.work / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def unmount(self) -> None:
        if os.path.ismount(self.mount):
            subprocess.run(["umount", self.mount], check=False)

    def pids(self) -> list[int]:
        mark = f"{MARK}={self._mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    # ---- what it uses

    @contextlib.contextmanager
    def watching(self, usage: Usage) -> Iterator[None]:
        pids = self.pids()
        rpcs = self.rpcs()
        fuse = self._count.read() if self._count else None
        cpu = cpu_s(pids)
        yield
        usage.cpu_s += cpu_s(pids) - cpu
        if self._count is not None and fuse is not None:
            usage.fuse = (usage.fuse or 0) + self._count.read() - fuse
        after = self.rpcs()
        if after is not None and rpcs is not None:
            usage.rpcs = (usage.rpcs or 0) + after - rpcs


def cpu_s(pids: list[int]) -> float:
    """Of processes, their ended threads included, to a hundredth of a second each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {START_TIMEOUT_S:.0f} s")
        time.sleep(0.05)
