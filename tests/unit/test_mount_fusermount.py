"""Mounting by fusermount3, with a program of that name that does something else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from superfs.mount import kernel
from superfs.mount.options import MountOptions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 0", "has passed no descriptor"),
        ("echo >&2 not today; exit 1", "not today"),
    ],
)
def test_one_that_passes_nothing(
    script: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "fusermount3"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(kernel.MountError, match=told):
        kernel.mount(tmp_path, "superfs", MountOptions())
