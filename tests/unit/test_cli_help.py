"""Every command says what it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from superfs.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401
    for name, command in group.commands.items():
        here = (*path, name)
        yield here
        if hasattr(command, "commands"):
            yield from commands(command, here)


ALL = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0, shown.exception
    assert "Usage" in shown.output


def test_where_to_mount_from_is_shown_as_it_is_written() -> None:
    shown = CliRunner().invoke(app, ["mount", "--help"], terminal_width=200)
    assert "[/SUBDIR]" in shown.output
