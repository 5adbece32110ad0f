"""Side files: every node has each content once, and never another one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu.errors import RuntimeException
from superfs.chukonu.sources import sidefile
from superfs.chukonu.sources.sidefile import side_file
from superfs.chukonu.sources.store import LocalStore

if TYPE_CHECKING:
    from superfs.chukonu import Session


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directory is a mount now, and its reads are noted."""
    seen: list[str] = []
    read = LocalStore.read

    def noted(self: LocalStore, path: str, offset: int, length: int) -> bytes:
        seen.append(path)
        return read(self, path, offset, length)

    monkeypatch.setattr(LocalStore, "way", "mount")
    monkeypatch.setattr(LocalStore, "read", noted)
    return seen


def test_a_content_is_fetched_once(tmp_path: Path, reads: list[str]) -> None:
    cache = str(tmp_path / "cache")
    (tmp_path / "a.bin").write_bytes(b"model" * 1000)
    (tmp_path / "b.bin").write_bytes(b"model" * 1000)
    one = side_file(str(tmp_path / "a.bin"), {}, cache)
    reads.clear()
    there = pickle.loads(pickle.dumps(one))
    assert Path(there.path).read_bytes() == b"model" * 1000
    assert reads
    reads.clear()
    assert one.path == there.path == side_file(str(tmp_path / "b.bin"), {}, cache).path
    assert str(tmp_path / "a.bin") not in reads
    assert os.listdir(cache) == [one.digest]


def test_what_has_changed_is_an_error(tmp_path: Path, reads: list[str]) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"before")
    one = side_file(str(source), {}, str(tmp_path / "cache"))
    source.write_bytes(b"after!")
    with pytest.raises(RuntimeException, match="has changed since the job began"):
        _ = one.path
    assert [n for n in os.listdir(tmp_path / "cache") if not n.endswith(".lock")] == []


def test_the_least_recently_used_go(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidefile, "CACHE_BYTES", 2500)
    cache = str(tmp_path / "cache")
    made = []
    for number in range(3):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes([number]) * 1000)
        made.append(side_file(str(path), {}, cache))
    first, second, third = made
    for place, one in enumerate((first, second, first)):
        os.utime(one.path, ns=(place, place))
    assert third.path
    assert sorted(os.listdir(cache)) == sorted([first.digest, third.digest])
    assert Path(second.path).read_bytes() == bytes([1]) * 1000


def test_a_cache_of_others_is_refused(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    one = side_file(str(tmp_path / "a.bin"), {}, str(tmp_path / "cache"))
    with pytest.raises(PermissionError, match=r"chukonu\.side\.dir"):
        _ = one.path


def test_functions_open_it(session: Session, tmp_path: Path) -> None:
    (tmp_path / "stop.txt").write_text("the\nof\n")
    stop = session.sideFile(str(tmp_path / "stop.txt"))
    assert stop.path == str(tmp_path / "stop.txt")  # a directory of this machine needs no cache
    from superfs.chukonu import functions as F

    class Stops:
        def __init__(self) -> None:
            self.words: Any = set(Path(stop.path).read_text().split())

        def __call__(self, word: str) -> bool:
            return word in self.words

    frame = session.createDataFrame([("the",), ("cat",)], "w STRING")
    assert frame.filter(F.udf(Stops, "boolean")("w")).collect() == [("the",)]
    with pytest.raises(IsADirectoryError):
        session.sideFile(str(tmp_path))
