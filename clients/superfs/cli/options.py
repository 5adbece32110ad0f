"""Options that many commands share, and how they name a cluster.

A cluster is named by `--dir` (one started with `superfs up`), or by `--cluster` and
`--token-file`. With neither it is the directory in SUPERFS_DIR, else ./.superfs, else the system's
own: /etc/superfs. The environment is read here and nowhere else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from superfs.cli.home import Home
from superfs.cli.output import EXIT_USAGE, CliError

ENV_DIR = "SUPERFS_DIR"
DEFAULT_DIR = Path(".superfs")
SYSTEM_CLUSTER = "unix:/run/superfs/clusterd.sock"
SYSTEM_TOKEN = Path("/etc/superfs/token")

DirOption = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        help=f"Cluster started with `superfs up --dir`; default ${ENV_DIR}, then ./{DEFAULT_DIR}.",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Address of clusterd: unix:PATH or HOST:PORT; may be given several times.",
        show_default=False,
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="Token to show.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster, and what to show to be let in."""

    cluster: tuple[str, ...]
    token_file: Path
    home: Home | None = None


def home_of(directory: Path | None) -> Home:
    return Home.at(directory or Path(os.environ.get(ENV_DIR) or DEFAULT_DIR))


def existing_home(directory: Path | None) -> Home:
    home = home_of(directory)
    if not home.exists:
        raise CliError(
            f"{home.root} holds no cluster",
            hint="name one with --dir, or start one: superfs up --dir DIR --mount MNT",
            status=EXIT_USAGE,
        )
    return home


def target_of(directory: Path | None, cluster: list[str] | None, token_file: Path | None) -> Target:
    if directory is not None and cluster:
        raise CliError("--dir and --cluster exclude each other", status=EXIT_USAGE)
    if cluster:
        token = token_file or SYSTEM_TOKEN
        _check_token(token)
        return Target(tuple(cluster), token)
    home = home_of(directory)
    if home.exists:
        token = token_file or home.token_file
        _check_token(token)
        return Target((home.address("clusterd"),), token, home)
    if directory is None and SYSTEM_TOKEN.exists():
        return Target((SYSTEM_CLUSTER,), token_file or SYSTEM_TOKEN)
    return _no_home(directory)


def _no_home(directory: Path | None) -> Target:
    existing_home(directory)
    raise AssertionError("a home that exists has been used")


def _check_token(path: Path) -> None:
    if not os.access(path, os.R_OK):
        what = "may not be read by this user" if path.exists() else "does not exist"
        raise CliError(
            f"the token file {path} {what}",
            hint="name yours with --token-file; `superfs token` makes one",
        )
