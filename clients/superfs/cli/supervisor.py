"""Runs the programs of one embedded cluster: starts them in stages, starts the fallen again, stops
them in the opposite order.

One thread, one loop: it waits for signals, for the end of a child, and for the time of a restart.
SIGTERM, SIGINT or SIGHUP stop, a second one kills; SIGUSR1 starts again what has ended for good.

Whoever holds the lock file is the supervisor; the lock goes with the process, however it ends. The
children do not go with it: the next supervisor adopts them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from superfs.cli.children import Child, State, last_lines
from superfs.cli.output import EXIT_CONFIG, EXIT_FAILED, CliError, warn
from superfs.cli.processes import Identity, find_running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from superfs.cli.home import Home
    from superfs.cli.programs import Program

READY_TIMEOUT_S = 900.0
"""A daemon reads its whole store before it serves."""
PATIENCE_S = 10.0
POLL_S = 0.05
KILL_WAIT_S = 10.0
WAKE = signal.SIGUSR1
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, WAKE)


@contextlib.contextmanager
def lock(home: Home) -> Iterator[bool]:
    """Yields whether this process is the supervisor now."""
    fd = os.open(home.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def is_locked(home: Home) -> bool:
    """Whether there is a supervisor."""
    with lock(home) as free:
        return not free


class _ForcedStop(Exception):
    """A second Ctrl-C."""


class _Stop(Exception):
    """A first one, while things are still being started."""


class Supervisor:
    def __init__(
        self,
        home: Home,
        programs: Sequence[Program],
        *,
        mount_point: Path | None,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._mount_point = mount_point
        self._listener = tell
        self._clock = clock
        self._children = [Child(program, clock) for program in programs]
        self._phase = "starting"
        self._stops = 0
        self._wakes = 0
        self._is_noted = False
        self._selector = selectors.DefaultSelector()

    # ---- the whole life

    def run(self, on_ready: Callable[[], None]) -> int:
        """Until a signal stops it. The caller holds the lock. Raises CliError when something does
        not start or a signal was faster, with everything stopped again."""
        with self._signals():
            try:
                try:
                    self._start()
                    self._set_phase("ready")
                    on_ready()
                    self._watch()
                except _Stop:
                    raise CliError("stopped before everything was ready") from None
                finally:
                    self._stop()
            except _ForcedStop:
                self._kill()
                return EXIT_FAILED
            finally:
                self._home.status_file.unlink(missing_ok=True)
        return 0

    # ---- starting

    def _start(self) -> None:
        self._adopt()
        self._write_status()
        for stage in sorted({child.program.stage for child in self._children}):
            children = [c for c in self._children if c.program.stage == stage]
            for child in children:
                if not child.running:
                    child.program.before()
                    child.start()
                    self._watch_end(child)
            self._write_status()
            for child in children:
                self._await_ready(child)

    def _adopt(self) -> None:
        """Takes over what a killed supervisor has left, if it is what we would start."""
        running = find_running(self._home.config_dir)
        for child in self._children:
            identity, words = running.get(child.program.name, (None, ()))
            if identity is None:
                continue
            if tuple(words[-len(child.program.argv) :]) == child.program.argv:
                if child.adopt(identity):
                    self._watch_end(child)
                    self._tell(f"{child.program.name}: still running (pid {identity.pid}), adopted")
            else:
                raise CliError(
                    f"{child.program.name} runs already with other arguments (pid {identity.pid})",
                    hint=f"stop it first: superfs down --dir {self._home.root}",
                )

    def _await_ready(self, child: Child) -> None:
        name = child.program.name
        deadline = self._clock() + READY_TIMEOUT_S
        patience = self._clock() + PATIENCE_S
        while not child.program.ready():
            self._turn(POLL_S)
            if self._stops:
                raise _Stop
            if not child.running:
                raise self._did_not_start(child, child.describe_end())
            if self._clock() > patience:
                patience = deadline
                self._tell(f"{name}: takes its time; see {child.program.log}")
            if self._clock() > deadline:
                raise self._did_not_start(child, f"is not ready after {READY_TIMEOUT_S:g} s")
        child.state = State.READY
        self._tell(f"{name}: ready")

    def _did_not_start(self, child: Child, why: str) -> CliError:
        end = last_lines(child.program.log, since=child.log_start)
        lines = "\n    ".join(end) or "(nothing)"
        status = EXIT_CONFIG if child.exit_status == EXIT_CONFIG else EXIT_FAILED
        return CliError(
            f"{child.program.name} did not start: it {why}",
            hint=f"the end of {child.program.log}:\n    {lines}",
            status=status,
        )

    # ---- watching

    def _watch(self) -> None:
        while not self._stops:
            waiting = [c.next_start for c in self._children if c.state is State.WAITING]
            starting = any(c.state is State.STARTING for c in self._children)
            timeout = max(0.0, min(waiting) - self._clock()) if waiting else None
            self._turn(POLL_S if starting else timeout)
            if self._wakes:
                self._wakes = 0
                self._wake_the_ended()
            for child in self._children:
                if child.state is State.WAITING and self._clock() >= child.next_start:
                    self._restart(child)
                elif child.state is State.STARTING and child.running and child.program.ready():
                    child.state = State.READY
                    self._tell(f"{child.program.name}: ready")
                    self._write_status()

    def _restart(self, child: Child) -> None:
        try:
            child.restart()
        except (CliError, OSError) as error:
            child.state = State.FAILED
            self._tell(f"{child.program.name}: cannot be started again: {error}")
        else:
            self._watch_end(child)
        self._write_status()

    def _wake_the_ended(self) -> None:
        for child in self._children:
            if child.state in (State.ENDED, State.FAILED):
                self._restart(child)

    def _turn(self, timeout: float | None) -> None:
        """Waits for what comes next: a signal, the end of a child, or the timeout."""
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Child):
                self._selector.unregister(key.fd)
                key.data.reap()
                self._ended(key.data)
            else:
                key.fileobj.recv(64)  # type: ignore[union-attr]

    def _ended(self, child: Child) -> None:
        if self._phase == "ready":
            what = {
                State.FAILED: "starting it again will not help; see its log, then `superfs up`",
                State.ENDED: "it was unmounted; `superfs up` mounts it again",
            }.get(child.state, f"next start in {max(0.0, child.next_start - self._clock()):.1f} s")
            self._tell(f"{child.program.name}: {child.describe_end()}: {what}")
            self._write_status()

    def _watch_end(self, child: Child) -> None:
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    # ---- stopping

    def _stop(self) -> None:
        self._set_phase("stopping")
        for child in reversed(self._children):
            if child.running:
                self._end(child)
            child.state = State.STOPPED

    def _end(self, child: Child) -> None:
        child.signal(signal.SIGTERM)
        deadline = self._clock() + child.program.stop_grace_s
        while child.running:
            self._turn(max(0.0, deadline - self._clock()))
            if self._stops > 1:
                raise _ForcedStop
            if child.running and self._clock() >= deadline:
                warn(f"{child.program.name} does not end: killed")
                child.signal(signal.SIGKILL)
                deadline = self._clock() + KILL_WAIT_S
        self._clear(child)
        self._tell(f"{child.program.name}: stopped")

    def _kill(self) -> None:
        for child in reversed(self._children):
            child.signal(signal.SIGKILL)
        deadline = self._clock() + KILL_WAIT_S
        while any(c.running for c in self._children) and self._clock() < deadline:
            self._turn(max(0.0, deadline - self._clock()))
        for child in self._children:
            self._clear(child)

    def _clear(self, child: Child) -> None:
        try:
            child.program.clear()
        except CliError as error:
            warn(error.message)

    def _tell(self, text: str) -> None:
        """A terminal that has gone must not take the cluster with it."""
        with contextlib.suppress(OSError):
            self._listener(text)

    # ---- signals and what others may read

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        receiver, sender = socket.socketpair()
        receiver.setblocking(False)
        sender.setblocking(False)
        self._selector.register(receiver, selectors.EVENT_READ, None)
        old_fd = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        old = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)
            self._selector.close()
            receiver.close()
            sender.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == WAKE:
            self._wakes += 1
        else:
            self._stops += 1

    def _set_phase(self, phase: str) -> None:
        self._phase = phase
        self._write_status()

    def _write_status(self) -> None:
        identity = Identity.of(os.getpid())
        assert identity is not None
        status: dict[str, Any] = {
            **identity.to_json(),
            "phase": self._phase,
            "mount_point": str(self._mount_point) if self._mount_point else None,
            "children": {c.program.name: c.to_json() for c in self._children},
        }
        new = self._home.status_file.with_suffix(".new")
        try:
            new.write_text(json.dumps(status, indent=2))
            new.replace(self._home.status_file)
        except OSError as error:
            # On a full disk what stands there goes on telling who we are, which `down` needs.
            if not self._is_noted:
                raise CliError(f"{self._home.status_file}: {error.strerror}") from None
        self._is_noted = True


def noted_mount_point(home: Home) -> str | None:
    """Where the last supervisor has mounted it, although it may have been killed since."""
    try:
        status = json.loads(home.status_file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    point = status.get("mount_point") if isinstance(status, dict) else None
    return point if isinstance(point, str) else None


def read_status(home: Home) -> dict[str, Any] | None:
    """What the supervisor says about itself; None when none is running."""
    try:
        status = json.loads(home.status_file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    identity = Identity.from_json(status)
    if identity is None or not identity.alive:
        return None
    assert isinstance(status, dict)
    return status
