"""FileSystem and AsyncFileSystem on real daemons."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from superfs.client import AsyncFileSystem, ClientConfig, FileSystem
from superfs.client.paths import RENAME_EXCHANGE, RENAME_NOREPLACE, XATTR_CREATE, XATTR_REPLACE
from superfs.core.limits import INLINE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.cluster import Cluster

MIB = 1 << 20


def config_of(cluster: Cluster, retry_timeout_s: float = 20.0) -> ClientConfig:
    return ClientConfig(
        cluster=(cluster.target("clusterd"),),
        token_file=cluster.token_file,
        retry_timeout_s=retry_timeout_s,
        client_name="test",
    )


@pytest.fixture
def fs(cluster: Cluster) -> Iterator[FileSystem]:
    """Ends empty."""
    with FileSystem.connect(config_of(cluster)) as fs:
        yield fs
        for name in fs.listdir("/"):
            fs.remove_tree("/" + name)


def code_of(call: Callable[..., object], *args: object, **options: object) -> int:
    with pytest.raises(OSError, match=r".") as caught:
        call(*args, **options)
    assert caught.value.errno is not None
    return caught.value.errno


# ---- paths


def test_names(fs: FileSystem) -> None:
    fs.makedirs("/a/b/c")
    fs.makedirs("a/b/c", exist_ok=True)
    fs.write_bytes("/a/b/c/file", b"hello")
    assert fs.read_bytes(b"/a/b/c/file") == b"hello"
    assert fs.listdir("/a/b") == ["c"]
    assert fs.listdir(b"/a/b") == [b"c"]
    assert fs.exists("/a/../a/./b//c/file")
    assert not fs.exists("/a/nothing")
    fs.rename("/a/b", "/a/x")
    assert fs.read_bytes("/a/x/c/file") == b"hello"
    fs.makedirs("/a/b/c")  # a new directory of an old name: a second version of its number
    fs.write_bytes("/a/b/c/file", b"other")
    assert fs.read_bytes("/a/x/c/file") == b"hello"
    assert fs.read_bytes("/a/b/c/file") == b"other"
    fs.unlink("/a/x/c/file")
    fs.rmdir("/a/x/c/")
    assert fs.remove_tree("/a") == 5


def test_errors_carry_errno_and_path(fs: FileSystem) -> None:
    fs.makedirs("/d/e")
    fs.write_bytes("/d/f", b"")
    assert code_of(fs.stat, "/none") == errno.ENOENT
    assert code_of(fs.stat, "/d/f/x") == errno.ENOTDIR
    assert code_of(fs.mkdir, "/d") == errno.EEXIST
    assert code_of(fs.mkdir, "/") == errno.EEXIST
    assert code_of(fs.rmdir, "/d") == errno.ENOTEMPTY
    assert code_of(fs.rmdir, "/d/f") == errno.ENOTDIR
    assert code_of(fs.unlink, "/d/e") in (errno.EISDIR, errno.EPERM)
    assert code_of(fs.listdir, "/d/f") == errno.ENOTDIR
    assert code_of(fs.read_bytes, "/d") == errno.EISDIR
    assert code_of(fs.open, "/d", "w") == errno.EISDIR
    assert code_of(fs.open, "/d/f", "x") == errno.EEXIST
    assert code_of(fs.mkdir, "/" + "n" * 256) == errno.ENAMETOOLONG
    assert code_of(fs.stat, "/d/f/") == errno.ENOTDIR
    assert code_of(fs.readlink, "/d/f") == errno.EINVAL
    with pytest.raises(FileNotFoundError) as caught:
        fs.rename("/none", "/d/none")
    assert (caught.value.filename, caught.value.filename2) == ("/none", "/d/none")


def test_bytes_that_are_no_utf8_are_names(fs: FileSystem) -> None:
    fs.write_bytes(b"/\xff\xfe name\n", b"x")
    assert fs.listdir(b"/") == [b"\xff\xfe name\n"]
    (name,) = fs.listdir("/")
    assert fs.read_bytes("/" + name) == b"x"


def test_symlinks(fs: FileSystem) -> None:
    fs.makedirs("/deep/down/here")
    fs.write_bytes("/deep/down/file", b"data")
    fs.symlink("down", "/deep/link")
    fs.symlink("/deep/link/here", "/absolute")
    fs.symlink("nowhere", "/dangling")
    fs.symlink("loop", "/loop")
    assert fs.read_bytes("/deep/link/file") == b"data"
    assert fs.read_bytes("/absolute/../file") == b"data"  # .. of where we are, not of the name
    assert fs.readlink("/absolute") == "/deep/link/here"
    assert fs.readlink(b"/dangling") == b"nowhere"
    assert stat.S_ISLNK(fs.lstat("/absolute").st_mode)
    assert stat.S_ISDIR(fs.stat("/absolute").st_mode)
    assert code_of(fs.stat, "/dangling") == errno.ENOENT
    assert code_of(fs.stat, "/loop") == errno.ELOOP
    assert not fs.exists("/loop")
    fs.write_bytes("/dangling", b"made")  # creates what the link names
    assert fs.read_bytes("/nowhere") == b"made"
    with pytest.raises(OSError, match=r"."):
        fs.open_raw("/absolute", os.O_RDONLY | os.O_NOFOLLOW)


def test_links_and_renames_with_flags(fs: FileSystem) -> None:
    fs.write_bytes("/a", b"a")
    fs.write_bytes("/b", b"b")
    fs.link("/a", "/hard")
    assert fs.stat("/hard").st_nlink == 2
    assert fs.stat("/hard").st_ino == fs.stat("/a").st_ino
    assert code_of(fs.rename, "/a", "/b", RENAME_NOREPLACE) == errno.EEXIST
    fs.rename("/a", "/b", RENAME_EXCHANGE)
    assert (fs.read_bytes("/a"), fs.read_bytes("/b")) == (b"b", b"a")
    fs.replace("/a", "/b")
    assert fs.read_bytes("/b") == b"b"
    assert fs.stat("/hard").st_nlink == 1


def test_attributes(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"x" * 10)
    fs.chmod("/f", 0o640)
    fs.chown("/f", 12, 34)
    fs.utime("/f", ns=(1_000_000_001, 2_000_000_003))
    found = fs.stat("/f")
    assert found.st_mode == stat.S_IFREG | 0o640
    assert (found.st_uid, found.st_gid, found.st_size) == (12, 34, 10)
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_001, 2_000_000_003)
    assert found.st_mtime == pytest.approx(2.000000003)
    assert found.st_nlink == 1
    fs.truncate("/f", 3)
    assert fs.read_bytes("/f") == b"xxx"
    assert fs.access("/f", os.R_OK | os.W_OK)
    assert not fs.access("/f", os.X_OK)
    assert not fs.access("/none", os.F_OK)
    assert fs.statvfs().f_namemax == 255
    fs.mknod("/fifo", stat.S_IFIFO | 0o600)
    assert stat.S_ISFIFO(fs.stat("/fifo").st_mode)


def test_xattrs(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"")
    fs.setxattr("/f", "user.one", b"1", XATTR_CREATE)
    assert code_of(fs.setxattr, "/f", "user.one", b"2", XATTR_CREATE) == errno.EEXIST
    assert code_of(fs.setxattr, "/f", "user.two", b"2", XATTR_REPLACE) == errno.ENODATA
    fs.setxattr("/f", b"user.two", b"2")
    assert sorted(fs.listxattr("/f")) == ["user.one", "user.two"]
    assert fs.getxattr("/f", "user.one") == b"1"
    fs.removexattr("/f", "user.one")
    assert code_of(fs.getxattr, "/f", "user.one") == errno.ENODATA


# ---- files


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 3 * MIB + 5])
def test_contents_of_every_size(fs: FileSystem, size: int) -> None:
    data = os.urandom(size)
    fs.write_bytes("/f", data)
    assert fs.read_bytes("/f") == data
    fs.write_bytes("/f", data[::-1])
    assert fs.read_bytes("/f") == data[::-1]
    with fs.open("/f", "rb") as file:
        assert file.read() == data[::-1]
        file.seek(size // 2)
        assert file.read(10) == data[::-1][size // 2 : size // 2 + 10]
    with fs.open("/f", "ab") as file:
        assert file.tell() == size
        file.write(b"end")
    assert fs.read_bytes("/f") == data[::-1] + b"end"


def test_file_objects_behave_like_the_builtin(fs: FileSystem) -> None:
    with fs.open("/t", "w") as file:
        file.write("žluťoučký\n" * 3)
    with fs.open("/t") as file:
        assert file.readlines() == ["žluťoučký\n"] * 3
    with fs.open("/t", "r+b", buffering=0) as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
        file.seek(0)
        assert file.read(2) == "ž".encode()
        file.truncate(2)
        assert fs.stat("/t").st_size == 2  # our own writes are in our own stat
    assert fs.read_bytes("/t") == "ž".encode()
    with fs.open("/t", "rb") as file, pytest.raises(io.UnsupportedOperation):
        file.write(b"x")
    with pytest.raises(ValueError, match="mode"):
        fs.open("/t", "q")
    file = fs.open("/t", "rb")
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_unlinked_but_open(fs: FileSystem) -> None:
    with fs.open("/gone", "w+b", buffering=0) as file:
        file.write(b"x" * 10_000)
        fs.unlink("/gone")
        assert not fs.exists("/gone")
        file.write(b"y")
        file.seek(9_999)
        assert file.read() == b"xy"


def test_sparse_and_beyond_4_gib(fs: FileSystem) -> None:
    with fs.open("/sparse", "w+b", buffering=0) as file:
        file.seek(5 << 30)
        file.write(b"far")
        file.seek((5 << 30) - 2)
        assert file.read() == b"\0\0far"
        file.seek(0)
        assert file.read(3) == b"\0\0\0"
    assert fs.stat("/sparse").st_size == (5 << 30) + 3
    fs.truncate("/sparse", (5 << 30) + 1)
    with fs.open("/sparse", "rb") as file:
        file.seek(5 << 30)
        assert file.read() == b"f"


def test_many_threads_append_to_one_file(fs: FileSystem) -> None:
    def append(number: int) -> None:
        with fs.open("/log", "ab", buffering=0) as file:
            for _ in range(50):
                file.write(bytes([number]) * 100)

    threads = [threading.Thread(target=append, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = fs.read_bytes("/log")
    assert len(data) == 4 * 50 * 100
    records = [data[i : i + 100] for i in range(0, len(data), 100)]
    assert all(len(set(record)) == 1 for record in records), "an append was torn"


def test_two_clients_see_each_other_close_to_open(cluster: Cluster, fs: FileSystem) -> None:
    with FileSystem.connect(config_of(cluster)) as other:
        for size in (10, 100_000, 5):
            fs.write_bytes("/shared", b"a" * size)
            assert other.read_bytes("/shared") == b"a" * size
            with other.open("/shared", "r+b") as file:
                file.write(b"b")
            assert fs.read_bytes("/shared") == b"b" + b"a" * (size - 1)


# ---- many at once


def test_put_get_stat_many(fs: FileSystem) -> None:
    fs.makedirs("/x/y")
    files = {f"/x/{n}": os.urandom(n * 400) for n in range(40)}
    files |= {f"/x/y/{n}": b"small" for n in range(10)} | {
        "/top": b"t",
        "/x/big": os.urandom(MIB * 3),
    }
    fs.put_many(files)
    wanted = [*files, "/none", "/x"]
    got = fs.get_many(wanted)
    assert got[:-2] == list(files.values())
    assert isinstance(got[-2], FileNotFoundError)
    assert isinstance(got[-1], IsADirectoryError)
    stats = fs.stat_many(wanted)
    assert [s.st_size for s in stats[:-2] if isinstance(s, os.stat_result)] == [
        len(data) for data in files.values()
    ]
    assert isinstance(stats[-2], FileNotFoundError)
    fs.put_many([("/top", b"again")])
    assert fs.read_bytes("/top") == b"again"
    assert code_of(fs.put_many, {"/nowhere/file": b""}) == errno.ENOENT


def test_walk_and_remove_tree(fs: FileSystem) -> None:
    for n in range(20):
        fs.makedirs(f"/w/{n}/sub")
        fs.put_many({f"/w/{n}/{k}": b"" for k in range(5)})
    fs.symlink("/w", "/w/link")
    seen = {top: (len(dirs), len(files)) for top, dirs, files in fs.walk("/w")}
    assert len(seen) == 41
    assert seen["/w"] == (20, 1)
    assert seen["/w/7"] == (1, 5)
    for _, dirs, _ in fs.walk("/w"):
        dirs.clear()  # not entered
    assert {entry.name for entry in fs.scandir("/w")} == {"link", *map(str, range(20))}
    assert fs.remove_tree("/w") == 1 + 20 * 7 + 1
    assert not fs.exists("/w")


def test_locate(fs: FileSystem) -> None:
    fs.write_bytes("/small", b"x")
    fs.write_bytes("/large", bytes(9 * MIB))
    (small,) = fs.locate("/small")
    assert (small.offset, small.length, small.chain) == (0, 1, 0)
    large = fs.locate("/large")
    assert sum(part.length for part in large) == 9 * MIB
    assert all(part.chain and part.addresses for part in large)
    (part,) = fs.locate("/large", 5 * MIB, 10)
    assert (part.offset, part.length) == (5 * MIB, 10)


# ---- trio


async def test_async_file_system(cluster: Cluster) -> None:
    async with await AsyncFileSystem.connect(config_of(cluster)) as fs:
        await fs.makedirs("/t/u")
        await fs.put_many({f"/t/u/{n}": bytes([n]) * n for n in range(50)})
        async with await fs.open("/t/f", "w+b") as file:
            await file.write(b"a" * 100_000)
            file.seek(0)
            assert await file.read() == b"a" * 100_000
            await file.fsync()
        assert (await fs.stat("/t/f")).st_size == 100_000
        assert len(await fs.listdir("/t/u")) == 50
        assert [top async for top, _ in fs.walk("/t")] == ["/t", "/t/u"]
        assert (await fs.get_many(["/t/u/3"])) == [b"\3\3\3"]
        with pytest.raises(FileNotFoundError):
            await fs.read_bytes("/t/none")
        assert await fs.remove_tree("/t") == 53


# ---- the end


def test_no_thread_outlives_close(cluster: Cluster) -> None:
    before = {t for t in threading.enumerate() if t.name.startswith("superfs")}
    fs = FileSystem.connect(config_of(cluster))
    fs.write_bytes("/f", bytes(100_000))
    fs.unlink("/f")
    fs.close()
    fs.close()
    after = {t for t in threading.enumerate() if t.name.startswith("superfs")}
    assert after <= before
    with pytest.raises(OSError, match=r"."):
        fs.stat("/")


@pytest.mark.allow_log("refused a handshake")
def test_wrong_token_and_wrong_address(cluster: Cluster, tmp_path: object) -> None:
    config = config_of(cluster, retry_timeout_s=0.3)
    assert (
        code_of(FileSystem.connect, ClientConfig(("unix:/nowhere.sock",), config.token_file, 0.3))
        == errno.EIO
    )
    wrong = os.path.join(str(tmp_path), "token")
    with open(wrong, "w") as file:
        file.write("superfs-token-1 AAAA\n")
    assert code_of(FileSystem.connect, ClientConfig(config.cluster, Path(wrong))) == errno.EACCES
    missing = Path(wrong + ".none")
    assert code_of(FileSystem.connect, ClientConfig(config.cluster, missing)) == errno.EACCES


def test_put_many_is_on_disk(fs: FileSystem) -> None:
    """Whatever the sizes: nothing is left that a data daemon would have to be told again."""
    files = {f"/f{n}": bytes([n]) * size for n, size in enumerate((0, 8160, 8161, 100_000))}
    fs.put_many(files)
    assert [stream.kept_bytes for stream in fs.connection.data_streams()] == [0]
    assert fs.get_many(files) == list(files.values())
