"""Checkpoints past a mount whose daemons cannot be reached."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

import pytest

from superfs.checkpoint import direct
from superfs.client.config import ClientConfig
from superfs.client.fs import FileSystem

if TYPE_CHECKING:
    from pathlib import Path


def test_what_cannot_be_reached_is_not_tried_for_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ClientConfig((f"unix:{tmp_path}/none",), tmp_path / "token")
    tried: list[ClientConfig] = []

    def connect(config: ClientConfig) -> NoReturn:
        tried.append(config)
        raise OSError("after half a minute")

    now = [100.0]
    monkeypatch.setattr(FileSystem, "connect", connect)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(direct, "_unreachable", {})
    for _ in range(3):
        with pytest.raises(OSError, match="half a minute"):
            direct._connection(config)
    assert len(tried) == 1
    now[0] += direct.UNREACHABLE_S + 1
    with pytest.raises(OSError, match="half a minute"):
        direct._connection(config)
    assert len(tried) == 2
