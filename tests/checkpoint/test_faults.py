"""Whatever dies or is damaged, the newest committed checkpoint loads, and errors name what is."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.ranks import RankFailed, Ranks
from superfs.checkpoint import directory
from superfs.checkpoint.contents import Contents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 2_500_000
ON_ALL = (
    *("before-agreement", "records-exchanged", "plan-received", "file-created"),
    *("piece-written", "before-sync", "after-sync"),
)
ON_COORDINATOR = ("attempt-begun", "all-written", "manifest-written", "before-rename")
KILLS = [(step, rank) for step in ON_ALL for rank in (0, 1)] + [(s, 0) for s in ON_COORDINATOR]


@pytest.mark.parametrize(("step", "rank"), [*KILLS, ("after-rename", 0)])
def test_a_rank_is_killed_during_a_save(ranks: Ranks, tmp_path: Path, step: str, rank: int) -> None:
    with pytest.raises(RankFailed) as caught:
        ranks.run("ckptfaults:save_and_die", 2, str(tmp_path), step, rank, False)
    assert caught.value.texts[rank] == "ended: -9"
    assert caught.value.texts[1 - rank] not in ("", "too late"), "the survivor was told"
    newest = directory.committed(tmp_path)[-1]
    assert newest.name == ("step-1" if step == "after-rename" else "step-0")
    [loaded] = ranks.run("load_step", 1, str(newest))
    assert loaded == int(newest.name[-1])


@pytest.mark.parametrize(
    ("step", "rank"),
    [(s, r) for s in ("before-wave", "before-delivery", "after-delivery") for r in (0, 1)]
    + [("before-rename", 0)],
)
def test_a_rank_is_killed_during_a_save_in_the_background(
    ranks: Ranks, tmp_path: Path, step: str, rank: int
) -> None:
    with pytest.raises(RankFailed) as caught:
        ranks.run("ckptfaults:save_and_die", 2, str(tmp_path), step, rank, True)
    assert all(text not in ("", "too late") for text in caught.value.texts)
    [newest] = directory.committed(tmp_path)
    assert ranks.run("load_step", 2, str(newest)) == [0, 0]


def test_a_writer_process_is_killed(ranks: Ranks, tmp_path: Path) -> None:
    said = ranks.run("ckptfaults:save_without_courier", 2, str(tmp_path))
    assert all("the writer process has ended" in text for text in said)
    assert [path.name for path in directory.committed(tmp_path)] == ["step-0", "step-2"]
    assert directory.attempts(tmp_path) == []
    assert ranks.run("load_step", 2, str(tmp_path / "step-2")) == [2, 2]


def test_an_attempt_is_never_loaded(ranks: Ranks, tmp_path: Path) -> None:
    with pytest.raises(RankFailed):
        ranks.run("ckptfaults:save_and_die", 2, str(tmp_path), "before-rename", 0, False)
    [(name, _, where)] = directory.attempts(tmp_path)
    assert name == "step-1"
    assert (where / "manifest.json").exists()
    with pytest.raises(RankFailed, match="only an attempt at one that was never committed"):
        ranks.run("load_step", 2, str(tmp_path / "step-1"))


def test_a_committed_checkpoint_is_never_overwritten(ranks: Ranks, tmp_path: Path) -> None:
    where = tmp_path / "c"
    ranks.run("save_plain", 2, str(where), SIZE)
    before = {p.name: p.read_bytes() for p in where.iterdir()}
    with pytest.raises(RankFailed, match=r"never overwritten.*write to another path") as caught:
        ranks.run("save_plain", 2, str(where), SIZE, 2.0)
    assert all(caught.value.texts)
    assert {p.name: p.read_bytes() for p in where.iterdir()} == before
    assert directory.attempts(tmp_path) == []


def test_of_several_savers_to_one_path_one_wins(ranks: Ranks, tmp_path: Path) -> None:
    said = ranks.run("ckptfaults:race", 3, str(tmp_path / "c"), 5000)
    assert said.count("won") == 1
    assert sum("which is never overwritten" in text for text in said) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert ranks.run("load_step", 2, str(tmp_path / "c"), 5000) == [said.index("won")] * 2


def test_who_loads_while_another_saves_gets_what_was_committed(
    ranks: Ranks, tmp_path: Path
) -> None:
    assert ranks.run("ckptfaults:load_while_saving", 2, str(tmp_path), 5000) == [[0, 1]] * 2


def test_a_process_of_dcps_own_is_refused_and_holds_nothing_up(
    ranks: Ranks, tmp_path: Path
) -> None:
    for said, took_s in ranks.run("ckptfaults:refused_by_process", 2, str(tmp_path / "c")):
        assert "use async_save with its default" in said
        assert took_s < 30, "a save that never starts is waited for twice as long"


def test_a_flipped_bit_anywhere_is_seen_unless_nothing_is_there(
    ranks: Ranks, tmp_path: Path
) -> None:
    where = tmp_path / "c"
    ranks.run("save_plain", 2, str(where), 300_000)
    with Contents(where) as contents:
        found = contents.manifest
    pieces = [p for t in found.tensors for s in t.shards for p in s.pieces]
    used = [(p.file, p.offset, p.length) for p in pieces]
    used += [(o.file, o.offset, o.length) for o in found.objects]
    chance = random.Random(1)
    for number, (name, size) in enumerate(found.files):
        for at in {0, size - 1, *(chance.randrange(size) for _ in range(40))}:
            flip(where / name, at)
            with Contents(where) as contents:
                damage = contents.verify().damage
            flip(where / name, at)
            assert len(damage) == any(f == number and a <= at < a + n for f, a, n in used), at


def flip(file: Path, at: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[at] ^= 0x10
    file.write_bytes(raw)


@pytest.mark.parametrize(
    ("what", "step"),
    [
        *(("save", "before-agreement"), ("save", "records-exchanged"), ("save", "piece-written")),
        *(("async", "before-agreement"), ("async", "before-delivery"), ("load", "before-reading")),
    ],
)
def test_a_rank_that_stops_is_missed_in_time(
    ranks: Ranks, tmp_path: Path, what: str, step: str
) -> None:
    with pytest.raises(RankFailed) as caught:
        ranks.run("ckpthangs:wait_for_the_stopped", 2, str(tmp_path), what, step)
    assert caught.value.texts[1] == "ended: -9", "by the other one, which returned"
    assert caught.value.texts[0] == "", "what it returned is not an error"
    assert [path.name for path in directory.committed(tmp_path)] == ["good"]


@pytest.mark.parametrize("share", ["never", "always"])
def test_a_flipped_bit_is_found_and_named(ranks: Ranks, tmp_path: Path, share: str) -> None:
    where = tmp_path / "c"
    ranks.run("save_plain", 1, str(where), SIZE)
    flip(where / "r00000.data", 5_000_000)
    with pytest.raises(RankFailed, match=r"r00000\.data.*block 1 of tensor 'w'") as caught:
        ranks.run("load_plain", 2, str(where), SIZE, share)
    assert all(caught.value.texts), "on every rank"


def test_a_rank_without_memory_holds_up_nobody(ranks: Ranks, tmp_path: Path) -> None:
    job = "ckptfaults:load_without_memory"
    ranks.run("save_plain", 1, str(tmp_path / "c"), 300_000)
    for said, soon in ranks.run(job, 2, str(tmp_path / "c"), 300_000):
        assert "rank 1: MemoryError" in said
        assert soon, "it waited until the group's time was up"


def test_other_damage_is_named_too(ranks: Ranks, tmp_path: Path) -> None:
    good = tmp_path / "good"
    ranks.run("save_plain", 2, str(good), SIZE)

    def damaged(name: str) -> Path:
        shutil.copytree(good, tmp_path / name)
        return tmp_path / name

    cut = damaged("cut")
    with (cut / "r00001.data").open("r+b") as file:
        file.truncate(1000)
    missing = damaged("missing")
    (missing / "r00001.data").unlink()
    changed = damaged("changed")
    flip(changed / "manifest.json", 300)
    foreign = damaged("foreign")
    shutil.copy(good / "r00000.data", foreign / "r00001.data")
    stock = damaged("stock")
    (stock / "manifest.json").rename(stock / ".metadata")
    note = damaged("note")
    flip(note / "r00000.data", (note / "r00000.data").stat().st_size - 3)
    for where, words in (
        (cut, "r00001.data has 1000 bytes where"),
        (missing, "r00001.data is missing"),
        (changed, "does not match its own hash"),
        (foreign, "r00001.data"),
        (stock, "load it with FileSystemReader"),
        (note, "do not match their hash: the objects 'note'"),
        (tmp_path / "nothing", "there is no checkpoint at"),
    ):
        with pytest.raises(RankFailed, match=words) as caught:
            ranks.run("load_plain", 2, str(where), SIZE)
        assert all(caught.value.texts), where


@pytest.mark.parametrize(
    ("step", "rank"),
    [(s, r) for s in ("file-created", "before-sync") for r in (0, 1)] + [("manifest-written", 0)],
)
def test_a_full_disk_is_an_error_on_every_rank(
    ranks: Ranks, tmp_path: Path, step: str, rank: int
) -> None:
    with pytest.raises(RankFailed, match="No space left") as caught:
        ranks.run("ckptfaults:fail_on", 2, str(tmp_path / "c"), step, rank)
    assert all("No space left" in text for text in caught.value.texts)
    ranks.run("save_plain", 2, str(tmp_path / "c"), 1000)
    ranks.run("load_plain", 2, str(tmp_path / "c"), 1000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root mounts a tmpfs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_disk_that_is_full_in_earnest(ranks: Ranks, small_disk: Path, asynchronous: bool) -> None:
    """The error says what, where and what to do; what was committed loads; with room it goes on."""
    size = 1_500_000  # of float32: two fit
    job = "ckptfaults:save_until_full"
    for number, text in ranks.run(job, 2, str(small_disk), size, asynchronous):
        assert number == 2
        assert "No space left on the file system" in text
        assert f"{small_disk}/.step-02.superfs-attempt-" in text
        assert "of 16.0 MiB are free" in text
        assert "superfs ckpt gc" in text
    assert [path.name for path in directory.committed(small_disk)] == ["step-00", "step-01"]
    assert directory.attempts(small_disk) == []
    assert ranks.run("load_step", 2, str(small_disk / "step-01"), size) == [1, 1]
    shutil.rmtree(small_disk / "step-00")
    ranks.run("save_plain", 2, str(small_disk / "again"), size)
    ranks.run("load_plain", 2, str(small_disk / "again"), size)


@pytest.mark.parametrize("verify", ["first", "always"])
def test_replicas_that_differ_are_an_error_that_names_them(
    ranks: Ranks, tmp_path: Path, verify: str
) -> None:
    saves = 1 if verify == "always" else 0
    words = r"'model\.buffer' should be the same.*one on ranks 0, 1, one on rank 2.*per_rank"
    with pytest.raises(RankFailed, match=words) as caught:
        ranks.run("save_differing", 3, str(tmp_path / "c"), [], verify, saves)
    assert all(caught.value.texts)
    assert directory.committed(tmp_path) == [tmp_path / f"c-{n}" for n in range(saves)]
    ranks.run("save_differing", 3, str(tmp_path / "own"), ["model.buffer"], verify, saves)


def test_replicas_among_what_only_some_hold(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run("save_unalike", 3, str(tmp_path / "c"))
    assert len(directory.committed(tmp_path)) == 3


def test_a_missing_key_is_an_error_on_every_rank(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run("save_as", 2, str(tmp_path / "c"), "ddp")
    with pytest.raises(RankFailed, match=r"Missing key.*step") as caught:
        ranks.run("load_step", 2, str(tmp_path / "c"))
    assert all(caught.value.texts)
