"""`superfs sync`: what was done through mounts of this machine is on disk."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from superfs.cli.output import CliError

TIMEOUT_S = 600.0


def sync(
    where: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="In a mount; default: all mounts of this machine that you may ask.",
            show_default=False,
        ),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.1, help="Seconds for each mount.")
    ] = TIMEOUT_S,
) -> None:
    """Wait until what programs have done through a mount is on disk.

    What they wrote, closed or not, and what the mount has done by itself and not told yet."""
    from superfs.cli import windows

    seen = [windows.open_at(where)] if where is not None else windows.open_all()
    failed = []
    for window in seen:
        try:
            unwritten, lost = window.sync(timeout_s)
            if unwritten:
                failed.append(f"{window.mountpoint}: {unwritten} files could not be written")
            if lost:
                text = "files and directories were changed, and that could not be shipped"
                failed.append(f"{window.mountpoint}: {lost} {text}")
        except (OSError, CliError) as error:
            failed.append(f"{window.mountpoint}: {error}")
        finally:
            window.close()
    if failed:
        raise CliError("; ".join(failed), hint="the log of the mount names the files")
