"""As test_delegation_two_mounts.py, with second names and moves between directories.

The kernel holds the directories of an operation and the file that it knows under a name.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.attrs import Set
from unit.test_delegation_two_mounts import FILE, NAMES, STEPS, Mount, Run, _seen

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from superfs.core.namespace.txn import Ref

SEEDS = 10
WHAT = [
    *("create", "unlink", "unlink", "rename", "rename", "link", "link", "link", "mkdir", "rmdir"),
    *("file", "file"),
]


class Linking(Run):
    def __init__(self, seed: int) -> None:
        self.keys = itertools.count(1)
        self.locked: dict[int, set[int]] = {}
        super().__init__(seed)
        self.daemon.generosity = 0.9

    def step(self, *, begins: bool) -> None:
        """Little is under way at a time, so that much can be done here."""
        for _ in range(self.rng.choice([1, 20, 20])):
            self.serve()
            self.resume()
        super().step(begins=begins)

    def others(self, number: int) -> int:
        return number if self.rng.random() < 0.985 else 3 - number

    def begin(self) -> None:
        mount = self.rng.choice(self.mounts)
        meta, rng = mount.meta, self.rng
        dirs = self.places[self.others(mount.port.number)]
        into, to = rng.choices(dirs, k=2)
        name, other = rng.choices(NAMES, k=2)
        what = rng.choice(WHAT)
        files = self.found[self.others(mount.port.number)]
        file = rng.choice(files) if files else None
        about = {into.ino, self.named(mount, into, name)}
        coro: Coroutine[Any, Any, Any]
        if what == "create":
            coro = meta.create(into, name, FILE)
        elif what == "unlink":
            coro = meta.unlink(into, name)
        elif what == "rename":
            about |= {to.ino, self.named(mount, to, other)}
            coro = meta.rename(into, name, to, other, keep=rng.random() < 0.5)
        elif what == "mkdir":
            coro = meta.mkdir(into, name, 0o755)
        elif what == "rmdir":
            coro = meta.rmdir(into, name)
        elif file is None:
            return
        elif what == "link":
            about.add(file.ino)
            coro = meta.link(file, into, name)
        else:
            about = {file.ino}
            coro = self.about_file(mount, file, into)
        if any(
            lock[0] == mount.port.number and self.locked.get(lock[1], set()) & about
            for *_, lock in self.going
        ):
            coro.close()
            return
        key = next(self.keys)
        self.locked[key] = about - {0}
        self.advance(coro, (mount.port.number, key))

    def about_file(self, mount: Mount, file: Ref, into: Ref) -> Coroutine[Any, Any, Any]:
        meta, rng = mount.meta, self.rng
        what = rng.choice([0, 0, 0, 1, 1, 1, 2, 3])
        if what == 0:
            return meta.setattr(file, int(Set.MODE), mode=rng.choice([0o600, 0o640, 0o644]))
        if what == 1:
            return meta.publish(file, 0, writes=[(rng.randrange(9), b"data")])
        return meta.getattr(file) if what == 2 else meta.read_dir(into)

    def named(self, mount: Mount, directory: Ref, name: bytes) -> int:
        """What the kernel has under this name."""
        group = mount.state.overlay.groups.get(directory.ino)
        if group is not None:
            entry = group.entries.get(name)
        else:
            entry = self.daemon.store.get_dentry(directory.ino, name)
        return entry.ino if entry is not None else 0

    def check(self) -> None:
        super().check()
        for mount in self.mounts:
            for ino, attr in mount.state.overlay.linked.items():
                if ino in mount.state.exclusive:
                    assert _seen(self.daemon.store.get_inode(ino, ino)) == _seen(attr)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_log_is_refused_and_nothing_known_is_old(seed: int) -> None:
    run = Linking(seed)
    for _ in range(4):
        for _ in range(STEPS):
            run.step(begins=True)
        run.settle()
        run.check()
