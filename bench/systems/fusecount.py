"""How many requests the kernel has sent to a FUSE file system, whoever serves it.

The kernel's own trace point is counted, in a ring buffer of its own with a filter on the one mount.
FORGETs are not in it, nor is anything else on this machine.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACEFS = Path("/sys/kernel/tracing")
COUNTED = ("entries:", "overrun:")  # those still in the buffer, and those overwritten since
SMALL_KIB = 8


class FuseCount:
    def __init__(self, tracefs: Path, mountpoint: Path) -> None:
        self._instance = tracefs / "instances" / f"superfs-bench-{os.getpid()}-{id(self)}"
        self._instance.mkdir()
        try:
            (self._instance / "buffer_size_kb").write_text(f"{SMALL_KIB}\n")
            event = self._instance / "events/fuse/fuse_request_send"
            device = mountpoint.stat().st_dev
            connection = (os.major(device) << 20) | os.minor(device)
            (event / "filter").write_text(f"connection == {connection}\n")
            (event / "enable").write_text("1\n")
        except BaseException:
            self.close()
            raise

    def read(self) -> int:
        total = 0
        for stats in self._instance.glob("per_cpu/cpu*/stats"):
            for line in stats.read_text().splitlines():
                if line.startswith(COUNTED):
                    total += int(line.split()[1])
        return total

    def close(self) -> None:
        self._instance.rmdir()


@contextlib.contextmanager
def tracefs() -> Iterator[Path | None]:
    """Where the kernel's trace points are; mounted for as long as this lasts where they are not.
    None: they cannot be had, and why is printed."""
    if (TRACEFS / "instances").is_dir():
        yield TRACEFS
        return
    place = Path(tempfile.mkdtemp(prefix="sfsb-trace"))
    done = subprocess.run(
        ["mount", "-t", "tracefs", "none", place], capture_output=True, text=True, check=False
    )
    found = done.returncode == 0 and (place / "events/fuse/fuse_request_send").is_dir()
    if not found:
        print(f"FUSE requests are not counted: {done.stderr.strip() or 'no such trace point'}")
    try:
        yield place if found else None
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", place], check=True)
        place.rmdir()
