"""Whole trees in and out again, with everything that tar would keep."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.client import FileSystem
    from superfs.client.progress import Progress

MIB = 1 << 20
ACL = (
    b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0"
    b"\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff"
)


def make_tree(top: Path) -> None:
    top.mkdir()
    for number in range(30):
        folder = top / f"dir{number % 3}" / f"sub{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(os.urandom(number * 700))
    (top / "large").write_bytes(os.urandom(3 * MIB + 7))
    (top / "dir0" / os.fsdecode(b"\xff\xfe\n")).write_bytes(b"strange name")
    os.link(top / "large", top / "dir1" / "hard")
    os.link(top / "large", top / "dir2" / "harder")
    os.symlink("../large", top / "dir1" / "soft")
    os.symlink("/nowhere/at/all", top / "dangling")
    os.mkfifo(top / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(top)
        server.bind("socket")
        os.chdir(here)
    if os.geteuid() == 0:
        os.mknod(top / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.chown(top / "dir1", 123, 456)
        os.chown(top / "dangling", 7, 8, follow_symlinks=False)
    with (top / "sparse").open("wb") as file:
        file.seek(40 * MIB)
        file.write(b"end")
    (top / "dir2").chmod(0o2751)
    (top / "large").chmod(0o4755)
    for path in (top / "large", top / "dir2"):
        for name, value in {"user.note": b"\0\1binary", "system.posix_acl_access": ACL}.items():
            with contextlib.suppress(OSError):  # a tmpfs knows no user xattrs
                os.setxattr(path, name, value)
    os.utime(top / "fifo", ns=(1_000_000_007, 2_000_000_009))
    os.utime(top / "dangling", ns=(11, -5_000_000_000), follow_symlinks=False)
    os.utime(top / "dir0", ns=(1, 3_000_000_001))
    os.utime(top, ns=(5, 6))


def snapshot(top: Path) -> dict[str, Any]:
    """Everything that a copy must keep, by relative path."""
    found: dict[str, Any] = {}
    names: dict[int, list[str]] = {}
    for folder, directories, files in os.walk(top):
        for name in [*directories, *files, "."]:
            path = os.path.join(folder, name)
            if name == "." and folder != str(top):
                continue
            s = os.lstat(path)
            relative = os.path.relpath(path, top)
            contents: object = None
            if stat.S_ISREG(s.st_mode):
                with open(path, "rb") as file:
                    contents = file.read()
                names.setdefault(s.st_ino, []).append(relative)
            elif stat.S_ISLNK(s.st_mode):
                contents = os.readlink(path)
            labels = {
                label: os.getxattr(path, label, follow_symlinks=False)
                for label in os.listxattr(path, follow_symlinks=False)
            }
            device = s.st_rdev if stat.S_ISCHR(s.st_mode) else 0
            found[relative] = (
                s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, device, contents, labels,
            )  # fmt: skip
    found["links"] = sorted(sorted(group) for group in names.values())
    return found


def test_a_tree_comes_back_as_it_went(fs: FileSystem, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    make_tree(source)
    before = snapshot(source)
    calls: list[int] = []

    def watch(progress: Progress) -> None:
        calls.append(progress.files)

    imported = fs.import_tree(source, "/copy", watch)
    assert imported.errors == []
    assert calls == sorted(calls)
    assert calls[-1] <= imported.files
    exported = fs.export_tree("/copy", back)
    assert exported.errors == []
    assert (imported.files, imported.directories) == (exported.files, exported.directories)
    assert snapshot(back) == before
    assert os.stat(back / "sparse").st_blocks * 512 < 8 * MIB, "a hole stays a hole"


def test_importing_again_changes_what_has_changed(fs: FileSystem, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    make_tree(source)
    fs.import_tree(source, "/copy")
    (source / "large").write_bytes(b"small now")
    (source / "dir0" / "new").write_bytes(os.urandom(10_000))
    again = fs.import_tree(source, "/copy")
    assert again.errors == []
    fs.export_tree("/copy", back)
    fs.export_tree("/copy", back)  # over what is there
    assert snapshot(back) == snapshot(source)


DEFAULT_ACL = (
    b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\xe8\x03\0\0"
    b"\x04\0\x05\0\xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff"
)


def test_a_default_acl_that_is_there_already_changes_nothing(
    fs: FileSystem, tmp_path: Path
) -> None:
    """The copy is what the source is, in a directory with a default ACL and at the second time."""
    source, back = tmp_path / "source", tmp_path / "back"
    (source / "sub" / "plain").mkdir(parents=True)
    (source / "sub").chmod(0o755)
    (source / "file").write_bytes(b"x")
    (source / "sub" / "file").write_bytes(bytes(9000))
    os.mkfifo(source / "sub" / "fifo")
    os.setxattr(source / "sub", "system.posix_acl_default", DEFAULT_ACL)
    before = snapshot(source)
    fs.mkdir("/copy")
    fs.setxattr("/copy", "system.posix_acl_default", DEFAULT_ACL)
    for _ in range(2):
        assert fs.import_tree(source, "/copy").errors == []
        (source / "new").mkdir(exist_ok=True)
    fs.export_tree("/copy", back)
    os.rmdir(source / "new")
    os.rmdir(back / "new")
    after = snapshot(back)
    assert {k: v for k, v in after.items() if k != "."} == {
        k: v for k, v in before.items() if k != "."
    }


def test_one_file(fs: FileSystem, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"alone")
    fs.mkdir("/d")
    fs.import_tree(tmp_path / "one", "/two")
    fs.import_tree(tmp_path / "one", "/d")
    assert fs.read_bytes("/two") == fs.read_bytes("/d/one") == b"alone"
    fs.export_tree("/two", tmp_path / "three")
    (tmp_path / "e").mkdir()
    fs.export_tree("/two", tmp_path / "e")
    assert (tmp_path / "three").read_bytes() == (tmp_path / "e" / "two").read_bytes() == b"alone"


def test_what_cannot_be_copied_is_named_and_the_rest_goes_on(
    fs: FileSystem, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good").write_bytes(b"x")
    (source / "blocked").mkdir()
    (source / "blocked" / "file").write_bytes(b"x")
    fs.mkdir("/copy")
    fs.write_bytes("/copy/blocked", b"a file where a directory should go")
    progress = fs.import_tree(source, "/copy")
    assert fs.read_bytes("/copy/good") == b"x"
    assert [os.path.basename(path) for path, _ in progress.errors] == ["blocked"]
    assert progress.errors_total == 1
    with pytest.raises(FileNotFoundError):
        fs.import_tree(tmp_path / "nothing", "/copy")
