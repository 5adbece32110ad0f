"""A session of an ordinary user: the daemons check everything for the uid of its token."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from superfs.client import ClientConfig, FileSystem
from superfs.client.data import Where
from superfs.core.errors import FsError
from superfs.core.tokens import Authority, Grant, Purpose, armor, parse_key
from superfs.rpc.pending import run_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.cluster import Cluster

MIB = 1 << 20
UID, GID = 4711, 4712


@pytest.fixture
def user(cluster: Cluster, fs: FileSystem, tmp_path: Path) -> Iterator[FileSystem]:
    fs.mkdir("/home")
    fs.chown("/home", UID, GID)
    fs.mkdir("/private", 0o700)
    fs.write_bytes("/private/secret", b"secret" * 2000)
    fs.write_bytes("/readable", b"public" * 2000)
    authority = Authority(parse_key(cluster.key_file.read_text()))
    token = authority.issue(Purpose.FILE, Grant("user", "somebody", uid=UID, gid=GID))
    token_file = tmp_path / "token"
    token_file.touch(0o600)
    token_file.write_bytes(armor(token))
    config = ClientConfig((cluster.target("clusterd"),), token_file)
    with FileSystem.connect(config) as found:
        yield found


def code_of(call: object, *args: object) -> int:
    assert callable(call)
    with pytest.raises(OSError, match=r".") as caught:
        call(*args)
    assert caught.value.errno is not None
    return caught.value.errno


def test_its_own_files(user: FileSystem) -> None:
    for size in (0, 10, 5000, 3 * MIB):
        data = os.urandom(size)
        user.write_bytes("/home/f", data)
        assert user.read_bytes("/home/f") == data
        with user.open("/home/g", "w+b") as file:
            file.write(data)
            file.seek(0)
            assert file.read() == data
        user.unlink("/home/g")
        user.unlink("/home/f")
    user.write_bytes("/home/f", b"")
    found = user.stat("/home/f")
    assert (found.st_uid, found.st_gid) == (UID, GID)
    user.makedirs("/home/a/b")
    user.put_many({f"/home/a/{n}": bytes([n]) * n * 900 for n in range(20)})
    wanted = [f"/home/a/{n}" for n in range(20)]
    assert user.get_many(wanted) == [bytes([n]) * n * 900 for n in range(20)]


def test_the_files_of_others(user: FileSystem) -> None:
    assert user.read_bytes("/readable") == b"public" * 2000
    assert code_of(user.write_bytes, "/readable", b"x") == errno.EACCES
    assert code_of(user.read_bytes, "/private/secret") == errno.EACCES
    assert code_of(user.listdir, "/private") == errno.EACCES
    assert code_of(user.write_bytes, "/new", b"") == errno.EACCES
    assert code_of(user.chown, "/home", 0, 0) == errno.EPERM
    assert code_of(user.chmod, "/readable", 0o777) == errno.EPERM
    assert code_of(user.mknod, "/home/dev", stat.S_IFCHR | 0o600, 259) == errno.EPERM


def test_a_tree_of_its_own(user: FileSystem, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "small").write_bytes(b"small")
    (source / "sub" / "medium").write_bytes(os.urandom(100_000))
    (source / "large").write_bytes(os.urandom(3 * MIB))
    done = user.import_tree(source, "/home/tree")
    assert done.errors == []
    assert user.stat("/home/tree/large").st_uid == UID
    out = user.export_tree("/home/tree", tmp_path / "out")
    assert out.errors == []
    for name in ("small", "sub/medium", "large"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
        assert os.stat(tmp_path / "out" / name).st_mtime_ns == os.stat(source / name).st_mtime_ns


def test_reading_gives_no_right_to_write(user: FileSystem) -> None:
    """Past the client's own checks, at the data daemon; and a handle for writing still writes
    while another one reads."""
    with user.open_raw("/readable", os.O_RDONLY) as file:
        inode = file._handle.inode
        where, data = Where.of(inode.attr, inode._capability), user.connection.data
        assert run_sync(data.read(where, 0, 6)) == b"public"
        with pytest.raises(FsError, match="for reading only"):
            run_sync(data.write(where, 0, b"forged"))
    user.write_bytes("/home/f", b"x" * 10_000)
    with (
        user.open_raw("/home/f", os.O_RDONLY) as reader,
        user.open_raw("/home/f", os.O_WRONLY) as writer,
    ):
        writer.write(b"y" * 10_000)
        writer.sync()
        assert reader.readall() == b"y" * 10_000


def test_a_tree_into_the_directory_of_others(
    fs: FileSystem, user: FileSystem, tmp_path: Path
) -> None:
    """What is not the user's to set or to read is named, and everything else is copied."""
    fs.mkdir("/shared")
    fs.chmod("/shared", 0o1777)
    source = tmp_path / "source"
    (source / "sub" / "deep").mkdir(parents=True)
    (source / "sub" / "deep" / "file").write_bytes(b"deep")
    done = user.import_tree(source, "/shared")
    assert [os.path.basename(path) for path, _ in done.errors] == ["source"]
    assert user.read_bytes("/shared/sub/deep/file") == b"deep"
    out = user.export_tree("/", tmp_path / "out")
    assert [path for path, _ in out.errors] == ["/private"]
    assert (tmp_path / "out" / "shared" / "sub" / "deep" / "file").read_bytes() == b"deep"
