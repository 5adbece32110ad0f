"""Programs of SuperFS as forks of one process that has imported them already.

An interpreter that imports a daemon takes 0.4 s of the processor before the daemon's first line
runs; a fork takes 0.03 s. All else is as when the program is executed: its process, arguments,
environment, standard input and output, signals, exit status. That the programs themselves start
is what the tests of `superfs up`, of a daemon's base and of its process see to.

    start(["/.../bin/superfs-metad", "--config", file], log, env)
    run("superfs", "ls", "/")
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROGRAMS = {
    "superfs": "superfs.cli.main",
    "superfs-clusterd": "superfs.cluster.main",
    "superfs-metad": "superfs.meta.main",
    "superfs-datad": "superfs.data.main",
    "superfs-mount": "superfs.mount.main",
}
MODULES = ("harness.hammer",)
"""Programs that are started with -m."""
OTHER_START = ("PYTHON", "LD_")
"""Beginnings of names in an environment with which a fork would not be what exec is."""
TESTS = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
MESSAGE_BYTES_MAX = 1 << 17
_STATUS = struct.Struct("<i")


class Child:
    """Has of `subprocess.Popen` what the harness uses."""

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status.detach()  # whoever collects a cycle does not complain of a number
        self._lock = threading.Lock()

    def __del__(self) -> None:
        os.close(self._status)

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._wait(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends at this moment
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is not None:
            return self.returncode
        news = select.poll()
        news.register(self._status, select.POLLIN)
        if news.poll(None if timeout is None else timeout * 1000):
            with self._lock:  # others may wait too
                if self.returncode is None:
                    found = os.read(self._status, _STATUS.size)
                    assert found, "the process that forks the daemons has ended"
                    (self.returncode,) = _STATUS.unpack(found)
        return self.returncode


def module_of(
    command: Sequence[str], env: Mapping[str, str] | None
) -> tuple[str, list[str]] | None:
    """What a fork would run, and with which arguments; None: this has to be executed."""
    given = os.environ if env is None else env
    changed = {n for n in {*given, *os.environ} if given.get(n) != os.environ.get(n)}
    if any(name.startswith(OTHER_START) for name in changed - {"PYTHONPATH"}):
        return None
    program = Path(command[0])
    if program.parent == BIN and program.name in PROGRAMS:
        return PROGRAMS[program.name], list(command)
    if command[0] == sys.executable and command[1] == "-m" and command[2] in MODULES:
        return command[2], list(command[2:])
    return None


def start(
    command: Sequence[str],
    output: BinaryIO,
    env: Mapping[str, str] | None = None,
    *,
    errors: BinaryIO | None = None,
    cwd: str | None = None,
    executed: bool = False,
) -> Child | subprocess.Popen[bytes]:
    """Standard input is empty; errors go where the output goes unless it is said."""
    errors = errors or output
    found = None if executed else module_of(command, env)
    if found is None:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=env, cwd=cwd
        )
    ours, theirs = socket.socketpair()
    wanted = pickle.dumps(
        (*found, dict(os.environ if env is None else env), cwd or os.getcwd(), _umask())
    )
    assert len(wanted) < MESSAGE_BYTES_MAX
    with _lock, theirs:
        zygote = _running()
        fds = [output.fileno(), errors.fileno(), theirs.fileno()]
        socket.send_fds(zygote, [wanted], fds)
        (pid,) = _STATUS.unpack(zygote.recv(_STATUS.size))
    return Child(pid, ours)


def run(
    program: str, *words: str | Path, timeout: float = 60, cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """One of the programs, to its end."""
    done = run_raw(program, *words, timeout=timeout, cwd=cwd)
    said = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, *said)


def run_raw(
    program: str, *words: str | Path, timeout: float = 60, cwd: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [str(BIN / program), *map(str, words)]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = start(command, output, errors=errors, cwd=cwd)
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read())
    return subprocess.CompletedProcess(command, status, *said)


def _umask() -> int:
    os.umask(found := os.umask(0o077))
    return found


_lock = threading.Lock()
_zygote: tuple[subprocess.Popen[bytes], socket.socket] | None = None


def _running() -> socket.socket:
    global _zygote
    if _zygote is None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.zygote", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": ":".join([str(TESTS), *filter(None, sys.path)])},
        )
        theirs.close()
        _zygote = process, ours
    return _zygote[1]


def close() -> None:
    """At the end of the run."""
    global _zygote
    if _zygote is not None:
        process, connection = _zygote
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        process.wait(20)
        _zygote = None


# ---- the process itself -------------------------------------------------------------------------


def _serve(connection: socket.socket) -> Callable[[], int | None] | None:
    """None when nobody wants a program any more; in a fork: what it is to run."""
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    alive: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([connection.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _tell_of_the_dead(alive)
        if connection.fileno() not in ready:
            continue
        wanted, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES_MAX, 3)
        if not wanted:
            return None
        child = os.fork()
        if not child:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (connection, *alive.values()):
                inherited.detach()  # closed with all others
            return _become(*pickle.loads(wanted), *fds[:2])
        os.close(fds[0])
        os.close(fds[1])
        alive[child] = socket.socket(fileno=fds[2])
        connection.send(_STATUS.pack(child))


def _tell_of_the_dead(alive: dict[int, socket.socket]) -> None:
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with alive.pop(pid) as told, contextlib.suppress(OSError):
            told.send(_STATUS.pack(os.waitstatus_to_exitcode(status)))


def _become(
    module: str,
    argv: list[str],
    env: dict[str, str],
    directory: str,
    umask: int,
    output: int,
    errors: int,
) -> Callable[[], int | None]:
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    os.umask(umask)
    sys.argv = argv
    sys.modules["__main__"].__package__ = None  # by which typer tells how a program was started
    main: Callable[[], int | None] = importlib.import_module(module).main
    return main


def main() -> None:
    for module in (*PROGRAMS.values(), *MODULES):
        importlib.import_module(module)
    gc.freeze()  # what all have in common is not looked at again in each
    program = _serve(socket.socket(fileno=int(sys.argv[1])))
    if program is not None:
        sys.exit(program())


if __name__ == "__main__":
    main()
