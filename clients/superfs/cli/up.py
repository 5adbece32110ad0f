"""`superfs up` and `superfs down`: a whole cluster on one machine, and its mount."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path  # noqa: TC003 - typer evaluates the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from superfs.cli import mounts, supervisor
from superfs.cli.children import end_of, last_lines, rotate
from superfs.cli.formatting import own_root, prepare
from superfs.cli.installed import script
from superfs.cli.mounting import unmount_all_of
from superfs.cli.options import DirOption, home_of
from superfs.cli.output import EXIT_USAGE, CliError, say, warn
from superfs.cli.processes import Identity, find_running, stop
from superfs.cli.programs import DAEMON_GRACE_S, MOUNT_GRACE_S, of_home
from superfs.client.mounted import mount_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.cli.home import Home

OTHER_READY_TIMEOUT_S = supervisor.READY_TIMEOUT_S
DOWN_TIMEOUT_S = 180.0
POLL_S = 0.05


def up(
    directory: DirOption = None,
    mount: Annotated[
        Path | None,
        typer.Option("--mount", metavar="MNT", help="Mount it there too.", show_default=False),
    ] = None,
    meta: Annotated[int, typer.Option(min=1, metavar="N", help="Metadata daemons.")] = 1,
    data: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Data daemons; default as many as there are, else 1.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when everything runs; stop it with `down`.")
    ] = False,
    ready_fd: Annotated[int | None, typer.Option("--ready-fd", hidden=True)] = None,
) -> None:
    """Start a cluster in DIR on this machine, formatting it on first use, and mount it.

    Without --detach it runs until Ctrl-C; a second Ctrl-C kills. Running it again is harmless.
    """
    if meta != 1:
        raise CliError(
            "more than one metadata daemon is not supported in this version",
            hint="leave --meta out; all namespace slots are served by one",
            status=EXIT_USAGE,
        )
    home = home_of(directory)
    point = mounts.resolve_mount_point(mount) if mount is not None else None
    _check_places(home, point)
    if ready_fd is not None:
        _run_detached(home, point, data, ready_fd)
    elif detach:
        _detach(home, point, data)
    else:
        raise typer.Exit(_run(home, point, data, say, lambda: say(_running(home, point))))


def _run(
    home: Home,
    point: Path | None,
    data: int | None,
    tell: Callable[[str], None],
    on_ready: Callable[[], None],
) -> int:
    def ready() -> None:
        own_root(home)
        on_ready()

    home.make_dirs()
    while True:
        with supervisor.lock(home) as ours:
            if ours:
                _refuse_running_elsewhere(home, point)
                prepare(home, data)
                programs = of_home(home, point, tell)
                boss = supervisor.Supervisor(home, programs, mount_point=point, tell=tell)
                return boss.run(ready)
        if _await_other(home, point, data, tell):
            return 0


def _running(home: Home, point: Path | None) -> str:
    where = f", mounted at {point}" if point else ""
    return f"SuperFS runs{where}. Stop it with: superfs down --dir {home.root}"


# ---- what may be in the way ----------------------------------------------------------------------


def _check_places(home: Home, point: Path | None) -> None:
    if point is None:
        return
    if home.root == point or point in home.root.parents:
        raise CliError(
            f"{home.root} lies below the mount point {point}: it would be stored in itself",
            hint="choose another --dir or another --mount",
            status=EXIT_USAGE,
        )
    mounts.check_fuse()


def _refuse_running_elsewhere(home: Home, point: Path | None) -> None:
    """With the lock in our hands: a mount of ours that a killed supervisor has left is adopted if
    it is where we would mount; anything else must not be in the way."""
    orphan = find_running(home.config_dir).get("mount")
    if orphan is not None and (point is None or orphan[1][-1] != str(point)):
        raise CliError(
            f"it is still mounted at {orphan[1][-1]}",
            hint=f"run `superfs down --dir {home.root}` first",
        )
    if point is not None and orphan is None:
        mounts.prepare_mount_point(point)


def _await_other(
    home: Home, point: Path | None, data: int | None, tell: Callable[[str], None]
) -> bool:
    """Another supervisor has the lock: wait until everything runs, or say what does not. False: it
    was stopped meanwhile, or did not start, and the lock is free."""
    woken = False
    deadline = time.monotonic() + OTHER_READY_TIMEOUT_S
    while time.monotonic() < deadline:
        status = supervisor.read_status(home)
        if status is None and not supervisor.is_locked(home):
            return False
        if status is not None and status["phase"] == "ready":
            _check_same(home, point, data, status)
            resting = [n for n, c in status["children"].items() if c["state"] != "ready"]
            if not resting:
                tell(f"Already running (pid {status['pid']}).")
                return True
            if not woken:
                woken = True
                tell(f"Already running (pid {status['pid']}); starting {', '.join(resting)} again.")
                _identity(status).kill(supervisor.WAKE)
        time.sleep(POLL_S)
    raise CliError(
        "it runs already, but not everything is ready",
        hint=f"look: superfs status --dir {home.root}",
    )


def _check_same(home: Home, point: Path | None, data: int | None, status: dict[str, Any]) -> None:
    have = sum(name.startswith("datad-") for name in status["children"])
    if data not in (None, have):
        raise CliError(
            f"it runs already, with {have} data daemons and not {data}",
            hint=f"stop it first: superfs down --dir {home.root}",
        )
    if point is not None and status["mount_point"] != str(point):
        where = status["mount_point"] or "nowhere"
        raise CliError(
            f"it runs already and is mounted at {where}, not at {point}",
            hint=f"mount it there as well: superfs mount --dir {home.root} {point}",
        )


def _identity(status: dict[str, Any]) -> Identity:
    identity = Identity.from_json(status)
    assert identity is not None, "read_status has checked it"
    return identity


# ---- in the background ---------------------------------------------------------------------------


def _detach(home: Home, point: Path | None, data: int | None) -> None:
    """The supervisor runs as a process of its own and tells us over a pipe how its start goes: one
    JSON object a line, the last one "ready", "done" or "error"."""
    home.make_dirs()
    reader, writer = os.pipe()
    log = home.log_file("supervisor")
    rotate(log)
    start = end_of(log)
    command = [script("superfs"), "up", "--dir", str(home.root), "--ready-fd", str(writer)]
    command += ["--mount", str(point)] if point is not None else []
    command += ["--data", str(data)] if data is not None else []
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            pass_fds=(writer,),
            cwd="/",
        )
    os.close(writer)
    with os.fdopen(reader) as lines:
        for line in lines:
            message = json.loads(line)
            if "say" in message:
                say(message["say"])
            elif "error" in message:
                error = message["error"]
                process.wait()
                raise CliError(error["message"], hint=error["hint"], status=error["status"])
            else:
                if message["ready"]:
                    say(_running(home, point))
                return
    end = "\n    ".join(last_lines(log, since=start))
    raise CliError("the supervisor ended at its start", hint=f"the end of {log}:\n    {end}")


def _run_detached(home: Home, point: Path | None, data: int | None, ready_fd: int) -> None:
    os.set_inheritable(ready_fd, False)
    pipe = os.fdopen(ready_fd, "w")

    def send(message: dict[str, Any]) -> None:
        if pipe.closed:
            return
        try:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()
        except BrokenPipeError:
            pipe.close()  # whoever waited has gone; the log has it all

    def tell(text: str) -> None:
        say(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}")
        send({"say": text})

    def ready() -> None:
        send({"ready": True})
        pipe.close()

    try:
        status = _run(home, point, data, tell, ready)
        send({"ready": False})
    except CliError as error:
        send({"error": {"message": error.message, "hint": error.hint, "status": error.status}})
        raise
    raise typer.Exit(status)


# ---- down ----------------------------------------------------------------------------------------


def down(
    directory: DirOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Kill what does not stop by itself.")
    ] = False,
) -> None:
    """Unmount and stop a cluster that `superfs up` has started. Running it again is harmless."""
    home = home_of(directory)
    unmount_all_of(home)
    status = supervisor.read_status(home)
    if status is not None:
        _stop_supervisor(home, _identity(status), force=force)
    stopped = _stop_orphans(home) | _clear_dead_mounts(home)
    if status is None and not stopped:
        where = "" if home.exists else f" {home.root} holds no cluster."
        say(f"Nothing is running.{where}")
    else:
        say("Stopped.")


def _stop_supervisor(home: Home, identity: Identity, *, force: bool) -> None:
    identity.kill(signal.SIGTERM)
    if identity.wait(DOWN_TIMEOUT_S if not force else DAEMON_GRACE_S):
        return
    if not force:
        raise CliError(
            f"the supervisor (pid {identity.pid}) does not stop",
            hint=f"see {home.log_file('supervisor')}, or use --force",
        )
    identity.kill(signal.SIGKILL)
    identity.wait(DAEMON_GRACE_S)


def _stop_orphans(home: Home) -> bool:
    """What a killed supervisor has left, in the order in which it would have stopped it."""
    running = find_running(home.config_dir)
    names = ["clusterd", *sorted(n for n in running if n not in ("clusterd", "mount")), "mount"]
    for name in reversed(names):
        if name not in running:
            continue
        identity, _ = running[name]
        if not stop(identity, MOUNT_GRACE_S if name == "mount" else DAEMON_GRACE_S):
            warn(f"{name} (pid {identity.pid}) did not end: killed")
        say(f"{name}: stopped")
    return bool(running)


def _clear_dead_mounts(home: Home) -> bool:
    """What mounts that were killed have left. Who mounts by fusermount3 cannot say of which
    cluster it is; the killed supervisor has noted the place."""
    ours = {str(home.root), home.address("clusterd")}
    noted = supervisor.noted_mount_point(home)
    dead = [
        m.path
        for m in mount_table()
        if m.is_superfs and (m.source in ours or str(m.path) == noted) and mounts.is_dead(m.path)
    ]
    for point in dead:
        mounts.unmount(point, lazy=True)
        say(f"{point}: taken off; its process had been killed")
    return bool(dead)
