"""Second names and moves by a mount that does them by itself: cheap, seen by others at once."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from e2e.test_delegation import DATA, make, messages, mounts, sync
from superfs.client.delegation.shipping import SHIP_AFTER_S

if TYPE_CHECKING:
    from pathlib import Path

    from harness.mount import Mount

__all__ = ["mounts"]
pytestmark = [pytest.mark.fuse, pytest.mark.slow]
COUNT = 300


def test_second_names_and_moves_cost_next_to_no_messages(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    a, b = first.point / "a", first.point / "b"
    a.mkdir()
    b.mkdir()
    make(a, COUNT)
    before, started = messages(first), time.monotonic()
    for name in sorted(os.listdir(a)):
        os.link(a / name, b / name)
        (b / name).rename(a / f"of {name}")
        (a / name).unlink()
        (a / f"of {name}").rename(b / name)
    sync(b)
    aged = (time.monotonic() - started) / SHIP_AFTER_S  # parts of the log, however small
    assert messages(first) - before < COUNT / 4 + 2 * aged
    there = second.point / "b"
    assert os.listdir(second.point / "a") == []
    for number in range(COUNT):
        file = there / f"f{number:05d}"
        assert file.read_bytes() == DATA + b"%d" % number
        assert file.stat().st_nlink == 1


def test_another_mount_sees_and_changes_names_of_one_file(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    a, b = first.point / "a", first.point / "b"
    a.mkdir()
    b.mkdir()
    for number in range(20):
        name = f"f{number}"
        (a / name).write_bytes(DATA)
        os.link(a / name, b / name)
        assert (second.point / "b" / name).stat().st_nlink == 2
        os.link(b / name, a / f"more {name}")
        assert (second.point / "b" / name).stat().st_nlink == 3
        (second.point / "b" / name).unlink()
        assert (a / name).stat().st_nlink == 2
        with (second.point / "a" / name).open("ab") as file:
            file.write(b"more")
        assert (a / f"more {name}").read_bytes() == DATA + b"more"
        (a / name).unlink()
        assert (second.point / "a" / f"more {name}").stat().st_nlink == 1


def test_a_repository_is_made_and_cloned_with_hard_links(
    mounts: tuple[Mount, Mount], tmp_path: Path
) -> None:
    first, second = mounts

    def git(*words: str | Path, at: Path) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main"]
        done = subprocess.run(
            ["git", *who, "-c", "safe.directory=*", *words],
            cwd=at, check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.stdout + done.stderr

    repository = first.point / "repository"
    repository.mkdir()
    make(repository, 60)
    git("init", "-q", at=repository)
    git("add", "-A", at=repository)
    git("commit", "-qm", "all", at=repository)
    git("clone", "-q", repository, first.point / "clone", at=first.point)
    seen = second.point / "clone"
    assert git("status", "--short", at=seen) == ""
    assert "dangling" not in git("fsck", "--full", "--strict", at=seen)
    objects = [p for p in (seen / ".git" / "objects").rglob("*") if p.is_file()]
    assert len(objects) > 60
    assert all(p.stat().st_nlink == 2 for p in objects)
