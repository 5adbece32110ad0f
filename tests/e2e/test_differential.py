"""Operations at random on SuperFS and on a local directory: same answers, same errno, same tree."""

from __future__ import annotations

import itertools
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from harness.worlds import OsWorld, SdkWorld, World, answer_of, tree_of
from superfs.client import ClientConfig, FileSystem

if TYPE_CHECKING:
    from pathlib import Path

    from harness.cluster import Cluster
    from harness.mount import Mount

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

names = st.sampled_from(["a", "b", "cc"])
# few, so that what one operation makes the next one meets
paths = st.sampled_from(
    ["a", "b", "cc", "a/a", "a/b", "a/cc", "b/a", "b/b", "cc/a", "a/a/a", "a/a/b", "b/a/cc"]
)
directories = st.just("") | paths
modes = st.sampled_from([0o644, 0o600, 0o755, 0o777, 0o2755, 0o1777, 0o4755, 0])
sizes = st.sampled_from([0, 1, 100, 8159, 8160, 8161, 5000, 16384, 40_000, 5 << 20])
data = st.builds(
    lambda byte, size: bytes([byte]) * size,
    st.integers(1, 255),
    st.sampled_from([0, 1, 7, 500, 4096, 8160, 9000]),
)
times = st.sampled_from([0, 1, 10**9 + 1, 10**18 + 123_456_789, -5])
xattr_names = st.sampled_from(["user.a", "user.b", "user." + "x" * 200])


class Differential(RuleBasedStateMachine):
    """Every rule does one thing in both worlds and compares what they say."""

    def __init__(self, ours: World, reference: World) -> None:
        super().__init__()
        self.ours, self.reference = ours, reference
        self.handles: dict[str, tuple[int, int]] = {}
        self.history: list[str] = []

    def both(self, verb: str, *args: object) -> None:
        expected = answer_of(self.reference, verb, *args)
        got = answer_of(self.ours, verb, *args)
        self.history.append(f"{verb}{args!r}"[:120] + f" -> {expected!r}"[:100])
        assert got == expected, "\n".join([*self.history, f"but ours says {got!r}"[:300]])

    @initialize()
    def begin_with_some_names(self) -> None:
        for path in ("a", "a/a", "b"):
            self.both("mkdir", path, 0o755)
        for path in ("cc", "a/cc", "a/a/b", "b/a"):
            self.both("create", path, 0o644, True)
            self.both("write", path, 0, path.encode() * 500)

    @rule(path=paths, mode=modes)
    def mkdir(self, path: str, mode: int) -> None:
        self.both("mkdir", path, mode)

    @rule(path=paths)
    def rmdir(self, path: str) -> None:
        self.both("rmdir", path)

    @rule(path=paths, mode=modes, exclusive=st.booleans())
    def create(self, path: str, mode: int, exclusive: bool) -> None:
        self.both("create", path, mode, exclusive)

    @rule(path=paths, offset=sizes, data=data)
    def write(self, path: str, offset: int, data: bytes) -> None:
        self.both("write", path, offset, data)

    @rule(path=paths, data=data)
    def append(self, path: str, data: bytes) -> None:
        self.both("append", path, data)

    @rule(path=paths, offset=sizes, length=sizes)
    def read(self, path: str, offset: int, length: int) -> None:
        self.both("read", path, offset, length)

    @rule(path=paths, size=sizes)
    def truncate(self, path: str, size: int) -> None:
        self.both("truncate", path, size)

    @rule(path=paths)
    def unlink(self, path: str) -> None:
        self.both("unlink", path)

    @rule(old=paths, new=paths, flags=st.sampled_from([0, 0, 0, 1, 2, 2]))
    def rename(self, old: str, new: str, flags: int) -> None:
        self.both("rename", old, new, flags)

    @rule(old=paths, new=paths)
    def link(self, old: str, new: str) -> None:
        self.both("link", old, new)

    @rule(contents=paths, path=paths)
    def symlink(self, contents: str, path: str) -> None:
        self.both("symlink", contents, path)

    @rule(path=paths)
    def readlink(self, path: str) -> None:
        self.both("readlink", path)

    @rule(path=paths)
    def stat(self, path: str) -> None:
        self.both("stat", path)

    @rule(path=paths, mode=modes)
    def chmod(self, path: str, mode: int) -> None:
        self.both("chmod", path, mode)

    @rule(path=paths, uid=st.sampled_from([-1, 0, 5]), gid=st.sampled_from([-1, 0, 7]))
    def chown(self, path: str, uid: int, gid: int) -> None:
        self.both("chown", path, uid, gid)

    @rule(path=paths, atime_ns=times, mtime_ns=times)
    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        self.both("utime", path, atime_ns, mtime_ns)

    @rule(path=directories)
    def listdir(self, path: str) -> None:
        self.both("listdir", path)

    @rule(path=paths, name=xattr_names, value=data, flags=st.sampled_from([0, 0, 1, 2]))
    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        self.both("setxattr", path, name, value[:500], flags)

    @rule(path=paths, name=xattr_names)
    def getxattr(self, path: str, name: str) -> None:
        self.both("getxattr", path, name)

    @rule(path=paths, name=xattr_names)
    def removexattr(self, path: str, name: str) -> None:
        self.both("removexattr", path, name)

    @rule(path=paths)
    def listxattr(self, path: str) -> None:
        self.both("listxattr", path)


