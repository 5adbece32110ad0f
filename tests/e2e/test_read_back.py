"""Small files that are read after they were written: from memory, and never an older version."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from e2e.test_delegation import DATA, make, messages, mounts, sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.mount import Mount

__all__ = ["mounts"]
pytestmark = [pytest.mark.fuse, pytest.mark.slow]
COUNT, STEPS, NAMES = 300, 400, 6
BYTES_MAX = 12_000  # on both sides of what metad keeps


def read(path: Path) -> bytes:
    """Of what the kernel has, only the attributes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def test_what_was_written_is_read_without_asking(mounts: tuple[Mount, Mount]) -> None:
    top = mounts[0].point / "back"
    top.mkdir()
    make(top, COUNT)
    sync(top)
    for number in range(COUNT):
        file = top / f"f{number:05d}"
        file.chmod(0o600)
        file.rename(top / f"g{number:05d}")
        os.link(top / f"g{number:05d}", top / f"h{number:05d}")
    sync(top)
    before = messages(mounts[0])
    for number in range(COUNT):
        assert read(top / f"h{number:05d}") == DATA + b"%d" % number
    assert messages(mounts[0]) - before < COUNT / 10


def rename(file: Path) -> Path:
    return file.rename(file.with_name("moved"))


def link(file: Path) -> Path:
    file.with_name("other").hardlink_to(file)
    return file.with_name("other")


def chmod(file: Path) -> Path:
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("change", [rename, link, chmod])
@pytest.mark.parametrize("when", ["written", "synced", "closed"])
def test_what_is_overwritten_when_its_name_changes(
    mounts: tuple[Mount, Mount], change: Callable[[Path], Path], when: str
) -> None:
    top = mounts[0].point / "over"
    top.mkdir()
    for number in range(3):  # it comes to be held
        (top / f"{number}").write_bytes(DATA)
    file = top / "file"
    file.write_bytes(DATA)
    assert read(file) == DATA
    with open(file, "r+b", buffering=0) as opened:
        opened.write(b"new")
        if when == "synced":
            os.fsync(opened.fileno())
        if when != "closed":
            file = change(file)
    if when == "closed":
        file = change(file)
    assert read(file) == b"new" + DATA[3:]


class Model:
    """Names and their contents; two names may be of one file."""

    def __init__(self, mounts: tuple[Mount, Mount], seed: int) -> None:
        self.tops = [mount.point / "model" for mount in mounts]
        self.tops[0].mkdir()
        self.rng = random.Random(seed)
        self.files: dict[str, list[bytes]] = {}  # a list of one: shared by the names of a file
        self.writes = 0

    def path(self, name: str) -> Path:
        """Mostly through the first mount, which so comes to hold the directory."""
        return self.rng.choices(self.tops, (9, 1))[0] / name

    def some(self) -> bytes:
        self.writes += 1
        word = b"%07d " % self.writes
        return word * (self.rng.choice((1, 10, 400, BYTES_MAX // 8)))

    def name(self) -> str:
        return f"n{self.rng.randrange(NAMES)}"

    def write(self) -> None:
        name, data = self.name(), self.some()
        self.path(name).write_bytes(data)
        self.files.setdefault(name, [b""])[0] = data

    def overwrite(self) -> None:
        """A part of it, by a name that is moved or doubled while it is open."""
        name, data = self.known(), self.some()
        at = self.rng.randrange(len(self.files[name][0]) + 1)
        with open(self.path(name), "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), data, at)
            old = self.files[name][0]
            self.files[name][0] = old[:at] + data + old[at + len(data) :]
            if self.rng.random() < 0.5:
                os.fsync(file.fileno())
            self.rng.choice((self.rename, self.link, self.chmod))(name)

    def append(self) -> None:
        name, data = self.known(), self.some()
        with open(self.path(name), "ab") as file:
            file.write(data)
        self.files[name][0] += data

    def truncate(self) -> None:
        name = self.known()
        size = self.rng.randrange(len(self.files[name][0]) + 1)
        os.truncate(self.path(name), size)
        self.files[name][0] = self.files[name][0][:size]

    def rename(self, name: str = "") -> None:
        name, new, top = name or self.known(), self.name(), self.path("")
        os.rename(top / name, top / new)
        if self.files[name] is not self.files.get(new):
            self.files[new] = self.files.pop(name)

    def link(self, name: str = "") -> None:
        name, new, top = name or self.known(), self.name(), self.path("")
        if new not in self.files:
            os.link(top / name, top / new)
            self.files[new] = self.files[name]

    def chmod(self, name: str = "") -> None:
        self.path(name or self.known()).chmod(self.rng.choice((0o600, 0o644)))

    def unlink(self) -> None:
        name = self.known()
        self.path(name).unlink()
        del self.files[name]

    def known(self) -> str:
        if not self.files:
            self.write()
        return self.rng.choice(sorted(self.files))

    @property
    def steps(self) -> list[Callable[[], None]]:
        return [
            self.write, self.write, self.overwrite, self.overwrite, self.append, self.truncate,
            self.rename, self.link, self.chmod, self.unlink,
        ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_what_is_read_is_what_was_written_last(mounts: tuple[Mount, Mount], seed: int) -> None:
    model = Model(mounts, seed)
    for step in range(STEPS):
        todo = model.rng.choice(model.steps)
        todo()
        name = model.known()
        top = model.rng.choices(model.tops, (9, 1))[0]
        assert read(top / name) == model.files[name][0], (step, todo.__name__, name)
    assert sorted(os.listdir(model.tops[1])) == sorted(model.files)
