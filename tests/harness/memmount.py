"""A mount without a kernel: its operations on a cluster in memory, called as pyfuse3 would."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from harness.memcluster import MemMeta
from superfs.client.codec import pack_names
from superfs.core.ids import ROOT, ROOT_GENERATION
from superfs.core.namespace.txn import Ref
from superfs.mount.handles import DirHandle
from superfs.mount.meter import Meter
from superfs.mount.operations import Operations, served
from superfs.mount.options import MountOptions
from superfs.mount.recalls import Recalls
from superfs.mount.services import Services
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

TOP = 1
ROOT_REF = Ref(ROOT, 0, ROOT)


class Kernel:
    def __init__(self) -> None:
        self.attrs: list[int] = []
        self.pages: list[int] = []
        self.names: list[tuple[int, bytes]] = []
        self.forgotten = 0  # how often all names
        self.told = trio.Event()

    def settle(self) -> None:
        pass

    def forget_names(self) -> None:
        self.forgotten += 1

    def invalidate_inode(self, inode: int, attr_only: bool = False) -> None:
        (self.attrs if attr_only else self.pages).append(inode)
        if attr_only:
            return
        try:
            trio.from_thread.run_sync(self.told.set)
        except RuntimeError:  # in the loop itself
            self.told.set()

    def invalidate_entry(self, inode_p: int, name: bytes, deleted: int = 0) -> None:
        self.names.append((inode_p, name))

    def prune(self, inodes: Sequence[int]) -> None:
        """It forgets none."""


class AllOperations(Operations):
    """With those that the desk never hands to pyfuse3, as calls like the others."""

    @served
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._s.forget(inode_list)

    @served
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._s.files.read(self._s.handles.get(fh), off, size)

    @served
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._s.files.write(self._s.handles.get(fh), off, buf)

    @served
    async def flush(self, fh: int) -> None:
        await self._s.files.flush(self._s.handles.get(fh))

    @served
    async def release(self, fh: int) -> None:
        await self._s.files.release(self._s.handles.pop(fh))

    @served
    async def opendir(self, inode: int, ctx: object) -> int:
        return self._s.dirs.add(DirHandle(self._m.node(inode)))

    @served
    async def releasedir(self, fh: int) -> None:
        self._s.listings.stop(self._s.dirs.pop(fh))


class World:
    """One mount; `now` is its clock."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        self.now = 100.0
        self.meta = MemMeta()
        self.kernel = Kernel()
        self.services = Services.make(
            self.meta,  # type: ignore[arg-type]
            self.meta.contents_of,
            MountOptions(**{"attr_timeout_s": 1.0, "entry_timeout_s": 1.0, **options}),
            Ref(ROOT, ROOT_GENERATION, ROOT),
            data=self.meta,
            kernel=self.kernel,
            now=lambda: self.now,
            wall_ns=lambda: 2_000_000_000_000_000_000,
        )
        self.ops = AllOperations(self.services, Meter())

    @property
    def table(self) -> dict[int, Any]:
        return self.services.mounted.nodes.table

    async def write(self, name: bytes, data: bytes, *, parent: int = TOP) -> int:
        info, entry = await self.ops.create(parent, name, 0o644, os.O_RDWR, ctx())
        await self.ops.write(info.fh, 0, data)
        await self.ops.flush(info.fh)
        await self.ops.release(info.fh)
        return entry.st_ino

    async def list(self, fh: int, start: int = 0, limit: int = 10**9) -> list[tuple[bytes, int]]:
        """(name, cookie) as one readdir call of the kernel with room for `limit` answers it."""
        found: list[tuple[bytes, int]] = []

        def reply(_token: object, name: bytes, _entry: object, cookie: int) -> bool:
            if len(found) == limit:
                return False
            found.append((name, cookie))
            return True

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pyfuse3, "readdir_reply", reply)
            await self.ops.readdir(fh, start, None)  # type: ignore[arg-type]
        return found


def ctx(uid: int = 0, gid: int = 0, umask: int = 0o022) -> Any:  # noqa: ANN401
    return SimpleNamespace(uid=uid, gid=gid, umask=umask, pid=os.getpid())


def fields(*names: str) -> Any:  # noqa: ANN401
    known = ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")
    return SimpleNamespace(**{f"update_{name}": name in names for name in known})


def wanted(**values: int) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    for name, value in values.items():
        setattr(entry, name, value)
    return entry


def errno_of(error: pytest.ExceptionInfo[pyfuse3.FUSEError]) -> int:
    return error.value.errno


@asynccontextmanager
async def leased() -> AsyncIterator[tuple[World, Recalls]]:
    """Told everything under leases, for the next 20 s."""
    w = World(attr_timeout_s=0.0, entry_timeout_s=0.0)
    w.meta.grants = True
    recalls = Recalls()
    recalls.extended(w.now + 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(w.services.run)
        nursery.start_soon(recalls.run, w.services.mounted)
        await wait_all_tasks_blocked()
        await w.write(b"first", b"")  # its number is the one that the kernel's root has
        w.kernel.attrs.clear()
        yield w, recalls
        nursery.cancel_scope.cancel()


async def recall(recalls: Recalls, *names: bytes, inos: Sequence[int] = ()) -> None:
    """Of names in the root, and of inodes; until it is acknowledged."""
    acknowledged = trio.Event()
    told = meta_pb2.Recall(lease=ROOT, names=pack_names(names), inos=inos)
    recalls.recalled(meta_pb2.Invalidate(number=1, recalls=[told]), acknowledged.set)
    await acknowledged.wait()
