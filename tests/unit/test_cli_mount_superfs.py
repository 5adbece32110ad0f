"""systemd/mount.superfs: what mount(8) says, and what becomes of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "systemd" / "mount.superfs"
FAKE = """#!/bin/sh
printf '%s\\n' "$@" > "{words}"
exit {status}
"""


def run(tmp_path: Path, *words: str, status: int = 0) -> tuple[int, list[str], str]:
    """(exit status, what `superfs` was called with, standard error)"""
    fake, said = tmp_path / "superfs", tmp_path / "words"
    fake.write_text(FAKE.format(words=said, status=status))
    fake.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        [str(SCRIPT), *words], env=env, capture_output=True, text=True, check=False
    )
    called = said.read_text().splitlines() if said.exists() else []
    return done.returncode, called, done.stderr


def test_as_mount_calls_it(tmp_path: Path) -> None:
    generic = "rw,nosuid,_netdev,nofail,x-systemd.automount,noauto,user,comment=x,token=/t"
    status, called, _ = run(tmp_path, "node1:/sub", "/mnt", "-n", "-o", generic)
    assert status == 0
    expected = ["mount", "--source", "node1:/sub", "-o", "rw,nosuid,token=/t", "/mnt"]
    assert called == expected


def test_without_options(tmp_path: Path) -> None:
    status, called, _ = run(tmp_path, "node1:/", "/mnt", "-o", "defaults")
    assert (status, called) == (0, ["mount", "--source", "node1:/", "/mnt"])


def test_several_options_arguments_add_up(tmp_path: Path) -> None:
    _, called, _ = run(tmp_path, "node1:/", "/mnt", "-o", "ro", "-o", "noatime")
    assert "ro,noatime" in called


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 1, "usage"),
        (["node1:/"], 1, "usage"),
        (["node1:/", "/mnt", "-z"], 1, "usage"),
        (["node1:/", "/mnt", "more"], 1, "usage"),
        (["node1:/", "/mnt", "-t", "ext4"], 1, "usage"),
        (["node1:/", "/mnt", "-o", "remount,ro"], 32, "cannot be changed"),
        (["node1:/", "/mnt", "-o", "lazytime"], 32, "not supported"),
    ],
)
def test_what_is_refused(tmp_path: Path, words: list[str], status: int, says: str) -> None:
    got, called, error = run(tmp_path, *words)
    assert got == status
    assert called == []
    assert says in error


def test_sloppy_and_fake(tmp_path: Path) -> None:
    assert run(tmp_path, "node1:/", "/mnt", "-s", "-o", "lazytime")[0] == 0
    status, called, error = run(tmp_path / ".", "node1:/", "/mnt", "-v", "-f", "-o", "ro")
    assert status == 0
    assert "superfs mount" in error
    assert "ro" not in called, "nothing is done with -f"


@pytest.mark.parametrize(("superfs", "mount"), [(0, 0), (1, 32), (2, 1), (78, 32), (130, 8)])
def test_exit_statuses(tmp_path: Path, superfs: int, mount: int) -> None:
    assert run(tmp_path, "node1:/", "/mnt", status=superfs)[0] == mount
