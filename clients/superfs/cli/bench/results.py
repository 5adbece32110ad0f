"""What came out: rates of every round, their median and quartiles, as a table and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superfs.cli.bench.shapes import Job, Phase
    from superfs.cli.bench.workers import Outcome


@dataclass(slots=True)
class Series:
    """One phase of one shape with so many processes, round after round."""

    shape: str
    procs: int
    phase: Phase
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        return [outcome.rate for outcome in self.outcomes]

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    @property
    def cpu_us(self) -> float:
        """Of the workers, per operation."""
        return per_op(self.outcomes, sum(outcome.cpu_s for outcome in self.outcomes)) * 1e6

    def as_json(self) -> dict[str, Any]:
        low, high = quartiles(self.rates)
        return {
            "shape": self.shape,
            "procs": self.procs,
            "phase": self.phase.name,
            "unit": "bytes/s" if self.phase.op_bytes else "operations/s",
            "operations": self.outcomes[-1].ops,
            "rates": [self._shown(rate) for rate in self.rates],
            "median": self._shown(self.median),
            "quartiles": [self._shown(low), self._shown(high)],
            "workers_cpu_us_per_operation": self.cpu_us,
        }

    def _shown(self, rate: float) -> float:
        return rate * (self.phase.op_bytes or 1)


def per_op(outcomes: list[Outcome], total: float) -> float:
    return total / max(1, sum(outcome.ops for outcome in outcomes))


def quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def rate_text(phase: Phase, rate: float) -> str:
    if phase.op_bytes:
        return f"{rate * phase.op_bytes / 1e6:,.0f} MB/s"
    return f"{rate:,.0f}/s"


def file_system(directory: Path) -> str:
    """Type of the file system that a directory lies on, from the kernel's table."""
    device = directory.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[2] == name:
            return after.split(" ")[0]
    return "unknown"


def machine() -> dict[str, Any]:
    return {
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def title(job: Job) -> str:
    words = [f"{job.shape.name}: {job.shape.text}"]
    if job.file_bytes != job.shape.file_bytes:
        words.append(f"{job.file_bytes} bytes instead")
    words.append(f"{job.procs} process{'es' if job.procs > 1 else ''}")
    if not job.shape.big:
        words.append(f"{job.files} files each")
    return ", ".join(words)