class WithHandles(Differential):
    """Open descriptors that outlive renames, unlinks and replacements."""

    @rule(handle=names, path=paths)
    def open(self, handle: str, path: str) -> None:
        self.close(handle)
        found = []
        for world in (self.reference, self.ours):
            assert isinstance(world, OsWorld)
            try:
                found.append(os.open(world.top / path, os.O_RDWR))
            except OSError as error:
                found.append(-(error.errno or 0))
        self.history.append(f"open{(handle, path)!r} -> {found}")
        assert found[0] == found[1] or (found[0] >= 0 and found[1] >= 0), self.history
        if found[0] >= 0:
            self.handles[handle] = (found[0], found[1])

    def close(self, handle: str) -> None:
        for fd in self.handles.pop(handle, ()):
            os.close(fd)

    @rule(handle=names, offset=sizes, data=data, cut=sizes | st.none())
    def use(self, handle: str, offset: int, data: bytes, cut: int | None) -> None:
        if handle not in self.handles:
            return
        answers = []
        for fd in self.handles[handle]:
            wrote = os.pwrite(fd, data, offset)
            if cut is not None:
                os.ftruncate(fd, cut)
            info = os.fstat(fd)
            read = os.pread(fd, 10_000, max(0, offset - 100))
            answers.append((wrote, info.st_size, info.st_nlink, oct(info.st_mode), read))
        self.history.append(f"use{(handle, offset, len(data), cut)!r}")
        assert answers[0] == answers[1], "\n".join(self.history)

    def teardown(self) -> None:
        for handle in list(self.handles):
            self.close(handle)
        assert isinstance(self.reference, OsWorld)
        assert isinstance(self.ours, OsWorld)
        assert tree_of(self.ours.top) == tree_of(self.reference.top), "\n".join(self.history)


def some_steps(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        print_blob=True,
    )


def run_on_mount(place: Path, tmp_path: Path, limits: settings) -> None:
    numbers = itertools.count()

    def machine() -> WithHandles:
        number = next(numbers)
        tops = [top / f"example{number}" for top in (place, tmp_path)]
        for top in tops:
            top.mkdir()
            top.chmod(0o755)
        if number:
            shutil.rmtree(place / f"example{number - 1}", ignore_errors=True)
            shutil.rmtree(tmp_path / f"example{number - 1}", ignore_errors=True)
        return WithHandles(OsWorld(tops[0]), OsWorld(tops[1]))

    old = os.umask(0o022)
    try:
        run_state_machine_as_test(machine, settings=limits)  # type: ignore[arg-type]
    finally:
        os.umask(old)


def run_on_sdk(shared: Mount, tmp_path: Path, limits: settings) -> None:
    cluster = shared.cluster
    config = ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
    numbers = itertools.count()

    class Sdk(Differential):
        def __init__(self) -> None:
            number = next(numbers)
            self.top = f"example-{number}"
            (tmp_path / self.top).mkdir(mode=0o755)
            fs.mkdir(self.top, 0o755)
            super().__init__(SdkWorld(fs, f"/{self.top}"), OsWorld(tmp_path / self.top))

        def teardown(self) -> None:
            # seen through the mount: the same names and bytes, either way
            mounted = tree_of(shared.point / self.top)
            assert mounted == tree_of(tmp_path / self.top), "\n".join(self.history)
            fs.remove_tree(self.top)
            shutil.rmtree(tmp_path / self.top)

    old = os.umask(0o022)
    try:
        with FileSystem.connect(config) as fs:
            run_state_machine_as_test(Sdk, settings=limits)
    finally:
        os.umask(old)


def test_sdk_against_local_directory(cluster: Cluster, shared_mount: Mount, tmp_path: Path) -> None:
    run_on_sdk(shared_mount, tmp_path, some_steps(100, 50))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_sdk_against_local_directory_at_length(
    cluster: Cluster, shared_mount: Mount, tmp_path: Path
) -> None:
    run_on_sdk(shared_mount, tmp_path, some_steps(2000, 100))


def test_mount_against_local_directory(place: Path, tmp_path: Path) -> None:
    run_on_mount(place, tmp_path, some_steps(100, 50))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_mount_against_local_directory_at_length(place: Path, tmp_path: Path) -> None:
    run_on_mount(place, tmp_path, some_steps(2000, 100))
