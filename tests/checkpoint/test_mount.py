"""Checkpoints on the mount: as in any directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.ranks import RankFailed
from superfs.checkpoint import directory

if TYPE_CHECKING:
    from harness.ranks import Ranks

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def _drops() -> int:
    """How often somebody has had the kernel drop its page cache."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("drop_pagecache "))


def test_what_is_saved_on_the_mount_comes_back(ranks: Ranks, place: Path) -> None:
    ranks.run("round_trip", 2, str(place / "c"), {"step": 3, "names": ("a", b"b")}, {}, {})
    ranks.run("save_as", 4, str(place / "hsdp"), "hsdp")
    ranks.run("load_as", 3, str(place / "hsdp"), "fsdp")
    ranks.run("save_as", 2, str(place / "ddp"), "ddp")
    stored = sum(file.stat().st_size for file in (place / "ddp").glob("*.data"))
    drops, found = -1, []
    while drops != _drops():  # tests beside this one empty the machine's caches
        drops = _drops()
        ranks.run("load_as", 2, str(place / "ddp"), "ddp", share="never")
        found = ranks.run("load_as", 2, str(place / "ddp"), "ddp")
    for counted in found:
        assert counted["bytes_read"] >= 0.99 * stored, "in memory: nobody reads for another"
    ranks.run("staged_apart", 2, str(place / "async"), 2)
    assert len(directory.committed(place)) == 5
    assert directory.attempts(place) == []


def test_a_kill_during_a_save_on_the_mount(ranks: Ranks, place: Path) -> None:
    with pytest.raises(RankFailed):
        ranks.run("ckptfaults:save_and_die", 2, str(place), "before-sync", 1, False)
    [newest] = directory.committed(place)
    assert ranks.run("load_step", 2, str(newest)) == [0, 0]
    with pytest.raises(RankFailed, match="never overwritten"):
        ranks.run("save_plain", 2, str(newest), 1000)
