"""Where the other programs of this installation are."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from superfs.cli.output import EXIT_CONFIG, CliError


def script(name: str) -> str:
    """The program as it was installed beside this one."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise CliError(
            f"there is no {path}: SuperFS is not installed as a whole",
            hint="install it again: pip install superfs (or `make install` in its source)",
            status=EXIT_CONFIG,
        )
    return str(path)
