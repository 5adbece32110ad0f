"""`superfs cache`: directories of a mount that never hold more than so many bytes."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from superfs.cli.options import JsonOption  # noqa: TC001 - typer reads it
from superfs.cli.output import EXIT_USAGE, CliError, print_json, say
from superfs.core.cachedirs import (
    CACHE_XATTR,
    USAGE_XATTR,
    CacheSettings,
    parse_settings,
    parse_words,
)
from superfs.core.errors import FsError

app = typer.Typer(no_args_is_help=True, help="Directories of a mount as bounded caches.")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_NONE = (errno.ENODATA, errno.EOPNOTSUPP)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A directory of a mount.")]


@app.command("set")
def set_(
    directory: Directory,
    size: Annotated[
        str, typer.Option("--bytes", metavar="N", help="At most so much: 10G is 10 GiB.")
    ],
    policy: Annotated[
        str, typer.Option("--policy", metavar="P", help="What goes first: lru, lfu or s3-fifo.")
    ] = "lru",
    ttl: Annotated[
        str,
        typer.Option("--ttl", metavar="T", help="Files not used for so long go: 90s, 2h, 7d."),
    ] = "0",
) -> None:
    """Bound what is in a directory and below: when it is full, files that were not used go.

    Who sets it again changes bound, policy and time. Files whose names say that they are
    temporary, and files open for writing, are never taken."""
    try:
        settings = CacheSettings(_bytes(size), policy, _seconds(ttl))
    except FsError as error:
        raise CliError(error.detail, status=EXIT_USAGE) from None
    try:
        os.setxattr(directory, CACHE_XATTR, settings.pack())
    except OSError as error:
        raise _explained(directory, error) from None


@app.command("show")
def show(directory: Directory, as_json: JsonOption = False) -> None:
    """Bound, policy, and what is in it now."""
    here = directory.resolve()
    found = _read(here)
    while found is None:
        if here.parent == here or os.path.ismount(here):
            raise CliError(f"{directory} is in no cache", hint="superfs cache set DIR --bytes N")
        here = here.parent
        found = _read(here)
    settings, usage = found
    values = {
        "directory": str(here), "bytes_max": settings.bytes_max, "policy": settings.policy,
        "ttl_s": settings.ttl_s, **usage,
    }  # fmt: skip
    if as_json:
        print_json(values)
        return
    ttl = f", files go {settings.ttl_s} s after their last use" if settings.ttl_s else ""
    share = 100 * usage["bytes"] / settings.bytes_max
    say(f"{here}: {settings.policy}{ttl}")
    say(
        f"  {usage['bytes']:,} of {settings.bytes_max:,} bytes ({share:.1f}%) "
        f"in {usage['files']:,} files"
    )
    say(f"  evicted so far: {usage['evicted_files']:,} files, {usage['evicted_bytes']:,} bytes")
    if usage["filing"]:
        say("  directories that came or went are still being counted")


@app.command("unset")
def unset(directory: Directory) -> None:
    """The directory is an ordinary one again. Nothing in it goes."""
    try:
        os.removexattr(directory, CACHE_XATTR)
    except OSError as error:
        raise _explained(directory, error) from None


def _read(directory: Path) -> tuple[CacheSettings, dict[str, int]] | None:
    try:
        settings = parse_settings(os.getxattr(directory, CACHE_XATTR))
        words = parse_words(os.getxattr(directory, USAGE_XATTR))
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    return settings, {name: int(text) for name, text in words.items()}


def _explained(directory: Path, error: OSError) -> CliError:
    if error.errno == errno.EOPNOTSUPP:
        return CliError(f"{directory} is not in a mount of SuperFS")
    if error.errno == errno.ENODATA:
        return CliError(f"{directory} is no cache", hint=f"superfs cache show {directory}")
    if error.errno in (errno.EPERM, errno.EACCES):
        return CliError(f"{directory}: only its owner and root may do that")
    return CliError(f"{directory}: {error.strerror}")


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise CliError(f"not a size: {text!r}", hint="bytes, or as 512M or 1.5T", status=EXIT_USAGE)
    return int(float(found[1]) * 1024 ** " KMGTP".index(found[2].upper() or " "))


def _seconds(text: str) -> int:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise CliError(
            f"not a time: {text!r}", hint="seconds, or as 90s, 30m, 2h, 7d", status=EXIT_USAGE
        )
    return int(float(found[1]) * _SECONDS[found[2]])
