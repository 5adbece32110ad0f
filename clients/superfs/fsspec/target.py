"""Which cluster is meant: by storage options, else as the command line finds it.

`dir` names one that `superfs up --dir` started; `cluster` (one address, several, or several in one
string with commas) and `token_file` name any. With none of them it is the directory in
SUPERFS_DIR, else ./.superfs, else the system's own. The environment is read here alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ENV_DIR = "SUPERFS_DIR"
DEFAULT_DIR = ".superfs"
SYSTEM_CLUSTER = "unix:/run/superfs/clusterd.sock"
SYSTEM_TOKEN = Path("/etc/superfs/token")


@dataclass(frozen=True, slots=True)
class Target:
    """Addresses of clusterd, what to show to be let in, and how long an outage is ridden out."""

    cluster: tuple[str, ...]
    token_file: Path
    retry_timeout_s: float = 30.0


def find_target(
    directory: str | os.PathLike[str] | None,
    cluster: str | Sequence[str] | None,
    token_file: str | os.PathLike[str] | None,
    retry_timeout_s: float = 30.0,
) -> Target:
    """ValueError when the options exclude each other, FileNotFoundError when no cluster is where
    they point to."""
    if directory is not None and cluster:
        raise ValueError("dir and cluster exclude each other")
    token = None if token_file is None else Path(token_file).expanduser()
    if cluster:
        names = cluster.split(",") if isinstance(cluster, str) else cluster
        addresses = tuple(name.strip() for name in names)
        return Target(addresses, token or SYSTEM_TOKEN, retry_timeout_s)
    home = Path(directory or os.environ.get(ENV_DIR) or DEFAULT_DIR).expanduser().resolve()
    if (home / "cluster.key").exists():
        # Resolved: the path of a socket must be short as it is spelt.
        address = f"unix:{(home / 'run').resolve() / 'clusterd.sock'}"
        return Target((address,), token or home / "token", retry_timeout_s)
    if directory is None and SYSTEM_TOKEN.exists():
        return Target((SYSTEM_CLUSTER,), token or SYSTEM_TOKEN, retry_timeout_s)
    raise FileNotFoundError(
        f"{home} holds no SuperFS cluster: name one by the storage option dir= or cluster="
    )
