"""The `superfs` command: its sub-commands, and how errors become messages and exit statuses.

Command modules import nothing heavy at the top: gRPC and the client are imported by the commands
that use them, so that `superfs --help` and tab completion stay quick.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from superfs.cli import (
    cache,
    chukonu,
    ckpt,
    files,
    fsck,
    kv,
    mounting,
    profile,
    stats,
    status,
    syncing,
    token,
    trees,
    up,
)
from superfs.cli.bench import command as benchmark
from superfs.cli.output import EXIT_FAILED, CliError, printable, report

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="superfs",
    help="SuperFS: a distributed file system for masses of small files.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START = "Start and stop"
USE = "Files, past the mount"
LOOK = "Look after it"

app.command(rich_help_panel=START)(up.up)
app.command(rich_help_panel=START)(up.down)
app.command(rich_help_panel=START)(mounting.mount)
app.command(rich_help_panel=START)(mounting.umount)
app.command("ls", rich_help_panel=USE)(files.ls)
app.command("stat", rich_help_panel=USE)(files.stat)
app.command("cat", rich_help_panel=USE)(files.cat)
app.command("put", rich_help_panel=USE)(trees.put)
app.command("get", rich_help_panel=USE)(trees.get)
app.command("import", rich_help_panel=USE)(trees.import_tree)
app.command("export", rich_help_panel=USE)(trees.export_tree)
app.command(rich_help_panel=LOOK)(status.status)
app.command("stats", rich_help_panel=LOOK)(stats.stats)
app.command("profile", rich_help_panel=LOOK)(profile.profile)
app.command("sync", rich_help_panel=LOOK)(syncing.sync)
app.command("fsck", rich_help_panel=LOOK)(fsck.fsck)
app.command("token", rich_help_panel=LOOK)(token.token)
app.command("bench", rich_help_panel=LOOK)(benchmark.bench)
app.add_typer(cache.app, name="cache", rich_help_panel=LOOK)
app.add_typer(ckpt.app, name="ckpt", rich_help_panel=USE)
app.add_typer(chukonu.app, name="chukonu", rich_help_panel=USE)
app.add_typer(kv.app, name="kv", rich_help_panel=USE)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"superfs {version('superfs')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """SuperFS: a distributed file system for masses of small files."""


def main(argv: Sequence[str] | None = None) -> None:
    try:
        app(args=list(argv) if argv is not None else None)
    except CliError as error:
        report(error)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _forget_stdout()
        sys.exit(EXIT_FAILED)
    except Exception as error:
        explained = _explained(error)
        if explained is None:
            raise
        report(explained)
        sys.exit(explained.status)


def _explained(error: Exception) -> CliError | None:
    """What a person can act on; None: a bug, shown with its trace."""
    from superfs.core.config import ConfigError
    from superfs.core.errors import Code, FsError

    if isinstance(error, ConfigError):
        return CliError(str(error))
    if isinstance(error, OSError) and isinstance(error.__cause__, FsError):
        cause = error.__cause__
        if cause.code in (Code.UNAVAILABLE, Code.DEADLINE, Code.UNAUTHENTICATED, Code.FORBIDDEN):
            return _explained(cause)
    if isinstance(error, FsError):
        hints = {
            Code.UNAVAILABLE: "does it run? Look: superfs status",
            Code.UNAUTHENTICATED: "the token is of another cluster, or has expired",
            Code.DAMAGED: "look: superfs fsck, and docs/operations.md on damage",
        }
        return CliError(error.detail or error.code.name, hint=hints.get(error.code, ""))
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename
        where = f"{printable(os.fsencode(name))}: " if isinstance(name, (str, bytes)) else ""
        return CliError(f"{where}{error.strerror}")
    return None


def _forget_stdout() -> None:
    """Whoever read our output has gone: keep the interpreter from complaining at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
