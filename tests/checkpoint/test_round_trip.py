"""What is saved comes back bit for bit, in any layout, by any number of ranks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from superfs.checkpoint.limits import BLOCK_BYTES, MIB

if TYPE_CHECKING:
    from pathlib import Path

    from harness.ranks import Ranks

OBJECTS = {
    "step": 7,
    "lr": 3e-4,
    "names": ["a", None, True],
    "tuple": (1, (2.5, "x")),
    "bytes": b"\0\xff",
    "keys": ({1: "one", (2, 3): "tuple"},),
    "set": {3},
    "complex": 1 - 2j,
    "nan": float("nan"),
}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("share", ["never", "always"])
def test_all_types_in_all_shapes(ranks: Ranks, tmp_path: Path, world: int, share: str) -> None:
    ranks.run("round_trip", world, str(tmp_path / "c"), OBJECTS, {}, {"share": share})


def test_tied_tensors_are_stored_once_and_ranks_write_their_share(
    ranks: Ranks, tmp_path: Path
) -> None:
    ranks.run("round_trip", 2, str(tmp_path / "c"), {}, {}, {})
    body = json.loads((tmp_path / "c" / "manifest.json").read_text())["body"]
    assert body["same"] == {"tied": "three"}
    sizes = [size for _, size in body["files"]]
    assert max(sizes) - min(sizes) <= MIB
    assert sum(sizes) < 1.1 * sum(p.stat().st_size for p in (tmp_path / "c").glob("*.data"))


LAYOUTS = {2: ["plain"], 3: ["tp"], 4: ["ddp", "fsdp", "hsdp", "fsdp-tp"]}


def test_any_layout_loads_into_any_other(ranks: Ranks, tmp_path: Path) -> None:
    where, saved = str(tmp_path), [one for layouts in LAYOUTS.values() for one in layouts]
    for world, layouts in LAYOUTS.items():
        ranks.run("save_all_as", world, where, layouts)
    for world, layouts, share in (
        (4, ["ddp", "fsdp", "hsdp", "tp", "fsdp-tp"], "never"),
        (3, ["fsdp", "tp", "plain"], "always"),
        (1, ["plain"], "auto"),
    ):
        ranks.run("load_each_as", world, where, saved, layouts, share)


def test_read_together_each_byte_leaves_storage_once_a_host(ranks: Ranks, tmp_path: Path) -> None:
    where = str(tmp_path / "c")
    ranks.run("save_as", 2, where, "ddp")
    stored = sum(
        size
        for _, size in json.loads((tmp_path / "c" / "manifest.json").read_text())["body"]["files"]
    )
    layouts = ["ddp", "fsdp", "tp"]
    for counted in zip(*ranks.run("load_all_as", 4, where, layouts, share="always"), strict=True):
        assert sum(one["bytes_read"] for one in counted) <= 1.05 * stored
    alone = ranks.run("load_as", 4, where, "ddp", share="never")
    assert sum(one["bytes_read"] for one in alone) > 3.9 * stored


def test_a_part_is_loaded_without_the_rest(ranks: Ranks, tmp_path: Path) -> None:
    where = str(tmp_path / "c")
    ranks.run("save_as", 2, where, "ddp")
    [counted, _] = ranks.run("load_part", 2, where, ["w0"])
    assert counted["bytes_read"] <= 37 * 1000 * 4 + 2 * BLOCK_BYTES


def test_what_ranks_load_does_not_go_over_the_coordinator(ranks: Ranks, tmp_path: Path) -> None:
    where, size = str(tmp_path / "c"), 300_000
    ranks.run("save_plain", 2, where, size)
    [(seen, whole, first), (_, again, _)] = ranks.run("load_watched", 2, where, size)
    assert seen == [0, 0]
    assert whole == again == size
    assert first == 10, "what another planner has left out there is not read"


def test_each_rank_gets_its_own_back(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run("own_round_trip", 3, str(tmp_path / "c"))


def test_plans_are_remembered_until_anything_changes_on_any_rank(
    ranks: Ranks, tmp_path: Path
) -> None:
    for found in ranks.run("remembered", 2, str(tmp_path / "c")):
        assert [one["plans_made"] for one in found] == [1, 1, 2, 2]


def test_what_is_changed_after_staging_is_not_saved(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run("staged_apart", 2, str(tmp_path / "c"), 4)


def test_what_does_not_fit_the_arena_goes_in_waves(ranks: Ranks, tmp_path: Path) -> None:
    for arena_bytes in ranks.run("staged_apart", 2, str(tmp_path / "c"), 2, BLOCK_BYTES):
        assert arena_bytes == BLOCK_BYTES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c-0", "c-1"]


def test_at_most_one_save_in_flight(ranks: Ranks, tmp_path: Path) -> None:
    for outcome in ranks.run("while_one_is_written", 2, str(tmp_path / "fail"), "fail"):
        assert outcome[0] == "saved"
        assert "previous save is not over on rank" in outcome[1]
    for policy in ("skip", "wait"):
        found = ranks.run("while_one_is_written", 2, str(tmp_path / policy), policy)
        assert found == [["saved", "saved"]] * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fail-0", "skip-0", "wait-0", "wait-1"]


def test_a_skipped_save_counts_until_dcp_is_through_with_it(ranks: Ranks, tmp_path: Path) -> None:
    for outcome in ranks.run("ckptfaults:while_one_is_being_skipped", 2, str(tmp_path / "c")):
        assert outcome[:2] == ["saved", "saved"], "DCP does not know that it was skipped"
        assert "previous save is not over on rank" in outcome[2]
        assert outcome[3] == "saved"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c-0", "c-3"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_saves_in_a_loop_leave_nothing(ranks: Ranks, tmp_path: Path, asynchronous: bool) -> None:
    for found in ranks.run("many_saves", 2, str(tmp_path / "c"), 60, asynchronous):
        memory, descriptors, threads = zip(*found[19:], strict=True)
        assert memory[-1] <= memory[0] + 16 * MIB
        assert descriptors[-1] <= descriptors[0]
        assert threads[-1] <= threads[0]
