"""What a test run must not leave behind: processes, mounts, network namespaces, directories.

Every process of a run inherits one environment variable, so that it is found even when it has
become a daemon, and processes of other runs on the same machine are never mistaken for ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path

RUN_VARIABLE = "SUPERFS_TEST_RUN"


def _run_id() -> str:
    """One for each worker of a run: what the others have started is not this one's to end."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    inherited = os.environ.get(RUN_VARIABLE, "")
    return inherited if inherited.endswith(worker) else f"{uuid.uuid4().hex}-{worker}"


RUN_ID = os.environ[RUN_VARIABLE] = _run_id()

directories: set[Path] = set()
"""Every directory that the harness has made and not removed yet."""

namespaces: set[str] = set()
"""Every network namespace that the harness has made and not removed yet."""


def processes() -> dict[int, str]:
    """pid -> command line of every living process of this run, but this one and its forefathers."""
    mark = f"{RUN_VARIABLE}={RUN_ID}".encode()
    ours = {os.getpid(), os.getppid()}
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in ours:
            continue
        try:
            if mark not in (entry / "environ").read_bytes():
                continue
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if state != "Z" and "resource_tracker" not in command:
            found[int(entry.name)] = command
    return found


def mounts(under: tuple[Path, ...]) -> list[Path]:
    """Mount points at or below any of the directories, innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        raw = line.split(b" ")[4]
        point = Path(os.fsdecode(raw.decode("unicode_escape").encode("latin-1")))
        if any(point.is_relative_to(directory) for directory in under):
            found.append(point)
    return sorted(found, key=lambda p: len(p.parts), reverse=True)


def remove_everything() -> list[str]:
    """Ends and unmounts what is left, and says what it was."""
    left = []
    for pid, command in processes().items():
        left.append(f"process {pid}: {command}")
        os.kill(pid, signal.SIGKILL)
    for point in mounts(tuple(directories)):
        left.append(f"mount {point}")
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    left += [f"directory {directory}" for directory in directories if directory.exists()]
    left += [f"network namespace {name}" for name in namespaces]
    return left
