"""`superfs ls`, `stat`, `cat`, `put`, `get`, `import`, `export`: the same files, past the mount."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.daemon import BIN
from harness.waiting import wait_until
from harness.zygote import run_raw

if TYPE_CHECKING:
    from pathlib import Path

    from harness.cluster import Cluster

pytestmark = pytest.mark.slow


class Shell:
    def __init__(self, cluster: Cluster) -> None:
        self.where = ["--cluster", cluster.target("clusterd")]
        self.where += ["--token-file", str(cluster.token_file)]

    def raw(self, command: str, *words: str | Path, status: int = 0, given: bytes = b"") -> bytes:
        line = [str(BIN / "superfs"), command, *self.where, *map(str, words)]
        if given:
            done = subprocess.run(line, input=given, capture_output=True, timeout=120, check=False)
        else:
            done = run_raw(*line, timeout=120)
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{command} {words}: {done.returncode}\n{said.decode()}"
        assert status or not done.stderr, done.stderr.decode()
        return said if status else done.stdout

    def __call__(self, command: str, *words: str | Path, status: int = 0) -> str:
        return self.raw(command, *words, status=status).decode()


@pytest.fixture
def superfs(cluster: Cluster) -> Shell:
    return Shell(cluster)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Modes, times, links, names and sizes of all sorts."""
    top = tmp_path / "tree"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "small").write_bytes(b"small")
    (top / "empty").write_bytes(b"")
    (top / "big").write_bytes(os.urandom(3_000_000))
    (top / "sub" / "exec").write_bytes(b"#!/bin/sh\n")
    (top / "sub" / "exec").chmod(0o751)
    (top / "sub" / "linked").hardlink_to(top / "small")
    (top / "sub" / "soft").symlink_to("../small")
    (top / "sub" / "dangling").symlink_to("nowhere")
    os.mkfifo(top / "sub" / "fifo")
    (top / "sub" / "näme with\nnewline").write_bytes(b"x")
    with open(os.fsencode(top) + b"/\xff\xfe", "wb") as file:
        file.write(b"bytes")
    os.setxattr(top / "small", "user.colour", b"blue")
    os.utime(top / "small", ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    (top / "sub" / "deep").chmod(0o2755)
    os.utime(top / "sub", ns=(5, 6_000_000_007))
    return top


def look(top: Path) -> dict[bytes, tuple[object, ...]]:
    """What of a tree must be kept, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(os.fsencode(top)):
        for name in (*directories, *files):
            path = os.path.join(folder, name)
            s = os.lstat(path)
            kind = stat.S_IFMT(s.st_mode)
            contents: bytes | None = None
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    contents = file.read()
            elif kind == stat.S_IFLNK:
                contents = os.readlink(path)
            xattrs = {n: os.getxattr(path, n, follow_symlinks=False)
                      for n in os.listxattr(path, follow_symlinks=False)}  # fmt: skip
            links = s.st_nlink if kind == stat.S_IFREG else 0
            found[os.path.relpath(path, os.fsencode(top))] = (
                s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, links, contents, xattrs,
            )  # fmt: skip
    return found


@pytest.mark.fuse
def test_a_tree_in_through_the_mount_and_out(
    superfs: Shell, tree: Path, tmp_path: Path, place: Path
) -> None:
    at = f"/{place.name}/tree"
    done = json.loads(superfs("import", "--json", tree, at))
    assert (done["files"], done["directories"], done["errors"]) == (10, 3, [])
    assert look(place / "tree") == look(tree)
    superfs("export", at, tmp_path / "out")
    assert look(tmp_path / "out") == look(tree)
    assert "imported 10 files" in superfs("import", tree, at), "again is harmless"

    def same() -> bool:
        try:
            return look(place / "tree") == look(tree)
        except OSError as error:  # names that the mount still believes in, for a second
            if error.errno != errno.ESTALE:
                raise
            return False

    wait_until(same, "the mount shows the tree", timeout_s=10)


def test_put_and_get(superfs: Shell, tmp_path: Path, tree: Path) -> None:
    top = f"/put-{os.getpid()}"
    superfs("put", "-r", tree, top)
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "file").chmod(0o640)
    superfs("put", tmp_path / "file", tree / "small", top)
    superfs.raw("put", "-", f"{top}/piped", given=b"from a pipe")
    assert superfs.raw("cat", f"{top}/file", f"{top}/piped") == data + b"from a pipe"
    assert superfs.raw("get", f"{top}/piped", "-") == b"from a pipe"
    superfs("get", f"{top}/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == 0o640
    superfs("get", "-r", top, tmp_path / "all")
    assert (tmp_path / "all" / "big").read_bytes() == (tree / "big").read_bytes()
    assert "use -r" in superfs("get", top, tmp_path / "no", status=1)
    assert "use -r" in superfs("put", tree, "/no", status=1)
    assert "is not a directory" in superfs("put", "a", "b", f"{top}/file", status=1)
    assert "No such file" in superfs("put", tmp_path / "none", top, status=1)


def test_ls_and_stat(superfs: Shell, tree: Path) -> None:
    top = f"/ls-{os.getpid()}"
    superfs("put", "-r", tree, top)
    assert superfs("ls", f"{top}/sub").splitlines() == [
        "dangling", "deep", "exec", "fifo", "linked", "näme with\\nnewline", "soft",
    ]  # fmt: skip
    assert "\\xff\\xfe" in superfs("ls", top)
    assert "-rwxr-x--x" in superfs("ls", "-l", f"{top}/sub/exec")
    assert f"{top}/sub/deep:" in superfs("ls", "-R", top)
    lines = [json.loads(line) for line in superfs("ls", "--json", top).splitlines()]
    assert {line["path"]: line["size"] for line in lines}[f"{top}/big"] == 3_000_000
    found = json.loads(superfs("stat", "--json", f"{top}/small"))
    assert (found["type"], found["mode"], found["nlink"]) == ("file", "0644", 2)
    assert found["mtime_ns"] == 987_654_321_987_654_321
    assert found["btime_ns"] > found["mtime_ns"]
    assert "with its metadata" in superfs("stat", f"{top}/small")
    big = json.loads(superfs("stat", "--json", f"{top}/big"))
    assert sum(chunk["length"] for chunk in big["chunks"]) == 3_000_000
    both = superfs("stat", "--json", f"{top}/small", f"{top}/big").splitlines()
    assert [json.loads(line)["path"] for line in both] == [f"{top}/small", f"{top}/big"]
    for command in ("ls", "stat", "cat"):
        assert "No such file" in superfs(command, f"{top}/none", status=1)
    assert "Is a directory" in superfs("cat", top, status=1)


def test_what_could_not_be_copied_is_named(superfs: Shell, tree: Path) -> None:
    assert "No such file" in superfs("import", tree / "none", "/x", status=1)
    superfs("put", tree / "small", f"/clash-{os.getpid()}")
    said = superfs("import", tree, f"/clash-{os.getpid()}/below", status=1)
    assert "Not a directory" in said


def test_excluded_names(superfs: Shell, tree: Path) -> None:
    top = f"/excluded-{os.getpid()}"
    superfs("import", "--exclude", "sub", "--exclude", "big", tree, top)
    assert superfs("ls", top).splitlines() == ["empty", "small", "\\xff\\xfe"]


def test_an_address_where_nobody_answers(cluster: Cluster) -> None:
    superfs = Shell(cluster)
    superfs.where[1] = f"unix:{cluster.dir}/nobody/clusterd.sock"
    said = superfs("fsck", status=8)
    assert "no clusterd answers" in said
