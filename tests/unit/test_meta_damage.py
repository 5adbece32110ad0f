"""Damage to a metadata store: noticed before it is opened, told with advice, nothing made anew."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import pytest

from superfs.core.errors import Code, FsError
from superfs.daemon.statedir import Identity
from superfs.meta import fsck, keys, records
from superfs.meta.environment import data_file, make_store
from superfs.meta.keys import Table
from superfs.meta.verify import verify, verify_in_child
from unit.meta_node import IDENTITY, KIB, ROOT, TestClient, make, running

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 4096
FILES = 300


async def fill(state_dir: Path) -> None:
    async with running(make(state_dir, map_initial_bytes=2048 * KIB, reserve_bytes=64 * KIB,
                            grow_below_bytes=128 * KIB)) as node:  # fmt: skip
        client = TestClient(node)
        await client.hello()
        for i in range(FILES):
            await client.send(
                client.op(create={"dir": ROOT, "name": b"f%d" % i, "mode": 0o100644,
                                  "exclusive": True, "inline": b"contents of %d " % i * 20})
            )  # fmt: skip


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state_dir = tmp_path_factory.mktemp("filled")
    asyncio.run(fill(state_dir))
    return state_dir


@pytest.fixture
def state_dir(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled, tmp_path / "state")
    return tmp_path / "state"


def refused(state_dir: Path) -> FsError:
    before = sorted((str(p), p.stat().st_size) for p in state_dir.rglob("*"))
    with pytest.raises(FsError) as caught:
        verify_in_child(state_dir, IDENTITY)
    error = caught.value
    assert error.code in (Code.DAMAGED, Code.WRONG_IDENTITY), error
    assert str(state_dir) in error.detail
    assert "Nothing was changed" in error.detail
    assert "Traceback" not in error.detail
    assert sorted((str(p), p.stat().st_size) for p in state_dir.rglob("*")) == before
    return error


def find(state_dir: Path, needle: bytes) -> int:
    at = data_file(state_dir).read_bytes().find(needle)
    assert at >= 0
    return at


def overwrite(state_dir: Path, at: int, data: bytes) -> None:
    with open(data_file(state_dir), "r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_sound_store_is_verified(state_dir: Path) -> None:
    verify_in_child(state_dir, IDENTITY)
    assert verify(state_dir, IDENTITY) > 3 * FILES


def test_a_flipped_bit_in_a_record(state_dir: Path) -> None:
    at = find(state_dir, b"contents of 7 contents of 7")
    overwrite(state_dir, at, b"K")
    assert "inline record" in refused(state_dir).detail


def test_a_flipped_bit_in_a_key(state_dir: Path) -> None:
    """In every copy of its page: old ones lie about."""
    key = keys.pack_dentry(int(ROOT["ino"]), b"f123")
    data = data_file(state_dir).read_bytes()
    data_file(state_dir).write_bytes(data.replace(key, key[:-1] + b"9"))
    refused(state_dir)


def test_a_zeroed_page(state_dir: Path) -> None:
    at = find(state_dir, b"contents of 7 contents of 7")
    overwrite(state_dir, at // PAGE * PAGE, bytes(PAGE))
    refused(state_dir)


@pytest.mark.parametrize("size", [0, 1, 2 * PAGE, 20 * PAGE, 2048 * KIB - PAGE])
def test_a_cut_file(state_dir: Path, size: int) -> None:
    os.truncate(data_file(state_dir), size)
    refused(state_dir)


def test_a_missing_file(state_dir: Path) -> None:
    data_file(state_dir).unlink()
    refused(state_dir)
    assert not data_file(state_dir).exists()


def test_another_stores_file(state_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = Identity("stranger", "metad", 1, 1)
    make_store(other, stranger, 2048 * KIB, lambda rows: None)
    shutil.copy(data_file(other), data_file(state_dir))
    assert refused(state_dir).code is Code.WRONG_IDENTITY


@pytest.mark.parametrize("table", [Table.DENTRY, Table.INODE, Table.INLINE, Table.REPLY])
def test_an_absent_record(state_dir: Path, table: Table) -> None:
    """Taken out cleanly, so that every checksum that is left is right."""
    change(state_dir, table, lambda txn, db, key: txn.delete(key, db=db))
    assert "records" in refused(state_dir).detail


def test_an_old_record(state_dir: Path) -> None:
    """One table's record of an earlier moment: right by itself, but not of this store."""

    def put_back(txn: Any, db: object, key: bytes) -> None:  # noqa: ANN401
        record = records.pack_id(1)
        txn.put(key, records.seal(Table.INLINE, key, record), db=db)

    change(state_dir, Table.INLINE, put_back)
    assert "add up" in refused(state_dir).detail


def change(state_dir: Path, table: Table, act: Callable[[Any, object, bytes], object]) -> None:
    size = data_file(state_dir).stat().st_size
    with lmdb.open(str(state_dir / "db"), map_size=size, max_dbs=20) as environment:
        db = environment.open_db(table.database, create=False)
        with environment.begin(write=True) as txn:
            with txn.cursor(db=db) as cursor:
                assert cursor.first()
                key = bytes(cursor.key())
            act(txn, db, key)


@pytest.mark.slow
def test_damage_at_random_is_noticed_or_harmless(state_dir: Path) -> None:
    """64 random bytes in a page that is in use: a refusal, or a store that reads as before."""
    whole = data_file(state_dir).read_bytes()
    used = [p for p in range(2, len(whole) // PAGE) if any(whole[p * PAGE : (p + 1) * PAGE])]
    rng = random.Random(4)
    noticed = 0
    for _ in range(25):
        at = rng.choice(used) * PAGE + rng.randrange(PAGE - 64)
        overwrite(state_dir, at, rng.randbytes(64))
        try:
            verify_in_child(state_dir, IDENTITY)
        except FsError as error:
            noticed += error.code is Code.DAMAGED
        overwrite(state_dir, at, whole[at : at + 64])
    assert noticed > 5


@pytest.mark.parametrize(
    ("code", "says"),
    [(0, None), (-6, "SIGABRT"), (-7, "SIGBUS"), (-9, FsError), (-15, FsError), (75, FsError)],
)
def test_an_fsck_without_memory_finds_no_damage(code: int, says: object) -> None:
    path = Path("data.mdb")
    if says is FsError:
        with pytest.raises(FsError) as caught:
            fsck._death(path, code)
        assert caught.value.code is Code.IO
    else:
        found = fsck._death(path, code)
        assert found is None if says is None else str(says) in str(found)


# ---- making a store ------------------------------------------------------------------------------


def test_nothing_is_made_over_a_store(state_dir: Path) -> None:
    with pytest.raises(FsError, match="identity file is gone"):
        make_store(state_dir, IDENTITY, 2048 * KIB, lambda rows: None)
    (state_dir / "identity").write_text("{}")
    with pytest.raises(FsError, match="already"):
        make_store(state_dir, IDENTITY, 2048 * KIB, lambda rows: None)
    verify_in_child(state_dir, IDENTITY)


def test_a_making_that_was_cut_short_starts_over(tmp_path: Path) -> None:
    (tmp_path / "making").touch()
    (tmp_path / "db").mkdir()
    data_file(tmp_path).write_bytes(b"half")
    make_store(tmp_path, IDENTITY, 2048 * KIB, lambda rows: None)
    assert not (tmp_path / "making").exists()
    verify_in_child(tmp_path, IDENTITY)
    assert data_file(tmp_path).stat().st_blocks * 512 >= 2048 * KIB, "not allocated ahead"
