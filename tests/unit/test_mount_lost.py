"""After a lost log the mount has answered what never was: any answer of the server is newer."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, cast

import pytest
from pyfuse3 import FUSEError
from trio.testing import wait_all_tasks_blocked

from harness.memclient import MemConnection
from harness.memmount import TOP, World, ctx, errno_of, leased
from superfs.client.file import OpenInode
from superfs.core.attrs import Set
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.mount.losses import LOST_MAX, Losses
from superfs.rpc.pending import run_sync
from unit.test_mount_leases import settled

if TYPE_CHECKING:
    from superfs.client.connection import Connection

AHEAD = 1_000_000


@pytest.mark.parametrize("is_open", [False, True])
async def test_the_servers_attributes_count_again(*, is_open: bool) -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        node = w.table[ino]
        info = await w.ops.open(ino, os.O_RDONLY, ctx()) if is_open else None
        assert node.attr is not None
        node.attr = node.attr.copy()
        node.attr.change, node.attr.size = AHEAD, 77  # done here, and lost
        node.packed = None
        recalls.lost([node.ino], FsError(Code.IO, "because"), lambda: None)
        await settled()
        assert (await w.ops.getattr(ino, ctx())).st_size == 5
        if info is not None:
            assert w.table[ino].file.contents is None or w.table[ino].file.contents.losses == 1
            await w.ops.release(info.fh)


async def test_a_file_whose_removal_is_lost_is_there_again() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        node = w.table[ino]
        assert node.attr is not None
        gone = node.attr.copy()
        gone.nlink, gone.change = 0, AHEAD
        w.services.mounted.cache.bury(node, gone)
        recalls.lost([node.ino], FsError(Code.IO, "because"), lambda: None)
        await settled()
        w.services.mounted.cache.changed(w.table[TOP], b"a")
        assert (await w.ops.lookup(TOP, b"a", ctx())).st_nlink == 1


def test_contents_that_were_lost_are_read_anew() -> None:
    world = MemConnection()
    file = OpenInode(cast("Connection", world), run_sync(world.new_file()), inline=b"")
    run_sync(file.write(0, b"true"))
    run_sync(file.flush())
    ahead = file.attr
    ahead.change, ahead.size = AHEAD, 99
    file.observe(ahead)
    file.lose(FsError(Code.IO, "because"))
    assert run_sync(file.read(0, 100)) == b"true"
    assert run_sync(file.setattr(int(Set.MODE), mode=0o600)).size == 4


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_directory_that_has_lost_names_is_not_synced(*, is_open: bool) -> None:
    """It is often opened for nothing else."""
    async with leased() as (w, recalls):
        heard: list[bool] = []
        before = await w.ops.opendir(TOP, ctx()) if is_open else 0
        error = FsError(Code.IO, "because")
        recalls.lost([w.table[TOP].ino, 12345], error, lambda: heard.append(True))
        assert not heard
        await settled()
        assert heard
        opened = before or await w.ops.opendir(TOP, ctx())
        with pytest.raises(FUSEError) as raised:
            await w.ops.fsyncdir(opened, False)
        assert errno_of(raised) == errno.EIO
        await w.ops.fsyncdir(opened, False)


async def test_a_file_that_has_lost_changes_while_it_was_not_open_is_not_synced() -> None:
    async with leased() as (w, recalls):
        ino = await w.write(b"a", b"hello")
        recalls.lost([w.table[ino].ino], FsError(Code.IO, "because"), lambda: None)
        await settled()
        info = await w.ops.open(ino, os.O_RDONLY, ctx())
        with pytest.raises(FUSEError) as raised:
            await w.ops.fsync(info.fh, False)
        assert errno_of(raised) == errno.EIO
        await w.ops.fsync(info.fh, False)
        await w.ops.release(info.fh)


def test_of_many_losses_those_of_directories_are_remembered() -> None:
    losses, error = Losses(), FsError(Code.IO, "because")
    losses.note([ROOT, *range(LOST_MAX)], error)
    assert ROOT in losses
    assert 1 in losses
    assert 0 not in losses


@pytest.mark.allow_log("is not shipped")
async def test_what_cannot_be_shipped_keeps_nothing_else() -> None:
    w = World()
    info, _ = await w.ops.create(TOP, b"a", 0o644, os.O_RDWR, ctx())
    await wait_all_tasks_blocked()

    async def sync() -> None:
        raise FsError(Code.UNAVAILABLE, "away")

    w.meta.sync = sync  # type: ignore[method-assign]
    await w.ops.unlink(TOP, b"a", ctx())
    assert w.services.mounted.opens.registered == 1
    await w.ops.release(info.fh)
    await w.services.finish()
    assert w.services.mounted.opens.registered == 0
