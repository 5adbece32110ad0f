"""`superfs mount` and `superfs umount`: superfs-mount in the background, until it is mounted, and
off again, until everything is written back."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from superfs.cli import mounts
from superfs.cli.children import end_of, last_lines, rotate
from superfs.cli.home import Home
from superfs.cli.installed import script
from superfs.cli.options import ClusterOption, DirOption, TokenOption, target_of
from superfs.cli.output import EXIT_USAGE, CliError, say
from superfs.cli.processes import Identity, command_line, stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.cli.options import Target

READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 120.0
"""How long a mount may write back after it was unmounted."""
POLL_S = 0.02

MountPoint = Annotated[Path, typer.Argument(metavar="MNT", help="Where.", show_default=False)]


def mount(
    mount_point: MountPoint,
    options: Annotated[
        str, typer.Option("--options", "-o", metavar="OPT,...", help="As in /etc/fstab: ro,...")
    ] = "",
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="SOURCE",
            help=r"HOST\[:PORT]:\[/SUBDIR], unix:PATH or DIR, instead of --dir and --cluster.",
            show_default=False,
        ),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay, and log to the terminal.")
    ] = False,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:
    """Mount a cluster at MNT; returns when it is mounted."""
    if source is not None and (directory is not None or cluster):
        raise CliError("--source excludes --dir and --cluster", status=EXIT_USAGE)
    point = mounts.resolve_mount_point(mount_point)
    words = [part for part in (options,) if part]
    log_dir = None
    if source is None:
        target = target_of(directory, cluster, token_file)
        source = _source_of(target)
        log_dir = target.home.log_dir if target.home else None
        if target.home is None:
            words.append("cluster=" + "+".join(target.cluster))
            token_file = token_file or target.token_file
    elif ":" not in source and os.path.isdir(source):
        source = str(Home.at(Path(source)).root)  # superfs-mount has another working directory
    if token_file is not None:
        words.append(f"token={token_file.absolute()}")
    mounts.check_fuse()
    mounts.prepare_mount_point(point)
    argv = [script("superfs-mount"), source, str(point)]
    argv += ["-o", ",".join(words)] if words else []
    if foreground:
        os.execv(argv[0], argv)
    _start(argv, point, _log_file(log_dir, point))
    say(f"{source} is mounted at {point}")


def _source_of(target: Target) -> str:
    return str(target.home.root) if target.home is not None else target.cluster[0]


def _start(argv: list[str], point: Path, log: Path) -> None:
    rotate(log)
    start = end_of(log)
    with log.open("ab") as file:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + READY_TIMEOUT_S
    while mounts.mounted_at(point) is None:
        status = process.poll()
        if status is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            why = f"ended with status {status}" if status is not None else "does not get ready"
            end = "\n    ".join(last_lines(log, since=start))
            raise CliError(
                f"{point} could not be mounted: superfs-mount {why}",
                hint=f"the end of {log}:\n    {end}",
            )
        time.sleep(POLL_S)


def _log_file(log_dir: Path | None, point: Path) -> Path:
    if log_dir is None and os.geteuid() == 0:
        log_dir = Path("/var/log/superfs")
    elif log_dir is None:
        log_dir = Path.home() / ".local/state/superfs"
    log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    slug = str(point).strip("/").replace("-", "--").replace("/", "-")
    return log_dir / f"mount-{slug}.log"


def umount(
    mount_point: MountPoint,
    lazy: Annotated[
        bool,
        typer.Option("--lazy", "-l", help="Take it away now, let go when nobody uses it any more."),
    ] = False,
) -> None:
    """Unmount MNT; returns when everything is written back."""
    point = mounts.resolve_mount_point(mount_point)
    found = mounts.mounted_at(point)
    if found is None:
        raise CliError(f"nothing is mounted at {point}", hint="see: superfs status")
    if not found.is_superfs:
        raise CliError(
            f"what is mounted at {point} is not SuperFS but {found.kind}", status=EXIT_USAGE
        )
    processes = list(_processes_of(point))
    mounts.unmount(point, lazy=lazy or mounts.is_dead(point))
    if lazy:
        return
    for identity in processes:
        if not identity.wait(END_TIMEOUT_S):
            raise CliError(
                f"{point} is unmounted, but its process (pid {identity.pid}) is still writing back",
                hint="do not switch the machine off yet; its log says what it waits for",
            )


def unmount_all_of(home: Home) -> None:
    """Every mount made with `superfs mount --dir`, before its cluster is stopped. Who is in use is
    detached by superfs-mount itself."""
    for words, identity in _mount_processes():
        source, point = words[:2]
        if source == str(home.root):
            stop(identity, END_TIMEOUT_S)
            say(f"{point}: unmounted")


def _processes_of(point: Path) -> Iterator[Identity]:
    return (identity for words, identity in _mount_processes() if str(point) in words)


def _mount_processes() -> Iterator[tuple[list[str], Identity]]:
    """With the words behind the program's name, at least two of them."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        words = command_line(int(entry))
        at = next((i for i, word in enumerate(words) if word.endswith("/superfs-mount")), None)
        identity = Identity.of(int(entry)) if at is not None else None
        if at is not None and identity is not None and len(words) >= at + 3:
            yield words[at + 1 :], identity
