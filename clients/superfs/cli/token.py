"""`superfs token`: makes a token file, which lets its bearer into the cluster.

`superfs-clusterd --issue-token` signs it; this finds the key and the numbers of a user.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from superfs.cli.installed import script
from superfs.cli.options import DirOption, home_of
from superfs.cli.output import EXIT_USAGE, CliError, say

if TYPE_CHECKING:
    from superfs.cli.home import Home

SYSTEM_CONFIG = Path("/etc/superfs/clusterd.toml")


def token(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="New file, only for you to read.")],
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="NAME|UID",
            help="For this user of this machine: the servers check every permission. "
            "Without it: for a host, whose kernel checks.",
            show_default=False,
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="It may change nothing.")] = False,
    days: Annotated[
        int | None,
        typer.Option("--days", min=1, metavar="N", help="Valid so long.", show_default="for ever"),
    ] = None,
    directory: DirOption = None,
) -> None:
    """Make a token file. Only who may read the cluster's key can."""
    home = home_of(directory)
    config = home.config_file("clusterd") if home.exists or directory else SYSTEM_CONFIG
    words = ["host", "--name", host_name()] if user is None else _user_words(user)
    if read_only:
        words.append("--read-only")
    if days is not None:
        words += ["--days", str(days)]
    issue(config, words, output.absolute())
    say(f"{output}: a token for {'this host' if user is None else f'user {user}'}")


def ensure_host_token(home: Home) -> None:
    """For the mount and the administrator of an embedded cluster."""
    if not home.token_file.exists():
        issue(home.config_file("clusterd"), ["host", "--name", host_name()], home.token_file)


def issue(config: Path, words: list[str], output: Path) -> None:
    command = [script("superfs-clusterd"), "--config", str(config)]
    command += ["--out", str(output), "--issue-token", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", process_group=0
    )
    if done.returncode != 0:
        raise CliError(
            f"no token could be made: {done.stderr.strip().removeprefix('superfs-clusterd: ')}"
        )


def host_name() -> str:
    return os.uname().nodename[:64] or "localhost"


def _user_words(user: str) -> list[str]:
    import pwd

    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        raise CliError(f"there is no user {user!r} on this machine", status=EXIT_USAGE) from None
    groups = sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    words = ["user", "--name", entry.pw_name, "--uid", str(entry.pw_uid)]
    words += ["--gid", str(entry.pw_gid), "--groups", ",".join(str(g) for g in groups)]
    return words
