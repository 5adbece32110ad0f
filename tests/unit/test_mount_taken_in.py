"""What the kernel has been told and not taken in yet, when it is told to drop it, or drops late."""

from __future__ import annotations

import errno
import os

import trio

from harness.memmount import ROOT_REF, TOP, ctx, fields, leased, recall, wanted
from superfs.core.ids import ROOT
from superfs.mount.notify import NO_NAME


async def test_the_answer_to_a_link_is_not_kept() -> None:
    """Another process may have changed the inode, by the name it had, before the kernel takes the
    answer in, which it does whatever it was told since."""
    async with leased() as (w, _):
        ino = await w.write(b"a", b"hello")
        assert (await w.ops.link(ino, TOP, b"b", ctx())).attr_timeout == 0
        assert (await w.ops.getattr(ino, ctx())).attr_timeout > 0
        assert (await w.ops.mknod(TOP, b"c", 0o100644, 0, ctx())).attr_timeout > 0
        await w.meta.link(w.table[ino].ref, ROOT_REF, b"d")
        info, entry = await w.ops.create(TOP, b"d", 0o644, os.O_RDWR, ctx())
        assert (entry.st_ino, entry.attr_timeout) == (ino, 0)
        await w.ops.release(info.fh)


async def test_attributes_that_came_with_a_change_are_dropped_when_they_have_arrived() -> None:
    async with leased() as (w, recalls):
        ino = (await w.ops.mknod(TOP, b"a", 0o100644, 0, ctx())).st_ino
        await recall(recalls, inos=[ino])
        assert w.kernel.names == [(TOP, NO_NAME)], "which waits for the lock of the directory"
        assert w.kernel.attrs == [ino, ino]
        w.now += 2
        await recall(recalls, inos=[ino])
        assert w.kernel.names == [(TOP, NO_NAME)]
        assert w.kernel.attrs == [ino] * 3


async def test_attributes_of_what_the_kernel_does_not_know_yet_are_dropped_later() -> None:
    async with leased() as (w, recalls):
        ino = (await w.ops.mknod(TOP, b"a", 0o100644, 0, ctx())).st_ino
        w.now += 2
        told: list[int] = []

        def unknown(inode: int, attr_only: bool = False) -> None:
            told.append(inode)
            if len(told) == 1:
                raise OSError(errno.ENOENT, "no such inode")

        w.kernel.invalidate_inode = unknown  # type: ignore[method-assign]
        await recall(recalls, inos=[ino])
        assert w.kernel.names == [(TOP, NO_NAME)]
        assert told == [ino, ino]


async def test_what_would_have_to_be_dropped_later_is_not_given_in_a_contended_directory() -> None:
    async with leased() as (w, recalls):
        await w.write(b"a", b"hello")
        root = w.services.mounted.nodes.root
        root.busy = 1
        await recall(recalls, b"a")
        root.busy = 0
        made = await w.ops.mknod(TOP, b"b", 0o100644, 0, ctx())
        assert made.attr_timeout == 0
        assert (await w.ops.lookup(TOP, b"b", ctx())).attr_timeout > 0
        await w.ops.forget([(made.st_ino, 2)])
        assert (await w.ops.lookup(TOP, b"b", ctx())).attr_timeout == 0


async def test_the_answer_to_a_setattr_is_not_kept() -> None:
    """The kernel takes it in whatever it was told since it asked."""
    async with leased() as (w, _):
        ino = await w.write(b"a", b"hello")
        entry = await w.ops.setattr(ino, wanted(st_mode=0o100600), fields("mode"), None, ctx())
        assert entry.attr_timeout == 0
        assert (await w.ops.getattr(ino, ctx())).attr_timeout > 0


async def test_what_the_kernel_has_listed_of_a_directory_goes_with_its_attributes() -> None:
    """Its times alone would not tell: whoever changes a directory can set them back."""
    async with leased() as (w, recalls):
        w.now += 2
        await recall(recalls, inos=[ROOT])
        assert (w.kernel.pages, w.kernel.attrs) == ([TOP], [])
        await trio.to_thread.run_sync(recalls.lapsed)
        assert w.kernel.pages == [TOP, TOP]


async def test_who_has_a_file_open_reads_what_another_client_has_written() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        info = await w.ops.open(ino, os.O_RDONLY, ctx())
        await w.ops.read(info.fh, 0, 10)
        contents = w.table[ino].file.contents
        assert not contents.recalls
        await recall(recalls, inos=[ino])
        assert contents.recalls == 1
        await trio.to_thread.run_sync(recalls.lapsed)
        assert contents.recalls == 2
        await w.ops.release(info.fh)
