"""First use of a cluster's directory: configuration files, then one empty store per daemon.

`formatted` is the memory of what was done: "NAME begun" before a daemon's `--format`, "NAME done"
after it. A store that is done is never formatted again, whatever has become of it: a daemon that
misses its store says so and does not start. What was begun and not done held nothing yet. "root
done" says that the root directory has got its owner.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

from superfs.cli.home import FIRST_DATA_NODE, META_NODE, Home
from superfs.cli.installed import script
from superfs.cli.output import EXIT_CONFIG, EXIT_USAGE, CliError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA_DAEMONS_MAX = 64
Values = dict[str, str | int | list[str]]


def prepare(home: Home, data: int | None) -> None:
    """Directories and configuration files. `data`: how many data daemons; None: as many as there
    are, at least one."""
    home.make_dirs()
    _refuse_lost_key(home)
    have = max(len(home.data_names()), _formatted_data(home))
    want = max(have, 1) if data is None else data
    if want < have:
        raise CliError(
            f"this cluster has {have} data daemons, and what they hold cannot be moved away yet",
            hint=f"start it with --data {have} or without --data",
            status=EXIT_USAGE,
        )
    if not 1 <= want <= DATA_DAEMONS_MAX:
        raise CliError(f"--data must be from 1 to {DATA_DAEMONS_MAX}", status=EXIT_USAGE)
    names = ["clusterd", f"metad-{META_NODE}"]
    names += [f"datad-{FIRST_DATA_NODE + i}" for i in range(want)]
    for name in names:
        _ensure_config(home, name, "daemon", _daemon_values(home, name))
    client: Values = {"cluster": [home.address("clusterd")], "token_file": str(home.token_file)}
    _ensure_config(home, "mount", "client", client)


def format_missing(home: Home, name: str, tell: Callable[[str], None]) -> None:
    done = _read_formatted(home)
    if done.get(name) == "done":
        return
    state_dir = home.state_dir(name)
    if done.get(name) == "begun":
        shutil.rmtree(state_dir, ignore_errors=True)
    elif state_dir.exists() and any(state_dir.iterdir()):
        raise CliError(
            f"{state_dir} is not empty, and nothing says that this cluster made it",
            hint=f"if its data belongs here, restore {home.formatted_file} from the same backup; "
            "else move it away",
            status=EXIT_CONFIG,
        )
    _note(home, name, "begun")
    kind = name.partition("-")[0]
    command = [script(f"superfs-{kind}"), "--config", str(home.config_file(name)), "--format"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", process_group=0
    )
    if ended.returncode != 0:
        raise CliError(
            f"{name} could not be formatted", hint=ended.stderr.strip(), status=EXIT_CONFIG
        )
    _note(home, name, "done")
    tell(f"{name}: formatted {state_dir}")


def own_root(home: Home) -> None:
    """Once, when metad serves: a file system that a user has made is that user's. Its root would
    be uid 0's, and closed to everybody who can mount it."""
    if os.geteuid() == 0 or _read_formatted(home).get("root") == "done":
        return
    from superfs.cli.options import Target
    from superfs.cli.reach import file_system

    with file_system(Target((home.address("clusterd"),), home.token_file, home)) as fs:
        if fs.stat("/").st_uid == 0:
            fs.chown("/", os.geteuid(), os.getegid())
    _note(home, "root", "done")


def _refuse_lost_key(home: Home) -> None:
    if not home.exists and _read_formatted(home).get("clusterd") == "done":
        raise CliError(
            f"{home.key_file} is missing, but the cluster exists",
            hint="restore it from a backup: without it no daemon trusts another",
            status=EXIT_CONFIG,
        )


def _read_formatted(home: Home) -> dict[str, str]:
    try:
        lines = home.formatted_file.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.rsplit(" ", 1) for line in lines if " " in line)


def _formatted_data(home: Home) -> int:
    """Whatever has become of their configuration."""
    return sum(name.startswith("datad-") for name in _read_formatted(home))


def _note(home: Home, name: str, state: str) -> None:
    """Durable before the next step."""
    done = _read_formatted(home) | {name: state}
    write_durably(home.formatted_file, "".join(f"{n} {s}\n" for n, s in done.items()))


def write_durably(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# ---- configuration files -------------------------------------------------------------------------


def _daemon_values(home: Home, name: str) -> Values:
    number = name.partition("-")[2]
    return {
        "node_id": int(number) if number else 1,
        "state_dir": str(home.state_dir(name)),
        "listen": [home.address(name)],
        "cluster": [home.address("clusterd")],
        "key_file": str(home.key_file),
    }


def _ensure_config(home: Home, name: str, table: str, values: Values) -> None:
    """Written once; afterwards it is the user's, but it must still point into this directory."""
    path = home.config_file(name)
    if not path.exists():
        lines = [f"[{table}]\n", *(f"{key} = {_toml(value)}\n" for key, value in values.items())]
        write_durably(path, "".join(lines))
        return
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text()).get(table, {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CliError(
            f"{path}: not valid TOML: {error}", hint="mend it, or remove it to get the defaults"
        ) from None
    for key, value in values.items():
        if found.get(key) != value:
            raise CliError(
                f"{path}: {table}.{key} is {found.get(key)!r}, expected {value!r}",
                hint="was the directory moved? Remove the file to have it written anew",
                status=EXIT_CONFIG,
            )


def _toml(value: str | int | list[str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
