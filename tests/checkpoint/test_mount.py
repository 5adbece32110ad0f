"""Checkpoints on the mount: as in any directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.ranks import RankFailed
from superfs.checkpoint import directory

if TYPE_CHECKING:
    from pathlib import Path

    from harness.ranks import Ranks

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def test_what_is_saved_on_the_mount_comes_back(ranks: Ranks, place: Path) -> None:
    ranks.run("round_trip", 2, str(place / "c"), {"step": 3, "names": ("a", b"b")}, {}, {})
    ranks.run("save_as", 4, str(place / "hsdp"), "hsdp")
    ranks.run("load_as", 3, str(place / "hsdp"), "fsdp")
    ranks.run("save_as", 2, str(place / "ddp"), "ddp")
    stored = sum(file.stat().st_size for file in (place / "ddp").glob("*.data"))
    for _ in range(10):  # others drop pages: tests beside this one, and late news of the saves
        ranks.run("load_as", 2, str(place / "ddp"), "ddp", share="never")
        found = ranks.run("load_as", 2, str(place / "ddp"), "ddp")
        if all(counted["bytes_read"] >= 0.99 * stored for counted in found):
            break
    else:
        pytest.fail("what is in memory was read for one another")
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
