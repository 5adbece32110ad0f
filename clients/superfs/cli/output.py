"""What a person or a script sees: errors with what to do, tables, JSON, exit statuses."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 78  # sysexits.h EX_CONFIG: starting again will not help


class CliError(Exception):
    """Ends the command: what is wrong, and what to do about it."""

    def __init__(self, message: str, *, hint: str = "", status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


def report(error: CliError) -> None:
    print(f"superfs: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


def say(text: str) -> None:
    print(text, flush=True)


def warn(text: str) -> None:
    print(f"superfs: {text}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:  # noqa: ANN401
    json.dump(value, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


def console(width: int | None = None) -> Console:
    """`width` where the terminal's own is not to count."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=width)


def printable(name: bytes) -> str:
    """A name as a terminal may show it: no control characters, nothing undecodable."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
