"""Damage of segments and of the index is noticed, said, and never served."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from harness import datastore
from superfs.core.errors import Code, FsError
from superfs.core.limits import KIB, MIB
from superfs.daemon.statedir import Identity, write_identity
from superfs.data import index as index_module
from superfs.data import records
from superfs.data.keys import ChunkKey, FileKey, pack_extent
from superfs.data.segments import numbers_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from superfs.data.store import DataStore

DATA = random.Random(5).randbytes(100 * KIB)


def filled(directory: Path, *, synced: bool = True) -> None:
    """Inode 1 has DATA; killed afterwards."""
    store = datastore.opened(directory)
    for place in range(0, len(DATA), 20 * KIB):
        datastore.write(store, 1, place, DATA[place : place + 20 * KIB])
    if synced:
        store.sync()
    datastore.kill(store)


def segment_file(directory: Path) -> Path:
    (number,) = numbers_in(directory / "segments")[:1]
    return directory / "segments" / f"{number:016x}.seg"


def overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def flip(path: Path, place: int) -> None:
    with path.open("rb") as file:
        file.seek(place)
        (byte,) = file.read(1)
    overwrite(path, place, bytes([byte ^ 4]))


def read_or_code(store: DataStore) -> bytes | Code:
    try:
        return datastore.read(store, 1, 0, 100 * KIB)
    except FsError as error:
        return error.code


def reopen_or_code(directory: Path) -> DataStore | Code:
    try:
        return datastore.reopen(directory)
    except FsError as error:
        return error.code


# ---- segments ------------------------------------------------------------------------------------


@pytest.mark.allow_log("damaged")
def test_flipped_byte_is_damaged_and_named(tmp_path: Path) -> None:
    filled(tmp_path / "d")
    path = segment_file(tmp_path / "d")
    place = path.read_bytes().index(DATA[50 * KIB : 50 * KIB + 64])
    flip(path, place)
    store = datastore.reopen(tmp_path / "d")
    with pytest.raises(FsError) as caught:
        datastore.read(store, 1, 45 * KIB, 10 * KIB)
    assert caught.value.code is Code.DAMAGED
    assert "inode 0x1 " in caught.value.detail
    assert path.stem in caught.value.detail
    assert datastore.read(store, 1, 0, 30 * KIB) == DATA[: 30 * KIB]  # the rest is good
    tools = datastore.Tools(store)
    (finding,) = tools.check()
    assert finding.kind == "damaged-data"
    assert tools.check(verify_data=False) == []
    datastore.write(store, 1, 40 * KIB, DATA[40 * KIB : 60 * KIB])  # writing it anew heals
    assert datastore.read(store, 1, 0, 100 * KIB) == DATA
    tools.close()
    store.close()


def test_every_flip_of_a_synced_segment_is_noticed(tmp_path: Path) -> None:
    filled(tmp_path / "d")
    path = segment_file(tmp_path / "d")
    store = datastore.reopen(tmp_path / "d")
    chance = random.Random(9)
    for _ in range(200):
        flip_at = chance.randrange(records.HEADER_BYTES, 101 * KIB)
        flip(path, flip_at)
        assert read_or_code(store) in (DATA, Code.DAMAGED)
        flip(path, flip_at)
    store.close()


@pytest.mark.allow_log("segment damaged")
@pytest.mark.parametrize("how", ["missing", "truncated", "emptied", "header", "swapped"])
def test_lost_segment_is_reported_and_its_data_refused(tmp_path: Path, how: str) -> None:
    directory = tmp_path / "d"
    filled(directory)
    store = datastore.reopen(directory)
    datastore.write(store, 2, 0, b"elsewhere")
    store.sync()
    store.close()
    first, second = (directory / "segments" / f"{n:016x}.seg" for n in (1, 3))
    assert {first.name, second.name} <= set(os.listdir(directory / "segments"))
    if how == "missing":
        first.unlink()
    elif how == "truncated":
        os.truncate(first, 50 * KIB)
    elif how == "emptied":
        os.truncate(first, 0)
    elif how == "header":
        flip(first, 20)
    else:
        first.write_bytes(second.read_bytes())
    store = datastore.reopen(directory)
    # Bytes whose checksums are good are served even from under a damaged header.
    assert read_or_code(store) == (DATA if how == "header" else Code.DAMAGED)
    assert datastore.read(store, 2, 0, 100) == b"elsewhere"
    tools = datastore.Tools(store)
    assert "damaged-segment" in {f.kind for f in tools.check()}
    tools.close()
    store.close()
    assert how == "missing" or first.exists()  # nothing is thrown away


@pytest.mark.allow_log("torn append dropped")
@pytest.mark.parametrize("lost", [1, 10 * KIB, 20 * KIB, 20 * KIB + 50])
def test_torn_tail_is_dropped_and_what_is_before_it_kept(tmp_path: Path, lost: int) -> None:
    directory = tmp_path / "d"
    filled(directory, synced=False)
    path = segment_file(directory)
    whole = path.read_bytes()
    end = whole.rindex(DATA[-64:]) + 64
    overwrite(path, end - lost, bytes(lost))
    store = datastore.reopen(directory)
    assert datastore.read(store, 1, 0, 100 * KIB) == DATA[: 80 * KIB]
    datastore.write(store, 1, 80 * KIB, DATA[80 * KIB :])
    datastore.kill(store)
    store = datastore.reopen(directory)
    assert datastore.read(store, 1, 0, 100 * KIB) == DATA
    store.close()


@pytest.mark.allow_log("dropped")
def test_appends_behind_a_torn_one_never_come_back(tmp_path: Path) -> None:
    """After a loss of power a middle append can be torn and later ones whole."""
    directory = tmp_path / "d"
    filled(directory, synced=False)
    path = segment_file(directory)
    flip(path, path.read_bytes().index(DATA[50 * KIB : 50 * KIB + 64]))
    for _ in range(3):
        store = datastore.reopen(directory)
        assert datastore.read(store, 1, 0, 100 * KIB) == DATA[: 40 * KIB]
        datastore.write(store, 2, 0, b"new")
        datastore.kill(store)


def test_a_clients_bytes_never_pass_for_an_append(tmp_path: Path) -> None:
    """Somebody stores a copy of a segment inside a file: the replay does not look into it."""
    directory = tmp_path / "d"
    filled(directory, synced=False)
    copy = segment_file(directory).read_bytes()[records.HEADER_BYTES :][: 100 * KIB]
    store = datastore.reopen(directory)
    datastore.write(store, 3, 0, copy)
    datastore.kill(store)
    store = datastore.reopen(directory)
    assert datastore.read(store, 3, 0, 100 * KIB) == copy
    assert datastore.read(store, 1, 0, 100 * KIB) == DATA
    store.close()


# ---- the index -----------------------------------------------------------------------------------


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _cut_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def _remove(path: Path) -> None:
    path.unlink()


def _zero_first(path: Path) -> None:
    overwrite(path, 0, bytes(4096))


def _garbage(path: Path) -> None:
    overwrite(path, 0, random.Random(1).randbytes(8192))


@pytest.mark.parametrize("damage", [_empty, _halve, _cut_page, _remove, _zero_first, _garbage])
def test_damaged_index_is_refused_and_left_alone(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    filled(tmp_path / "d")
    path = tmp_path / "d" / "index" / "data.mdb"
    damage(path)
    before = sorted((p, p.stat().st_size) for p in (tmp_path / "d").rglob("*") if p.is_file())
    with pytest.raises(FsError) as caught:
        datastore.reopen(tmp_path / "d")
    assert caught.value.code is Code.DAMAGED
    assert "Nothing was changed" in caught.value.detail
    after = sorted((p, p.stat().st_size) for p in (tmp_path / "d").rglob("*") if p.is_file())
    assert [a for a in after if a[0].name != "lock.mdb"] == [
        b for b in before if b[0].name != "lock.mdb"
    ]


@pytest.mark.slow
def test_every_page_of_the_index_is_guarded(tmp_path: Path) -> None:
    """Zeroed or flipped: refused, or without any effect on what is read."""
    filled(tmp_path / "d")
    path = tmp_path / "d" / "index" / "data.mdb"
    original = path.read_bytes()
    used = len(original.rstrip(b"\0")) // 4096 + 1
    chance = random.Random(2)
    refused = 0
    for page in range(used):
        if not any(original[page * 4096 : page * 4096 + 4096]):
            continue
        for wrong in (bytes(4096), None):
            if wrong is not None:
                overwrite(path, page * 4096, wrong)
            else:
                for _ in range(20):
                    flip(path, page * 4096 + chance.randrange(4096))
            store = reopen_or_code(tmp_path / "d")
            if isinstance(store, Code):
                assert store is Code.DAMAGED
                refused += 1
            else:
                assert datastore.read(store, 1, 0, 100 * KIB) == DATA
                store.close()
            path.write_bytes(original)
            restored = tmp_path / "d" / "segments"
            for number in numbers_in(restored):
                if number > 1:
                    (restored / f"{number:016x}.seg").unlink()
    assert refused >= 6  # the others are free pages


def test_absent_record_is_noticed(tmp_path: Path) -> None:
    """A record that was deleted behind our back leaves a good checksum on every other."""
    filled(tmp_path / "d")
    index = index_module.open_checked(tmp_path / "d" / "index")
    with index._env.begin(write=True) as txn:
        assert txn.pop(pack_extent(1, 1, 0, 20 * KIB), db=index._db["extent"])
    index.close()
    with pytest.raises(FsError, match="4 records, 5 were written") as caught:
        datastore.reopen(tmp_path / "d")
    assert caught.value.code is Code.DAMAGED


@pytest.mark.allow_log("segment damaged")
def test_segments_of_another_store_are_noticed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        filled(tmp_path / name)
    os.rename(tmp_path / "a" / "segments", tmp_path / "a" / "gone")
    os.rename(tmp_path / "b" / "segments", tmp_path / "a" / "segments")
    store = datastore.reopen(tmp_path / "a")
    tools = datastore.Tools(store)
    (finding,) = tools.check()
    assert finding.kind == "damaged-segment"
    assert "of another" in finding.detail
    tools.close()
    store.close()


def test_index_of_another_daemon_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        filled(tmp_path / name)
    identity = (tmp_path / "a" / "identity").read_text()
    (tmp_path / "a" / "identity").write_text(identity.replace('"node_id": 2', '"node_id": 3'))
    with pytest.raises(FsError) as caught:
        datastore.reopen(tmp_path / "a")
    assert caught.value.code is Code.DAMAGED
    (tmp_path / "a" / "identity").unlink()
    write_identity(tmp_path / "a", Identity("another", "datad", 2, 1))
    with pytest.raises(FsError) as caught:
        datastore.reopen(tmp_path / "a")
    assert caught.value.code is Code.WRONG_IDENTITY


def test_unformatted_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    with pytest.raises(FsError) as caught:
        datastore.reopen(tmp_path / "d")
    assert caught.value.code is Code.WRONG_IDENTITY
    assert list((tmp_path / "d").iterdir()) == []
    (tmp_path / "d" / "index").mkdir()
    with pytest.raises(FsError, match="holds 'index'"):
        datastore.make(tmp_path / "d")


def test_formatting_that_was_cut_short_starts_over(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    (directory / "index").mkdir(mode=0o700, parents=True)
    (directory / "index" / "data.mdb").write_bytes(b"half")
    (directory / "making").touch()
    datastore.make(directory)
    datastore.reopen(directory).close()
    with pytest.raises(FsError) as caught:
        datastore.make(directory)
    assert caught.value.code is Code.WRONG_IDENTITY


# ---- starting again ------------------------------------------------------------------------------


def test_reaped_generation_stays_refused_after_a_restart(tmp_path: Path) -> None:
    store = datastore.opened(tmp_path / "d")
    datastore.write(store, 1, 0, b"old")
    store.reap(FileKey(1, 1))
    store.sync()
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "d")
    with pytest.raises(FsError) as caught:
        datastore.write(store, 1, 0, b"late")
    assert caught.value.code is Code.STALE_DATA
    datastore.write(store, 1, 0, b"new", generation=2)
    store.close()


def test_cut_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    store = datastore.opened(tmp_path / "d")
    chunks = 100
    for chunk in range(chunks):
        datastore.write(store, 1, chunk * 4 * MIB, b"x" * 100)
    store.sync()
    cut = store.truncate(FileKey(1, 1), 50)
    assert cut is not None
    assert not cut.done
    datastore.write(store, 1, 99 * 4 * MIB, b"newer")
    store.sync()
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "d")
    (cut,) = store.cuts.pending.values()
    while not store.cuts.step(cut):
        pass
    found = store.index.chunks_from(ChunkKey(0, 0, 0), 1000)
    assert len(found) == chunks - 31  # the first step, and the kept first chunk
    store.sync()
    assert len(store.index.chunks_from(ChunkKey(0, 0, 0), 1000)) == 2
    assert datastore.read(store, 1, 0, 100) == b"x" * 50
    assert datastore.read(store, 1, 99 * 4 * MIB, 100) == b"newer"
    store.close()


def test_tombstones_are_forgotten_in_time(tmp_path: Path) -> None:
    store = datastore.opened(tmp_path / "d")
    for ino in range(1, 6):
        store.reap(FileKey(ino, 1))
    store.sync()
    now_ns = store.world.clock.now_ns()
    store.cuts.prune(0, keep_max=3)
    assert len(store.cuts.by_file) == 3
    store.cuts.prune(now_ns + 1, keep_max=3)
    assert store.cuts.by_file == {}
    store.sync()
    assert store.index.cuts() == {}
    store.close()
