"""The store of the cluster map: what was saved comes back, and no damage is ever served."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from superfs.cluster import store
from superfs.cluster.placement import Map, Node, Role, register
from superfs.cluster.store import FORMAT, LmdbStore
from superfs.core.errors import Code, FsError
from superfs.daemon.failpoints import Failpoints
from superfs.daemon.lmdbfile import PAGE_BYTES
from superfs.daemon.statedir import (
    Identity,
    StateDir,
    identity_path,
    read_identity,
    write_identity,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IDENTITY = Identity("a" * 32, "clusterd", 1, FORMAT)
META = Node(1, Role.META, ("unix:/m",))
CODES = (Code.DAMAGED, Code.WRONG_IDENTITY, Code.BAD_FORMAT)


def full_map() -> Map:
    found = register(Map(IDENTITY.cluster_id), META)
    for node_id in range(2, 60):
        address = f"node{node_id}.example:{7400 + node_id}"
        found = register(found, Node(node_id, Role.DATA, (address,), "h" * 32))
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "clusterd"
    StateDir(path).create()
    store.create(path, IDENTITY)
    write_identity(path, IDENTITY)
    return path


def opened(state: Path) -> LmdbStore:
    identity = read_identity(state, role="clusterd", node_id=1, format_version=FORMAT)
    return LmdbStore(state, identity, Failpoints())


def test_what_was_saved_comes_back(state: Path) -> None:
    first = opened(state)
    assert first.load() == Map(IDENTITY.cluster_id)
    found = full_map()
    first.save(found)
    smaller = replace(found, nodes=found.nodes[:1], chains=(), epoch=found.epoch + 1)
    assert first.load() == found
    first.close()
    again = opened(state)
    assert again.load() == found
    again.save(smaller)
    assert again.load() == smaller
    again.close()


def test_nothing_is_created_over_anything(state: Path) -> None:
    with pytest.raises(FsError, match="formatted already"):
        StateDir(state).create()
    with pytest.raises(FsError, match="exists already"):
        write_identity(state, IDENTITY)
    identity_path(state).unlink()
    with pytest.raises(FsError, match="never formatted to its end"):
        store.create(state, IDENTITY)


def test_an_error_at_a_commit_is_io(state: Path) -> None:
    points = Failpoints()
    one = LmdbStore(state, IDENTITY, points)
    points.arm("clusterd.commit.before=error")
    with pytest.raises(OSError, match="failpoint"):
        one.save(full_map())
    points.arm("")
    assert one.load() == Map(IDENTITY.cluster_id)
    one.close()


def data_of(state: Path) -> Path:
    return state / "db" / "data.mdb"


def used_pages(state: Path) -> int:
    raw = data_of(state).read_bytes()
    return max(p for p in range(64) if any(raw[p * PAGE_BYTES : (p + 1) * PAGE_BYTES])) + 1


def flip(raw: bytearray, rng: random.Random, pages: int) -> None:
    raw[rng.randrange(pages * PAGE_BYTES)] ^= 1 << rng.randrange(8)


def junk(raw: bytearray, rng: random.Random, pages: int) -> None:
    at = rng.randrange(pages * PAGE_BYTES - 64)
    raw[at : at + 64] = rng.randbytes(64)


def zero(raw: bytearray, rng: random.Random, pages: int) -> None:
    at = rng.randrange(pages) * PAGE_BYTES
    raw[at : at + PAGE_BYTES] = bytes(PAGE_BYTES)


def cut(raw: bytearray, rng: random.Random, pages: int) -> None:
    del raw[rng.randrange(pages * PAGE_BYTES) :]


def empty(raw: bytearray, rng: random.Random, pages: int) -> None:
    raw.clear()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("damage", [flip, junk, zero, cut, empty])
def test_damage_is_reported_and_never_served(
    state: Path, damage: Callable[[bytearray, random.Random, int], None], seed: int
) -> None:
    first = opened(state)
    first.save(full_map())
    first.close()
    rng = random.Random(seed)
    raw = bytearray(data_of(state).read_bytes())
    damage(raw, rng, used_pages(state))
    data_of(state).write_bytes(raw)
    before = data_of(state).read_bytes()
    refusal = None
    try:
        again = opened(state)
    except FsError as error:
        refusal = error
    if refusal is None:
        # A byte that holds nothing (a free page, the rest of one) may be anything.
        assert again.load() == full_map()
        again.close()
        return
    assert refusal.code in CODES
    assert str(state) in refusal.detail
    assert data_of(state).read_bytes() == before


def test_a_missing_file_and_a_missing_directory(state: Path) -> None:
    data_of(state).unlink()
    for _ in range(2):
        with pytest.raises(FsError) as caught:
            opened(state)
        assert caught.value.code is Code.DAMAGED
        shutil.rmtree(state / "db", ignore_errors=True)
    assert not (state / "db").exists()


def test_another_clusters_store_is_refused(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    StateDir(other).create()
    store.create(other, replace(IDENTITY, cluster_id="b" * 32))
    shutil.copy(data_of(other), data_of(state))
    with pytest.raises(FsError) as caught:
        opened(state)
    assert caught.value.code is Code.WRONG_IDENTITY


def test_identity_is_checked(state: Path) -> None:
    def refusal(**options: object) -> FsError:
        asked = {"role": "clusterd", "node_id": 1, "format_version": FORMAT, **options}
        with pytest.raises(FsError) as caught:
            read_identity(state, **asked)  # type: ignore[arg-type]
        return caught.value

    assert refusal(role="metad").code is Code.WRONG_IDENTITY
    assert refusal(node_id=2).code is Code.WRONG_IDENTITY
    assert refusal(format_version=FORMAT + 1).code is Code.BAD_FORMAT
    good = identity_path(state).read_bytes()
    for bad in (b"", b"{}", b"[1]", good[:-5], good.replace(b"aaaa", b"aaab", 1), b"\xff" * 9):
        identity_path(state).write_bytes(bad)
        assert refusal().code is Code.DAMAGED
    identity_path(state).unlink()
    error = refusal()
    assert error.code is Code.WRONG_IDENTITY
    assert "--format" in error.detail
