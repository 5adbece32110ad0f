"""One supervised process: started or adopted, watched by its pidfd, started again with backoff."""

from __future__ import annotations

import os
import signal
import subprocess
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from superfs.cli.output import EXIT_CONFIG, EXIT_USAGE
from superfs.cli.processes import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from superfs.cli.programs import Program

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
STEADY_S = 60.0
"""Who has run this long starts with the shortest delay again."""
LOG_BYTES_MAX = 16 * 1024 * 1024
TAIL_BYTES = 16 * 1024
NEVER_RESTARTED = (EXIT_USAGE, EXIT_CONFIG)


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # for its next start
    ENDED = "ended"  # on purpose, by somebody else
    FAILED = "failed"  # starting it again will not help
    STOPPED = "stopped"


def backoff_delays() -> Iterator[float]:
    delay = BACKOFF_FIRST_S
    while True:
        yield delay
        delay = min(delay * 2, BACKOFF_MAX_S)


class Child:
    def __init__(self, program: Program, clock: Callable[[], float]) -> None:
        self.program = program
        self.state = State.STOPPED
        self.identity: Identity | None = None
        self.pidfd = -1
        self.restarts = 0
        self.exit_status: int | None = None
        self.next_start = 0.0
        self.log_start = 0  # what is behind it in the log is of the present run
        self._clock = clock
        self._started = 0.0
        self._delays = backoff_delays()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.pidfd >= 0

    def start(self) -> None:
        assert not self.running, self.program.name
        if self._started:
            self.program.clear()
        rotate(self.program.log)
        self.log_start = end_of(self.program.log)
        with self.program.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.program.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C in a terminal is for the supervisor alone
                env={k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"},
                cwd="/",
            )
        self.pidfd = os.pidfd_open(self._process.pid)
        self.identity = Identity.of(self._process.pid)
        self._started = self._clock()
        self.exit_status = None
        self.state = State.STARTING

    def adopt(self, identity: Identity) -> bool:
        """Takes over a process that a killed supervisor has left. False: it has ended."""
        pidfd = identity.open_pidfd()
        if pidfd is None:
            return False
        self.pidfd, self.identity = pidfd, identity
        self._started = self._clock()
        self.state = State.STARTING
        return True

    def reap(self) -> None:
        """Call it when the pidfd has become readable. Decides what comes next."""
        os.close(self.pidfd)
        self.pidfd, self.identity = -1, None
        # Of a process that was adopted only its end is known, not how it ended.
        self.exit_status = self._process.wait() if self._process is not None else None
        self._process = None
        if self.exit_status in NEVER_RESTARTED:
            self.state = State.FAILED
        elif self.program.on_purpose(self.exit_status):
            self.state = State.ENDED
        else:
            if self._clock() - self._started >= STEADY_S:
                self._delays = backoff_delays()
            self.next_start = self._clock() + next(self._delays)
            self.state = State.WAITING

    def restart(self) -> None:
        self.restarts += 1
        self.start()

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return  # it has ended and waits to be reaped

    def describe_end(self) -> str:
        if self.exit_status is None:
            return "ended"
        if self.exit_status < 0:
            return f"was killed by {signal.Signals(-self.exit_status).name}"
        return f"ended with status {self.exit_status}"

    def to_json(self) -> dict[str, Any]:
        return {
            "state": self.state.value,
            "pid": self.identity.pid if self.identity else None,
            "restarts": self.restarts,
            "exit_status": self.exit_status,
            "log": str(self.program.log),
        }


def rotate(log: Path) -> None:
    """Keeps one old log beside the new one, so that logs do not fill the disk."""
    try:
        if log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_name(log.name + ".1"))
    except FileNotFoundError:
        return


def last_lines(log: Path, *, since: int = 0, count: int = 12) -> list[str]:
    """The end of a log, but nothing before `since`, its size at an earlier moment."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since if since <= end else 0, end - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def end_of(log: Path) -> int:
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0
