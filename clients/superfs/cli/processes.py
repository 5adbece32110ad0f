"""Processes by their identity: a pid alone names somebody else after a reboot or a wrap-around.

The children of a supervisor are found again by the configuration file on their command line, so
there is no moment in which one runs and is written down nowhere.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_START_TIME_FIELD = 22 - 3  # proc(5) counts from 1; pid and name are cut off


@dataclass(frozen=True, slots=True)
class Identity:
    pid: int
    start_ticks: int  # since boot
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """None when there is no such process, or only what is left of it (a zombie)."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = text.rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):
            return None
        return cls(pid, int(fields[_START_TIME_FIELD]), boot_id())

    @classmethod
    def from_json(cls, value: object) -> Identity | None:
        """None for anything that `to_json` did not make."""
        match value:
            case {"pid": int(pid), "start_ticks": int(start), "boot_id": str(boot)}:
                return cls(pid, start, boot)
        return None

    def to_json(self) -> dict[str, object]:
        return {"pid": self.pid, "start_ticks": self.start_ticks, "boot_id": self.boot_id}

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def open_pidfd(self) -> int | None:
        """A descriptor of exactly this process, or None when it has ended."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive:  # the number cannot change hands any more
            return pidfd
        os.close(pidfd)
        return None

    def kill(self, number: signal.Signals) -> bool:
        """False when it has ended already."""
        pidfd = self.open_pidfd()
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within the time. Works for processes that are not our children."""
        pidfd = self.open_pidfd()
        if pidfd is None:
            return True
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return bool(poll.poll(timeout_s * 1000))
        finally:
            os.close(pidfd)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def command_line(pid: int) -> list[str]:
    """Empty when it has ended or is not ours to look at."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]


def find_running(config_dir: Path) -> dict[str, tuple[Identity, Sequence[str]]]:
    """The daemons that run with `--config <config_dir>/<name>.toml`, by name."""
    found: dict[str, tuple[Identity, Sequence[str]]] = {}
    prefix = f"{config_dir}/"
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        words = command_line(int(entry))
        if "--config" not in words[:-1]:
            continue
        config = words[words.index("--config") + 1]
        identity = Identity.of(int(entry))
        if config.startswith(prefix) and config.endswith(".toml") and identity is not None:
            found[config.removeprefix(prefix).removesuffix(".toml")] = (identity, words)
    return found


def stop(identity: Identity, grace_s: float) -> bool:
    """SIGTERM, and SIGKILL if that has not ended it in time. True when it ended by itself."""
    identity.kill(signal.SIGTERM)
    if identity.wait(grace_s):
        return True
    identity.kill(signal.SIGKILL)
    identity.wait(grace_s)
    return False
