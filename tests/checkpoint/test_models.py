"""Modules as FSDP2 and tensor parallelism lay them out load into any other such layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.ranks import RankFailed

if TYPE_CHECKING:
    from pathlib import Path

    from harness.ranks import Ranks

FOUR = ["fsdp", "hsdp", "fsdp-tp", "tp-fsdp"]
TWO = ["fsdp", "tp", "plain"]


@pytest.mark.parametrize(
    ("how", "world"),
    [*((how, 4) for how in FOUR), ("fsdp", 3), ("tp", 2), ("plain", 1)],
)
def test_any_arrangement_loads_into_any_other(
    ranks: Ranks, tmp_path: Path, how: str, world: int
) -> None:
    where = str(tmp_path / "c")
    ranks.run("ckptmodels:save_model", world, where, how)
    ranks.run("ckptmodels:load_models", 4, where, FOUR, "never")
    ranks.run("ckptmodels:load_models", 2, where, TWO, "always")
    ranks.run("ckptmodels:load_models", 3, where, ["fsdp"], "always")


def test_equality_that_no_layout_promises_is_checked(ranks: Ranks, tmp_path: Path) -> None:
    words = r"'model\.layers\.1\.norm\.weight' should be the same.*rank 2.*rank 3"
    with pytest.raises(RankFailed, match=words) as caught:
        ranks.run("ckptmodels:save_drifted", 4, str(tmp_path / "c"))
    assert all(caught.value.texts)
    assert list(tmp_path.iterdir()) == []
