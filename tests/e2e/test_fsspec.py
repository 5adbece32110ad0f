"""superfs:// as fsspec's own suite and programs see it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from typing import TYPE_CHECKING

import fsspec
import pytest
from fsspec.tests import abstract

from superfs.fsspec import SuperFileSystem
from superfs.fsspec.pool import close_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.cluster import Cluster

TOP = "/fsspec"


@pytest.fixture
def fs(cluster: Cluster) -> Iterator[SuperFileSystem]:
    fs = SuperFileSystem(
        cluster=cluster.target("clusterd"), token_file=cluster.token_file, skip_instance_cache=True
    )
    fs.mkdir(TOP)
    yield fs
    fs.rm(TOP, recursive=True)
    close_all()
    SuperFileSystem.clear_instance_cache()


class _Fixtures(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    """On the shared cluster without a check after each of so many: the tests below do that."""

    @pytest.fixture
    def fs(self, shared_cluster: Cluster) -> Iterator[SuperFileSystem]:
        cluster = shared_cluster
        fs = SuperFileSystem(cluster=cluster.target("clusterd"), token_file=cluster.token_file)
        fs.mkdir(TOP)
        yield fs
        fs.rm(TOP, recursive=True)
        close_all()
        SuperFileSystem.clear_instance_cache()

    @pytest.fixture
    def fs_path(self) -> str:
        return TOP


class TestCopy(abstract.AbstractCopyTests, _Fixtures):  # type: ignore[misc]
    pass


class TestGet(abstract.AbstractGetTests, _Fixtures):  # type: ignore[misc]
    pass


class TestPut(abstract.AbstractPutTests, _Fixtures):  # type: ignore[misc]
    pass


class TestOpen(abstract.AbstractOpenTests, _Fixtures):  # type: ignore[misc]
    pass


class TestPipe(abstract.AbstractPipeTests, _Fixtures):  # type: ignore[misc]
    pass


# ---- names and listings --------------------------------------------------------------------------


def test_urls(fs: SuperFileSystem) -> None:
    assert fs._strip_protocol("superfs://a/b") == fs._strip_protocol("superfs:///a/b/") == "/a/b"
    assert fs._strip_protocol("superfs://") == fs._strip_protocol("/") == "/"
    assert fs.unstrip_protocol("/a/b") == "superfs:///a/b"
    options = fs.storage_options
    with fsspec.open(f"superfs://{TOP}/x", "wb", **options) as file:
        file.write(b"abc")
    with fsspec.open(f"superfs:/{TOP}/x", "rt", **options) as file:
        assert file.read() == "abc"


def test_listings(fs: SuperFileSystem) -> None:
    fs.pipe({f"{TOP}/d/{n}/f": b"x" * n for n in range(5)})
    fs.client.symlink("f", f"{TOP}/d/3/soft")
    fs.client.symlink(".", f"{TOP}/d/3/loop")
    fs.client.symlink("nowhere", f"{TOP}/d/3/broken")
    listed = {info["name"].rpartition("/")[2]: info for info in fs.ls(f"{TOP}/d/3")}
    assert {n: (i["type"], i["size"], i["islink"]) for n, i in listed.items()} == {
        "f": ("file", 3, False),
        "soft": ("file", 3, True),
        "loop": ("other", 0, True),
        "broken": ("other", 0, True),
    }
    assert listed["f"] == fs.info(f"{TOP}/d/3/f")
    assert fs.ls(f"{TOP}/d/3/f", detail=False) == [f"{TOP}/d/3/f"]
    assert len(fs.find(TOP)) == 8
    assert len(fs.find(TOP, withdirs=True)) == 8 + 7
    assert fs.find(TOP, maxdepth=1) == []
    assert fs.find(f"{TOP}/d/1/f") == [f"{TOP}/d/1/f"]
    assert fs.find(f"{TOP}/nothing") == []
    assert fs.glob(f"{TOP}/d/*/f") == [f"{TOP}/d/{n}/f" for n in range(5)]
    assert fs.glob(f"{TOP}/**/f") == [f"{TOP}/d/{n}/f" for n in range(5)]
    assert [top for top, _, _ in fs.walk(TOP)][:2] == [TOP, f"{TOP}/d"]
    assert fs.du(TOP) == 10 + 3
    with pytest.raises(FileNotFoundError):
        fs.ls(f"{TOP}/nothing")
    assert not fs.exists(f"{TOP}/d/3/broken")
    assert fs.lexists(f"{TOP}/d/3/broken")


def test_versions(fs: SuperFileSystem) -> None:
    path = f"{TOP}/f"
    fs.pipe(path, b"1")
    first = fs.ukey(path), fs.checksum(path)
    assert first == (fs.ukey(path), fs.checksum(path))
    assert abs((fs.modified(path) - fs.created(path)).total_seconds()) < 1
    with fs.open(path, "ab") as file:
        file.write(b"2")
    assert fs.ukey(path) != first[0]
    assert fs.checksum(path) != first[1]


# ---- contents ------------------------------------------------------------------------------------


def test_modes(fs: SuperFileSystem) -> None:
    path = f"{TOP}/new/f"
    with fs.open(path, "wb") as file:
        file.write(b"one")
    with fs.open(path, "ab") as file:
        file.write(b"two")
    with fs.open(path, "r+b") as file:
        file.write(b"O")
    with fs.open(path, "rb") as file:
        assert (file.size, file.path, file.read()) == (6, path, b"Onetwo")
    with pytest.raises(FileExistsError):
        fs.open(path, "xb")
    with fs.open(path, "w", compression="gzip") as file:
        file.write("text")
    assert fs.open(path, "r", compression="gzip").read() == "text"
    strict = SuperFileSystem(**fs.storage_options, auto_mkdir=False)
    with pytest.raises(FileNotFoundError):
        strict.open(f"{TOP}/other/f", "wb")


def test_cat(fs: SuperFileSystem) -> None:
    data = os.urandom(3 << 20)
    files = {f"{TOP}/d{n % 7}/f{n}": data[n : n + n % 6000] for n in range(3000)}
    files[f"{TOP}/large"] = data
    fs.pipe(files)
    assert fs.cat(list(files)) == files
    assert fs.cat(TOP, recursive=True) == files
    assert fs.cat(f"{TOP}/d1/*") == {p: d for p, d in files.items() if "/d1/" in p}
    assert fs.cat(f"{TOP}/large") == data
    assert fs.cat_file(f"{TOP}/large", 5, -7) == data[5:-7]
    assert fs.cat_file(f"{TOP}/large", -9) == data[-9:]
    spans = [(0, 10), (1 << 20, 2 << 20), (-5, None), (10, 5)]
    got = fs.cat_ranges([f"{TOP}/large"] * 4, [s for s, _ in spans], [e for _, e in spans])
    assert got == [data[s:e] for s, e in spans]
    missing = [f"{TOP}/large", f"{TOP}/none"]
    assert isinstance(fs.cat(missing, on_error="return")[missing[1]], FileNotFoundError)
    assert list(fs.cat(missing, on_error="omit")) == missing[:1]
    with pytest.raises(FileNotFoundError):
        fs.cat(missing)


def test_trees_to_and_fro(fs: SuperFileSystem, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "empty").mkdir()
    for n in range(300):
        (tmp_path / "a" / "b" / f"f{n}").write_bytes(os.urandom(n * 20))
    (tmp_path / "a" / "large").write_bytes(os.urandom(3 << 20))
    fs.put(f"{tmp_path}/a", f"{TOP}/a", recursive=True)
    fs.copy(f"{TOP}/a", f"{TOP}/c", recursive=True)
    fs.get(f"{TOP}/c", f"{tmp_path}/c", recursive=True)
    assert (tmp_path / "c" / "empty").is_dir()
    for path in (tmp_path / "a").rglob("*"):
        copy = tmp_path / "c" / path.relative_to(tmp_path / "a")
        assert path.is_dir() == copy.is_dir()
        assert path.is_dir() or path.read_bytes() == copy.read_bytes()


def test_moving_and_removing(fs: SuperFileSystem) -> None:
    fs.pipe({f"{TOP}/a/b/{n}": b"x" for n in range(50)})
    fs.mv(f"{TOP}/a", f"{TOP}/moved", recursive=True)
    fs.mv(f"{TOP}/moved/b/0", f"{TOP}/zero")
    fs.mkdir(f"{TOP}/into/deep")
    fs.mv(f"{TOP}/zero", f"{TOP}/into")
    assert fs.cat(f"{TOP}/into/zero") == b"x"
    fs.rm([f"{TOP}/moved/b/{n}" for n in range(1, 50)])
    assert fs.ls(f"{TOP}/moved/b") == []
    with pytest.raises(IsADirectoryError):
        fs.rm(f"{TOP}/moved")
    fs.rm(f"{TOP}/m*", recursive=True)
    assert fs.ls(TOP, detail=False) == [f"{TOP}/into"]
    fs.touch(f"{TOP}/t")
    before = fs.modified(f"{TOP}/t")
    fs.touch(f"{TOP}/t", truncate=False)
    assert fs.modified(f"{TOP}/t") > before


def test_transactions(fs: SuperFileSystem) -> None:
    fs.pipe(f"{TOP}/log", b"one,")
    with fs.transaction:
        fs.pipe(f"{TOP}/a", b"1")
        with fs.open(f"{TOP}/log", "ab") as file:
            file.write(b"two")
        assert not fs.exists(f"{TOP}/a")
        assert fs.cat(f"{TOP}/log") == b"one,"
    assert fs.cat([f"{TOP}/a", f"{TOP}/log"]) == {f"{TOP}/a": b"1", f"{TOP}/log": b"one,two"}

    def fail() -> None:
        with fs.transaction:
            fs.pipe(f"{TOP}/a", b"2")
            fs.open(f"{TOP}/log", "xb")

    with pytest.raises(FileExistsError):
        fail()
    assert fs.cat(f"{TOP}/a") == b"1"
    assert sorted(fs.ls(TOP, detail=False)) == [f"{TOP}/a", f"{TOP}/log"]


# ---- threads, processes --------------------------------------------------------------------------


def test_pickle_and_threads(fs: SuperFileSystem) -> None:
    fs.pipe(f"{TOP}/f", b"abcdef")
    again = pickle.loads(pickle.dumps(fs))
    assert again.cat(f"{TOP}/f") == b"abcdef"
    assert again.client is fs.client
    with fs.open(f"{TOP}/f", "rb") as file:
        file.read(2)
        with pickle.loads(pickle.dumps(file)) as copy:
            assert copy.read() == b"cdef"
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(fs.cat(f"{TOP}/f"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"abcdef"] * 8


def _child(fs: SuperFileSystem, path: str) -> bytes:
    data: bytes = fs.cat_file(path)
    return data


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_child_processes(fs: SuperFileSystem, method: str) -> None:
    path = f"{TOP}/f"
    fs.pipe(path, b"for children")
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = [pool.apply_async(_child, (fs, path)) for _ in range(4)]
        assert [result.get(30) for result in results] == [b"for children"] * 4
    assert fs.cat(path) == b"for children"
