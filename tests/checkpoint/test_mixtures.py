"""What looks like one state and is several: an error on all ranks, never a silent mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.ranks import RankFailed
from superfs.checkpoint import directory

if TYPE_CHECKING:
    from pathlib import Path

    from harness.ranks import Ranks


@pytest.mark.parametrize("share", ["never", "always"])
def test_ranks_that_load_different_checkpoints(ranks: Ranks, tmp_path: Path, share: str) -> None:
    """As when each looks for the newest, and one is committed meanwhile."""
    for number in range(2):
        ranks.run("save_plain", 2, str(tmp_path / f"step-{number}"), 1000)
    words = r"different checkpoints: .*step-0 on rank 0, .*step-1 on rank 1"
    with pytest.raises(RankFailed, match=words) as caught:
        ranks.run("ckptmixed:load_own_path", 2, str(tmp_path), share)
    assert all(caught.value.texts)


def test_a_name_that_is_a_tensor_on_some_ranks_only(ranks: Ranks, tmp_path: Path) -> None:
    with pytest.raises(RankFailed, match=r"'x' is a tensor on other ranks.*rank 1.*per_rank") as c:
        ranks.run("ckptmixed:save_two_kinds", 2, str(tmp_path / "c"), [])
    assert all(c.value.texts)
    assert directory.committed(tmp_path) == []
    ranks.run("ckptmixed:save_two_kinds", 2, str(tmp_path / "own"), ["x"])
    assert ranks.run("ckptmixed:load_two_kinds", 2, str(tmp_path / "own")) == [[1.0, 1.0], 5]


def test_dtensors_of_other_meshes_are_compared(ranks: Ranks, tmp_path: Path) -> None:
    """Each of two ranks replicates with a rank that does not save: their meshes are as large as the
    group that saves, and neither vouches for the other."""
    with pytest.raises(RankFailed, match=r"'w' should be the same on all ranks") as caught:
        ranks.run("ckptmixed:save_from_two_meshes", 4, str(tmp_path / "c"), True)
    assert [bool(text) for text in caught.value.texts] == [True, True, False, False]
    ranks.run("ckptmixed:save_from_two_meshes", 4, str(tmp_path / "c"), False)
    assert directory.committed(tmp_path) == [tmp_path / "c"]
