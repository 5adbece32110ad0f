"""The example is killed while it saves, and goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.ranks import RankFailed
from superfs.checkpoint import committed

if TYPE_CHECKING:
    from harness.ranks import Ranks

pytest.importorskip("transformers", reason="transformers is an extra: make .venv/.test")

TOP = Path(__file__).parents[2]
TEXT = [str(TOP / "README.md"), str(TOP / "docs" / "posix.md")]
SMALL = ["--hidden", "32", "--layers", "2", "--heads", "4", "--context", "32", "--quiet"]
STEPS, EVERY = 11, 4
Found = tuple[int, list[float], dict[int, int]]


def words(run: Path, dropout: float) -> list[str]:
    numbers = ["--steps", str(STEPS), "--save-every", str(EVERY), "--dropout", str(dropout)]
    return [*TEXT, "--checkpoints", str(run), *SMALL, *numbers]


@pytest.fixture(scope="module")
def whole(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Found]:
    """By dropout: what two ranks compute that nobody kills."""
    found = {}
    for dropout in (0.0, 0.2):
        run = tmp_path_factory.mktemp("whole")
        [found[dropout], _] = ranks.run("ckpttrain:train", 2, words(run, dropout))
    return found


@pytest.mark.parametrize(
    ("step", "rank", "newest"),
    [("before-delivery", 1, 4), ("after-rename", 0, 8)],
)
def test_killed_and_resumed_it_computes_the_same_bits(
    ranks: Ranks, tmp_path: Path, whole: dict[float, Found], step: str, rank: int, newest: int
) -> None:
    with pytest.raises(RankFailed) as caught:
        ranks.run("ckpttrain:train", 2, words(tmp_path, 0.2), kill=(step, rank, 2))
    assert caught.value.texts[rank] == "ended: -9"
    assert committed(tmp_path)[-1].name == f"step-{newest:08}"
    _, losses, digests = whole[0.2]
    for resumed, again, found in ranks.run("ckpttrain:train", 2, words(tmp_path, 0.2)):
        assert resumed == newest
        assert again == losses[newest:], "to the last bit"
        assert found == {at: value for at, value in digests.items() if at >= newest}


def test_another_number_of_ranks_goes_on_where_it_was(
    ranks: Ranks, tmp_path: Path, whole: dict[float, Found]
) -> None:
    with pytest.raises(RankFailed):
        ranks.run("ckpttrain:train", 2, words(tmp_path, 0.0), kill=("before-rename", 0, 2))
    _, losses, digests = whole[0.0]
    for resumed, again, found in ranks.run("ckpttrain:train", 3, words(tmp_path, 0.0)):
        assert resumed == EVERY
        assert found[EVERY] == digests[EVERY], "parameters, moments and the loader: every bit"
        assert again == pytest.approx(losses[EVERY:], rel=1e-4)
