"""`superfs ckpt`, other formats, and our balance with the stock writer."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon import BIN
from harness.ranks import RankFailed
from superfs.checkpoint import safetensors
from superfs.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from harness.ranks import Ranks


def ckpt(*words: object, status: int = 0) -> str:
    said, found = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(["ckpt", *map(str, words)])
        except SystemExit as ended:
            found = int(ended.code or 0)
    assert found == status, said.getvalue()
    return said.getvalue()


def convert(ranks: Ranks, *words: object, status: int = 0) -> str:
    """Where PyTorch is imported already: that takes seconds."""
    [(found, said)] = ranks.run("ckptstock:command", 1, ["ckpt", "convert", *map(str, words)])
    assert found == status, said
    return str(said)


def convert_by_itself(*words: object, status: int = 0) -> str:
    command = [str(BIN / "superfs"), "ckpt", "convert", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def as_json(*words: object, status: int = 0) -> Any:  # noqa: ANN401
    return json.loads(ckpt(*words, "--json", status=status))


def test_ls_inspect_and_gc(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run("ckptstock:save_nested", 2, str(tmp_path / "a"))
    ranks.run("own_round_trip", 2, str(tmp_path / "b"))
    with pytest.raises(RankFailed):
        ranks.run("ckptfaults:save_and_die", 2, str(tmp_path), "before-rename", 0, False)
    rows = as_json("ls", tmp_path)
    assert [(r["name"], r["state"]) for r in rows] == [
        *(("a", "committed"), ("b", "committed"), ("step-0", "committed")),
        ("step-1", "attempt"),
    ]
    assert "never committed" in ckpt("ls", tmp_path)
    found = as_json("inspect", tmp_path / "a")
    assert found["same"] == {"model.tied": "model.w1"}
    assert found["objects"]["optim.betas"] == {"$tuple": [0.9, 0.999]}
    assert [t["name"] for t in found["tensors"]] == [f"model.w{n}" for n in range(6)]
    assert "tied to model.w1" in ckpt("inspect", tmp_path / "a")
    assert [t["rank"] for t in as_json("inspect", tmp_path / "b")["tensors"]] == [0, 1, None]

    assert as_json("gc", tmp_path) == [], "it may still be being written"
    [attempt] = tmp_path.glob(".step-1.*")
    hours_ago = time.time() - 7200
    for where in (attempt, *attempt.iterdir()):
        os.utime(where, (hours_ago, hours_ago))
    [would] = as_json("gc", tmp_path, "--dry-run")
    assert (would["path"], would["removed"]) == (str(attempt), False)
    assert attempt.exists()
    ckpt("gc", tmp_path)
    assert not attempt.exists()
    assert len(as_json("ls", tmp_path)) == 3
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"w1", b"w8", 1))
    [found] = [r for r in as_json("ls", tmp_path) if r["state"] == "unreadable"]
    assert (found["name"], "does not match its own hash" in found["why"]) == ("a", True)
    assert "unreadable" in ckpt("ls", tmp_path)


def test_verify_finds_all_damage(ranks: Ranks, tmp_path: Path) -> None:
    where = tmp_path / "c"
    ranks.run("save_plain", 1, str(where), 5_000_000)
    assert "clean" in ckpt("verify", where)
    raw = bytearray((where / "r00000.data").read_bytes())
    raw[10] ^= 1
    raw[9_000_000] ^= 1
    (where / "r00000.data").write_bytes(raw)
    [found] = as_json("verify", where, status=1)
    assert [d["what"] for d in found["damage"]] == [
        "block 0 of tensor 'w'",
        "block 2 of tensor 'w'",
    ]
    assert "r00000.data at 8388608: block 2 of tensor 'w'" in ckpt("verify", where, status=1)
    assert "there is no checkpoint" in ckpt("verify", tmp_path / "no", status=1)


def test_diff(ranks: Ranks, tmp_path: Path) -> None:
    for name, layout, world in (("a", "ddp", 2), ("b", "fsdp", 4), ("c", "tp", 3)):
        ranks.run("save_as", world, str(tmp_path / name), layout)
    assert ckpt("diff", tmp_path / "a", tmp_path / "b") == "equal\n"
    assert ckpt("diff", tmp_path / "b", tmp_path / "c") == "equal\n"
    ranks.run("save_plain", 1, str(tmp_path / "d"), 100)
    ranks.run("save_plain", 2, str(tmp_path / "e"), 100, 2.0)
    ranks.run("save_plain", 2, str(tmp_path / "f"), 101)
    assert as_json("diff", tmp_path / "d", tmp_path / "e", status=1) == [
        {"name": "w", "kind": "contents", "detail": ""}
    ]
    [only] = as_json("diff", tmp_path / "d", tmp_path / "f", status=1)
    assert (only["name"], only["kind"]) == ("w", "type")


def test_convert_there_and_back(ranks: Ranks, tmp_path: Path) -> None:
    ours, stock, back = tmp_path / "ours", tmp_path / "stock", tmp_path / "back"
    ranks.run("ckptstock:save_nested", 2, str(ours))
    convert_by_itself(ours, stock, "--to", "dcp")
    ranks.run("ckptstock:load_nested", 2, str(stock), False)
    assert "--allow-pickle" in convert(ranks, stock, back, status=1)
    convert(ranks, stock, back, "--allow-pickle")
    ranks.run("ckptstock:load_nested", 2, str(back), True)
    assert ckpt("diff", ours, back) == "equal\n"
    convert(ranks, ours, tmp_path / "m.safetensors")
    convert(ranks, tmp_path / "m.safetensors", tmp_path / "tensors")
    found = as_json("diff", ours, tmp_path / "tensors", status=1)
    assert {(d["name"], d["kind"]) for d in found} == {
        ("optim.step", "only-left"),
        ("optim.betas", "only-left"),
    }
    assert "is there already" in convert(ranks, ours, tmp_path / "m.safetensors", status=1)


def test_what_ranks_stored_for_themselves_becomes_nobody_elses(
    ranks: Ranks, tmp_path: Path
) -> None:
    own, again = tmp_path / "[red]own", tmp_path / "again"
    ranks.run("own_round_trip", 2, str(own))
    convert(ranks, own, again)
    found = as_json("inspect", again)
    assert ([t["name"] for t in found["tensors"]], found["objects"]) == (["w"], {})
    assert {d["kind"] for d in as_json("diff", own, again, status=1)} == {"only-left"}
    assert "[red]own" in ckpt("ls", tmp_path), "a name is no markup"


def test_a_tensor_in_two_files_is_not_chosen_from(tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for name in ("a", "b"):
        safetensors.write(many / f"{name}.safetensors", [("w", "uint8", (1,))], [b"x"], {})
    assert "is in two files" in convert_by_itself(many, tmp_path / "x", status=1)


@pytest.mark.parametrize(("layout", "world"), [("plain", 4), ("hsdp", 4), ("ddp", 3)])
def test_the_stock_writer_with_our_balance(
    ranks: Ranks, tmp_path: Path, layout: str, world: int
) -> None:
    written = ranks.run("ckptstock:stock_round_trip", world, str(tmp_path / "c"), layout, True)
    total = sum(written)
    assert max(written) <= 1.02 * total / world + 2**20


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_exported_is_read_by_the_stock_reader(
    ranks: Ranks, tmp_path: Path, asynchronous: bool
) -> None:
    for layout, world in (("plain", 2), ("hsdp", 4)):
        where = str(tmp_path / layout)
        ranks.run("ckptstock:export_round_trip", world, where, layout, asynchronous)
        assert ckpt("verify", where).count("clean") == 1
