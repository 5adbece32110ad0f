"""A mount in memory that has listed a directory in which another client makes and changes files."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from trio.testing import wait_all_tasks_blocked

from harness.memmount import TOP, World, ctx
from superfs.client.codec import pack_names
from superfs.core.attrs import Set
from superfs.core.ids import ROOT
from superfs.core.namespace.txn import Caller, Ref
from superfs.core.namespace.verbs import VERBS
from superfs.mount.recalls import Recalls
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from superfs.core.namespace.outcome import Outcome
    from superfs.mount.nodes import Node

FILES = 100


class Dir:
    """A mount that has listed its root, in which another client has made `count` files."""

    def __init__(self, world: World, recalls: Recalls, count: int) -> None:
        self.w = world
        self.recalls = recalls
        self.names = [b"f%05d" % number for number in range(count)]
        self.inos = {name: self.another_makes(name, b"contents of " + name) for name in self.names}

    # ---- another client

    def another_makes(self, name: bytes, data: bytes) -> int:
        root = Ref(ROOT, 1, ROOT)
        attr = self.run("create", root, name, 0o100644).attr
        assert attr is not None
        self.another_writes(name, data)
        return attr.ino

    def another_writes(self, name: bytes, data: bytes) -> None:
        ref = self.ref(name)
        self.w.meta.data[ref.ino] = bytearray(data)
        for size in (0, len(data)):
            self.run("setattr", ref, int(Set.SIZE), size=size)

    def another_spills(self, name: bytes) -> None:
        """Its contents move to data daemons."""
        attr = self.run("new_data", self.ref(name)).attr
        assert attr is not None
        ref, change = self.ref(name), attr.change
        self.run("publish", ref, attr.data_generation, spill=True, inline_change=change)

    def another_publishes(self, name: bytes, data: bytes) -> None:
        """Of a file on data daemons; not shorter than before."""
        ref = self.ref(name)
        attr = self.run("getattr", ref).attr
        assert attr is not None
        self.w.meta.data[ref.ino] = bytearray(data)
        self.run("publish", ref, attr.data_generation, size=len(data))

    def run(self, verb: str, *args: Any, **options: Any) -> Outcome:  # noqa: ANN401
        outcome: Outcome = self.w.meta.store.run(VERBS[verb], Caller(), *args, **options)
        return outcome

    def another_removes(self, name: bytes) -> None:
        self.run("unlink", Ref(ROOT, 1, ROOT), name)

    def ref(self, name: bytes) -> Ref:
        found = self.run("lookup", Ref(ROOT, 1, ROOT), name).attr
        assert found is not None
        return Ref(found.ino, found.generation, found.place)

    async def recall(self, *names: bytes) -> None:
        """Of names and inodes; returns when it is acknowledged."""
        done = trio.Event()
        inos = [self.inos[name] for name in names]
        recall = meta_pb2.Recall(lease=ROOT, inos=inos, names=pack_names(names))
        self.recalls.recalled(meta_pb2.Invalidate(number=1, recalls=[recall]), done.set)
        await done.wait()

    # ---- this one

    async def list(self) -> None:
        fh = await self.w.ops.opendir(TOP, ctx())
        assert len(await self.w.list(fh)) == len(self.names) + 2
        await self.w.ops.releasedir(fh)

    async def open(self, name: bytes, flags: int = os.O_RDONLY) -> int:
        entry = await self.w.ops.lookup(TOP, name, ctx())
        return (await self.w.ops.open(entry.st_ino, flags, ctx())).fh

    async def read(self, name: bytes, size: int = 4096) -> bytes:
        fh = await self.open(name)
        data = await self.w.ops.read(fh, 0, size)
        await self.w.ops.release(fh)
        await wait_all_tasks_blocked()
        return data

    async def read_in_order(self, count: int) -> None:
        for name in self.names[:count]:
            assert await self.read(name) == b"contents of " + name

    def node(self, name: bytes) -> Node:
        node = self.w.services.mounted.nodes.alive(self.inos[name])
        assert node is not None
        return node

    def peek(self, name: bytes) -> bytes | None:
        return self.w.services.mounted.contents.peek(self.node(name), 0, 4096)

    @property
    def asked_alone(self) -> int:
        return sum(self.w.meta.made.values())


@asynccontextmanager
async def directory(
    count: int = FILES, *, listed: bool = True, spilled: bool = False, **options: int
) -> AsyncIterator[Dir]:
    w = World(attr_timeout_s=0.0, entry_timeout_s=0.0, atime="noatime", **options)
    w.meta.grants = True
    recalls = Recalls()
    recalls.extended(w.now + 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(w.services.run)
        nursery.start_soon(recalls.run, w.services.mounted)
        await wait_all_tasks_blocked()
        made = Dir(w, recalls, count)
        if spilled:
            for name in made.names:
                made.another_spills(name)
        if listed:
            await made.list()
        yield made
        nursery.cancel_scope.cancel()
