"""`superfs fsck`: every daemon checks itself, then what they hold is compared.

A cluster that is in use changes while it is looked at. What the comparison finds is therefore
looked at again and reported only if it stays.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from superfs.cli.options import ClusterOption, DirOption, JsonOption, TokenOption, target_of
from superfs.cli.output import EXIT_FAILED, CliError, console, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.cli.admin import Admin, Daemon

EXIT_UNCHECKED = 8
"""As e2fsck: the check itself did not work, which says nothing about the file system."""
SETTLE_S = 15.0
"""Removals reach the data daemons behind the answer to the client: how long that may take."""
PAUSE_S, PAUSE_S_MAX = 0.02, 0.2
"""Between two looks. Most removals are there within moments, and a look at much takes long."""
GENERATION_BITS = 32
UNUSED = ""
"""Stands for a metad that names data of which there need not be any: of an empty file, or of one
that somebody is writing before he gives it a name."""


@dataclass(frozen=True, slots=True)
class Finding:
    daemon: str
    kind: str  # a stable word
    object: str
    detail: str = ""


@dataclass(slots=True)
class Report:
    findings: list[Finding] = field(default_factory=list)  # something is wrong
    notes: list[Finding] = field(default_factory=list)  # worth knowing
    checked: list[str] = field(default_factory=list)
    files_with_data: int = 0


def fsck(
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read the data: records and places only.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check everything and change nothing; the cluster may be in use. Status 1: findings."""
    from superfs.cli.admin import Admin
    from superfs.core.errors import FsError

    try:
        report = check(Admin(target_of(directory, cluster, token_file)), verify_data=not quick)
    except FsError as error:
        raise CliError(
            f"not everything could be checked: {error.detail or error.code.name}",
            hint="does everything run? Look: superfs status",
            status=EXIT_UNCHECKED,
        ) from None
    if as_json:
        print_json(asdict(report))
    else:
        _show(report)
    if report.findings:
        raise typer.Exit(EXIT_FAILED)


def check(
    admin: Admin,
    *,
    verify_data: bool = True,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Report:
    from superfs.v1 import common_pb2

    report = Report()
    for daemon in admin.daemons:
        for found in admin.check(daemon, verify_data=verify_data):
            finding = Finding(daemon.name, found.kind, found.object, found.detail)
            wrong = found.severity == common_pb2.Finding.ERROR
            (report.findings if wrong else report.notes).append(finding)
        report.checked.append(daemon.name)
    _compare(admin, report, clock, pause)
    return report


def _compare(
    admin: Admin,
    report: Report,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> None:
    """Data that no inode names is leaked space. An inode of which no data is stored is a file of
    nothing but holes, or has lost everything: only the owner knows, so it is a note."""
    deadline = clock() + SETTLE_S
    leaked: dict[int, str] | None = None
    missing: dict[int, str] | None = None
    pause_s = PAUSE_S
    while True:
        stored = _keys(admin, [d for d in admin.daemons if not d.is_meta])
        named = _keys(admin, [d for d in admin.daemons if d.is_meta])
        now_leaked = {k: name for k, name in stored.items() if k not in named}
        now_missing = {k: n for k, n in named.items() if k not in stored and n != UNUSED}
        leaked = now_leaked if leaked is None else _both(leaked, now_leaked)
        missing = now_missing if missing is None else _both(missing, now_missing)
        if not leaked or clock() >= deadline:
            break
        pause(pause_s)
        pause_s = min(2 * pause_s, PAUSE_S_MAX)
    report.files_with_data = sum(name != UNUSED for name in named.values())
    for key, name in sorted(leaked.items()):
        report.findings.append(
            Finding(name, "data-without-inode", _object(key), "space that no file uses: a leak")
        )
    for key, name in sorted(missing.items()):
        report.notes.append(
            Finding(name, "inode-without-data", _object(key), "only holes, or its data is lost")
        )


def _both(before: dict[int, str], now: dict[int, str]) -> dict[int, str]:
    return {key: name for key, name in before.items() if key in now}


def _keys(admin: Admin, daemons: Iterable[Daemon]) -> dict[int, str]:
    """(ino, data generation) as one number -> the daemon that knows it."""
    found: dict[int, str] = {}
    for daemon in daemons:
        for message in admin.list_data(daemon):
            inos, generations = array("Q", message.inos), array("I", message.generations)
            sizes = array("Q", message.sizes) or [1] * len(inos)
            for ino, generation, size in zip(inos, generations, sizes, strict=True):
                name = daemon.name if size or not daemon.is_meta else UNUSED
                found[ino << GENERATION_BITS | generation] = name
    return found


def _object(key: int) -> str:
    return f"inode {key >> GENERATION_BITS:#x} data generation {key & ((1 << 32) - 1)}"


def _show(report: Report) -> None:
    screen = console()
    for title, colour, found in (
        ("wrong", "red", report.findings),
        ("note", "yellow", report.notes),
    ):
        for f in found:
            screen.print(
                f"[{colour}]{title}[/] {f.daemon}: {f.kind}: {f.object} {f.detail}".rstrip()
            )
    daemons = ", ".join(report.checked)
    verdict = f"[red]{len(report.findings)} findings[/]" if report.findings else "[green]clean[/]"
    screen.print(f"{verdict}: {daemons}; {report.files_with_data} files with data of their own")
    if report.findings:
        screen.print("What each finding means and what to do: docs/operations.md")
