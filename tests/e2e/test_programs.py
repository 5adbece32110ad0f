"""Real programs live on the mount."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def run(*command: str | Path, cwd: Path | None = None, ok: tuple[int, ...] = (0,)) -> str:
    env = {
        **os.environ,
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, text=True, timeout=240,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode in ok, f"{command}: {done.returncode}\n{done.stdout[-3000:]}"
    return done.stdout


def digest_of_tree(top: Path) -> dict[str, tuple[object, ...]]:
    """Relative path -> what must survive a copy: type and mode, owner, links, time, contents."""
    found: dict[str, tuple[object, ...]] = {}
    for base, dirs, files in os.walk(top):
        for name in dirs + files:
            path = Path(base, name)
            info = path.lstat()
            if path.is_symlink():
                contents = os.readlink(path)
            elif path.is_file():
                contents = hashlib.md5(path.read_bytes()).hexdigest()
            else:
                contents = ""
            links = info.st_nlink if path.is_file() and not path.is_symlink() else 0
            mtime = info.st_mtime_ns if links else 0
            key = str(path.relative_to(top))
            found[key] = (info.st_mode, info.st_uid, info.st_gid, links, mtime, contents)
    return found


def make_tree(top: Path) -> None:
    """A small tree with one of everything that archives must keep."""
    (top / "src" / "deep" / "er").mkdir(parents=True)
    for i in range(60):
        (top / "src" / f"file{i}.txt").write_text(f"{i}\n" * (i * 20))
    (top / "src" / "deep" / "big.bin").write_bytes(os.urandom(700_000))
    (top / "src" / "deep" / "er" / "exec.sh").write_text("#!/bin/sh\necho ran $1\n")
    (top / "src" / "deep" / "er" / "exec.sh").chmod(0o755)
    (top / "src" / "secret").write_text("x")
    (top / "src" / "secret").chmod(0o400)
    os.link(top / "src" / "file3.txt", top / "src" / "deep" / "hard")
    os.symlink("../file3.txt", top / "src" / "deep" / "soft")
    os.symlink("/nowhere", top / "src" / "dangling")
    os.mkfifo(top / "src" / "pipe")
    os.chown(top / "src" / "file5.txt", 1234, 4321)
    os.utime(top / "src" / "file6.txt", ns=(10**18 + 1, 10**18 + 987654321))
    with open(top / "src" / "sparse", "wb") as file:
        file.truncate(5_000_000)
        file.seek(3_000_000)
        file.write(b"island")


def test_git(place: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    run("git", "init", "-q", "-b", "main", source)
    for i in range(120):
        path = source / f"d{i % 7}" / f"f{i}.c"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"int f{i}(void) {{ return {i}; }}\n" * (i + 1))
    run("git", "add", ".", cwd=source)
    run("git", "commit", "-qm", "first", cwd=source)
    run("git", "clone", "-q", "--bare", source, place / "bare.git")
    run("git", "clone", "-q", place / "bare.git", place / "work")
    work = place / "work"
    assert run("git", "status", "--porcelain", cwd=work) == ""
    for i in range(4):
        (work / "d1" / f"new{i}.txt").write_text(f"change {i}\n")
        run("git", "mv", f"d2/f{2 + 7 * i}.c", f"d3/moved{i}.c", cwd=work)
        run("git", "add", "-A", cwd=work)
        run("git", "commit", "-qm", f"change {i}", cwd=work)
    run("git", "push", "-q", "origin", "HEAD:main", cwd=work)
    run("git", "gc", "-q", "--prune=now", cwd=work)
    run("git", "gc", "-q", cwd=place / "bare.git")
    run("git", "fsck", "--strict", cwd=work)
    run("git", "checkout", "-q", "HEAD~4", cwd=work)
    run("git", "checkout", "-q", "main", cwd=work)
    assert run("git", "status", "--porcelain", cwd=work) == ""
    assert run("git", "rev-list", "--count", "HEAD", cwd=work).strip() == "5"


def test_make_of_a_c_project(place: Path) -> None:
    (place / "include").mkdir()
    (place / "include" / "all.h").write_text("".join(f"int f{i}(int);\n" for i in range(12)))
    for i in range(12):
        (place / f"f{i}.c").write_text(f'#include "all.h"\nint f{i}(int x) {{ return x + {i}; }}\n')
    calls = "".join(f" s = f{i}(s);" for i in range(12))
    (place / "main.c").write_text(
        '#include <stdio.h>\n#include "all.h"\n'
        f'int main(void) {{ int s = 0;{calls} printf("%d\\n", s); return 0; }}\n'
    )
    objects = "main.o " + " ".join(f"f{i}.o" for i in range(12))
    (place / "Makefile").write_text(
        f"CFLAGS = -O1 -Iinclude\nprogram: {objects}\n\t$(CC) -o $@ $^\n"
        f"{objects}: include/all.h\nclean:\n\trm -f program *.o\n"
    )
    run("make", "-j2", cwd=place)
    assert run(place / "program").strip() == str(sum(range(12)))
    assert "up to date" in run("make", "-j2", cwd=place)
    os.utime(place / "f3.c")
    assert "f3.c" in run("make", "-j2", cwd=place)
    run("make", "clean", cwd=place)
    assert not list(place.glob("*.o"))


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_sqlite(place: Path, journal: str) -> None:
    path = place / "base.db"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=30, isolation_level=None)

    base = connect()
    assert base.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
    base.execute("create table t(a integer primary key, b text)")
    base.execute("begin")
    base.executemany("insert into t values(?, ?)", ((i, f"row {i}" * 20) for i in range(3000)))
    base.execute("commit")
    other = connect()
    base.execute("begin immediate")
    base.execute("update t set b = 'changed' where a % 7 = 0")
    seen = other.execute("select count(*) from t where b = 'changed'").fetchone()
    assert seen == (0,), "an open transaction is seen by another connection"
    base.execute("commit")
    count = other.execute("select count(*) from t where b = 'changed'").fetchone()
    assert count == (429,)
    base.execute("begin")
    base.execute("delete from t")
    base.execute("rollback")
    for i in range(20):
        base.execute("insert into t(b) values(?)", (f"alone {i}",))
    assert other.execute("select count(*) from t").fetchone() == (3020,)
    base.execute("vacuum")
    assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    other.close()
    base.close()
    again = connect()
    assert again.execute("select count(*) from t").fetchone() == (3020,)
    again.close()


def test_tar(place: Path, tmp_path: Path) -> None:
    make_tree(tmp_path)
    expected = digest_of_tree(tmp_path / "src")
    run("tar", "-C", tmp_path, "--format=posix", "-cpf", place / "a.tar", "src")
    (place / "out").mkdir()
    run("tar", "-C", place / "out", "-xpf", place / "a.tar")
    assert digest_of_tree(place / "out" / "src") == expected
    run("tar", "-C", place / "out", "--xattrs", "--acls", "-czSf", place / "b.tgz", "src")
    (place / "again").mkdir()
    run("tar", "-C", place / "again", "--xattrs", "--acls", "-xpf", place / "b.tgz")
    assert digest_of_tree(place / "again" / "src") == expected


def test_rsync(place: Path, tmp_path: Path) -> None:
    make_tree(tmp_path)
    source = tmp_path / "src"
    os.setxattr(source / "file7.txt", "user.note", b"kept")
    run("setfacl", "-m", "u:1234:rw,d:g:5:r", source / "deep")
    expected = digest_of_tree(source)
    run("rsync", "-aHAX", f"{source}/", place / "copy")
    assert digest_of_tree(place / "copy") == expected
    assert os.getxattr(place / "copy" / "file7.txt", "user.note") == b"kept"
    acls = [run("getfacl", "-cp", top / "deep") for top in (source, place / "copy")]
    assert acls[0] == acls[1]
    assert run("rsync", "-aHAXni", f"{source}/", place / "copy") == "", "a second run has work"
    (source / "file9.txt").write_text("new contents")
    (source / "file10.txt").unlink()
    run("rsync", "-aHAX", "--delete", "--inplace", f"{source}/", place / "copy")
    assert digest_of_tree(place / "copy") == digest_of_tree(source)


def test_cp_and_mv_and_diff(place: Path, tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "src" / "pipe").unlink()
    run("cp", "-a", tmp_path / "src", place / "one")
    run("cp", "-a", "--sparse=always", place / "one", place / "two")
    run("diff", "-r", "--no-dereference", tmp_path / "src", place / "two")
    run("mv", place / "two", place / "one" / "inner")
    run("mv", place / "one" / "inner", tmp_path / "back")
    run("diff", "-r", "--no-dereference", tmp_path / "src", tmp_path / "back")


def test_pip_and_python(place: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "sunny-1.0-py3-none-any.whl"
    info = "sunny-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for i in range(40):
            archive.writestr(f"sunny/m{i}.py", f"VALUE = {i}\n")
        archive.writestr("sunny/__init__.py", "def main():\n    print('it shines')\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: sunny\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nsunny = sunny:main\n")
        archive.writestr(f"{info}/RECORD", "")
    run(sys.executable, "-m", "venv", "--without-pip", place / "env")
    python = place / "env" / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index",
        "--no-cache-dir", "--disable-pip-version-check", wheel,
    )  # fmt: skip
    assert run(place / "env" / "bin" / "sunny") == "it shines\n"
    code = "import sunny.m7, sys, json, email.message; print(sunny.m7.VALUE, sys.prefix)"
    assert run(python, "-c", code) == f"7 {place / 'env'}\n"
    run(python, "-m", "compileall", "-q", place / "env" / "lib")
    assert list((place / "env" / "lib").rglob("sunny/__pycache__/m7*.pyc"))


FIO = {
    "random": "rw=randwrite\nbs=6k\nioengine=psync\nverify=crc32c",
    "sequential": "rw=write\nbs=256k\nioengine=psync\nverify=xxhash",
    "mmap": "rw=randwrite\nbs=4k\nioengine=mmap\nverify=crc32c",
    "direct": "rw=randwrite\nbs=8k\nioengine=psync\ndirect=1\nverify=md5",
    "fsync": "rw=write\nbs=3k\nioengine=psync\nfsync=32\nverify=crc32c",
}


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
@pytest.mark.parametrize("job", FIO)
def test_fio_verify(place: Path, tmp_path: Path, job: str) -> None:
    size = {"fsync": "1536k", "direct": "8m", "mmap": "8m"}.get(job, "24m")
    text = f"[{job}]\ndirectory={place}\nsize={size}\nrandseed=42\ndo_verify=1\nverify_fatal=1\n"
    script = tmp_path / "job.fio"
    script.write_text(text + textwrap.dedent(FIO[job]) + "\n")
    run("fio", "--output-format=terse", script, cwd=tmp_path)
    run("fio", "--output-format=terse", "--verify_only", script, cwd=tmp_path)


def test_find_du_rm(place: Path, tmp_path: Path) -> None:
    for i in range(15):
        for j in range(15):
            directory = place / f"a{i}" / f"b{j}"
            directory.mkdir(parents=True)
            (directory / "f.txt").write_text("x" * (i * j))
            (directory / ".hidden").touch()
    assert run("find", place, "-name", "*.txt").count("\n") == 225
    assert run("find", place, "-type", "d", "-links", "2").count("\n") == 225
    assert run("find", place, "-size", "0", "-type", "f", "-name", "f.txt").count("\n") == 29
    total = int(run("du", "-sb", "--apparent-size", place / "a14").split()[0])
    assert total >= sum(14 * j for j in range(15))
    run("du", "-s", place)
    run("grep", "-rc", "x", place, ok=(0, 1))
    run("rm", "-rf", *place.iterdir())
    assert os.listdir(place) == []
