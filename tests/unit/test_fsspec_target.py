"""Which cluster `superfs://` means: the same as the command line does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from superfs.cli.home import Home
from superfs.cli.options import ENV_DIR, target_of
from superfs.fsspec.target import SYSTEM_TOKEN, Target, find_target

if TYPE_CHECKING:
    from pathlib import Path


def make_home(path: Path) -> Path:
    path.mkdir()
    home = Home.at(path)
    home.make_dirs()
    home.key_file.touch()
    home.token_file.touch()
    return path


def test_agrees_with_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENV_DIR, raising=False)
    token = tmp_path / "token"
    token.touch()
    make_home(tmp_path / ".superfs")
    far = make_home(tmp_path / ("deep" * 30))
    for directory in (None, far):
        for mine in (None, token):
            theirs = target_of(directory, None, mine)
            assert find_target(directory, None, mine) == Target(theirs.cluster, theirs.token_file)
    monkeypatch.setenv(ENV_DIR, str(far))
    assert find_target(None, None, None).cluster == target_of(None, None, None).cluster
    named = target_of(None, ["unix:/a", "b:1"], token)
    for cluster in ("unix:/a, b:1", ["unix:/a", "b:1"]):
        assert find_target(None, cluster, token) == Target(named.cluster, token)


def test_refusals(tmp_path: Path) -> None:
    assert find_target(None, "b:1", None, 5.0) == Target(("b:1",), SYSTEM_TOKEN, 5.0)
    with pytest.raises(ValueError, match="exclude"):
        find_target(tmp_path, "b:1", None)
    with pytest.raises(FileNotFoundError, match="holds no SuperFS cluster"):
        find_target(tmp_path, None, None)
