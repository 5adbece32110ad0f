"""Modules as FSDP2 and tensor parallelism lay them out load into any other such layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.ranks import RankFailed

if TYPE_CHECKING:
    from pathlib import Path

    from harness.ranks import Ranks

FOUR = ["fsdp", "hsdp", "fsdp-tp", "tp-fsdp"]
SAVED = [*(f"{how}4" for how in FOUR), "fsdp3", "tp2", "plain1"]


def test_any_arrangement_loads_into_any_other(ranks: Ranks, tmp_path: Path) -> None:
    root = str(tmp_path)
    for world, arrangements in ((4, FOUR), (3, ["fsdp"]), (2, ["tp"]), (1, ["plain"])):
        ranks.run("ckptmodels:save_models", world, root, arrangements)
    pairs = [(saved, "fsdp-tp") for saved in SAVED if saved != "fsdp-tp4"]
    pairs += [("fsdp-tp4", how) for how in FOUR if how != "fsdp-tp"]
    ranks.run("ckptmodels:load_models", 4, root, pairs, "always")
    pairs = [("fsdp-tp4", "fsdp"), ("tp-fsdp4", "tp"), ("hsdp4", "tp"), ("fsdp3", "plain")]
    ranks.run("ckptmodels:load_models", 2, root, pairs, "never")
    ranks.run("ckptmodels:load_models", 3, root, [("fsdp-tp4", "fsdp"), ("tp2", "fsdp")], "auto")


def test_equality_that_no_layout_promises_is_checked(ranks: Ranks, tmp_path: Path) -> None:
    words = r"'model\.layers\.1\.norm\.weight' should be the same.*rank 2.*rank 3"
    with pytest.raises(RankFailed, match=words) as caught:
        ranks.run("ckptmodels:save_drifted", 4, str(tmp_path / "c"))
    assert all(caught.value.texts)
    assert list(tmp_path.iterdir()) == []
