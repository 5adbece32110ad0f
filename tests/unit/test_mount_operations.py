"""Files, attributes and names of a mount, without a kernel."""

from __future__ import annotations

import errno
import os
import stat

import pyfuse3
import pytest
import trio

from harness.memmount import TOP, World, ctx, errno_of, fields, wanted
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT, ROOT_GENERATION
from superfs.core.namespace.txn import Ref
from superfs.mount.encode import REUSE_S


async def test_write_then_read_through_another_handle() -> None:
    w = World()
    ino = await w.write(b"a", b"hello")
    info = await w.ops.open(ino, os.O_RDONLY, ctx())
    assert await w.ops.read(info.fh, 1, 100) == b"ello"
    assert (await w.ops.getattr(ino, ctx())).st_size == 5
    await w.ops.release(info.fh)
    assert w.table[ino].file is None


async def test_cached_answers_ask_nothing() -> None:
    w = World()
    ino = await w.write(b"a", b"hello")
    w.meta.calls.clear()
    await w.ops.lookup(TOP, b"a", ctx())
    entry = await w.ops.getattr(ino, ctx())
    info = await w.ops.open(ino, os.O_RDONLY, ctx())
    await w.ops.flush(info.fh)
    await w.ops.release(info.fh)
    assert not w.meta.calls
    assert entry.attr_timeout == pytest.approx(1.0 - REUSE_S)
    w.now += 0.75
    assert (await w.ops.getattr(ino, ctx())).attr_timeout == pytest.approx(0.25 - REUSE_S)
    w.now += 0.5
    await w.ops.getattr(ino, ctx())
    assert w.meta.calls == {"getattr": 1}


async def test_a_parent_needs_no_question_after_a_create() -> None:
    w = World()
    await w.write(b"a", b"")
    w.meta.calls.clear()
    assert (await w.ops.getattr(TOP, ctx())).st_size == 1
    assert not w.meta.calls


async def test_an_unlinked_open_file_lives_until_it_is_released_and_forgotten() -> None:
    w = World()
    info, entry = await w.ops.create(TOP, b"a", 0o644, os.O_RDWR, ctx())
    await w.ops.write(info.fh, 0, b"data")
    await w.ops.unlink(TOP, b"a", ctx())
    assert (await w.ops.getattr(entry.st_ino, ctx())).st_nlink == 0
    assert await w.ops.read(info.fh, 0, 10) == b"data"
    assert w.meta.store.orphans
    await w.ops.release(info.fh)
    await w.ops.forget([(entry.st_ino, 1)])
    await w.services.mounted.opens.settle()
    assert not w.meta.store.orphans
    assert not +w.meta.held


async def test_a_closed_file_leaves_no_orphan() -> None:
    w = World()
    info, _ = await w.ops.create(TOP, b"a", 0o644, os.O_RDWR, ctx())
    w.now += 0.2
    await w.services.mounted.opens.settle()
    assert w.meta.calls["open"] == 1
    await w.ops.release(info.fh)
    await w.ops.unlink(TOP, b"a", ctx())
    assert not w.meta.store.orphans


async def test_release_is_late_and_open_again_cancels_it() -> None:
    w = World()
    ino = await w.write(b"a", b"x")
    first = await w.ops.open(ino, os.O_RDONLY, ctx())
    w.now += 0.2
    opens = w.services.mounted.opens
    await opens.settle()
    await w.ops.release(first.fh)
    w.now += 4
    await opens.settle()
    second = await w.ops.open(ino, os.O_RDONLY, ctx())
    w.now += 4
    await opens.settle()
    assert (w.meta.calls["open"], w.meta.calls["release"]) == (1, 0)
    await w.ops.release(second.fh)
    w.now += 6
    await opens.settle()
    assert w.meta.calls["release"] == 1


async def test_rename_over_an_open_file() -> None:
    w = World()
    old = await w.write(b"old", b"old")
    await w.write(b"new", b"new")
    info = await w.ops.open(old, os.O_RDONLY, ctx())
    await w.ops.rename(TOP, b"new", TOP, b"old", 0, ctx())
    assert await w.ops.read(info.fh, 0, 3) == b"old"
    assert (await w.ops.getattr(old, ctx())).st_nlink == 0
    await w.ops.release(info.fh)


async def test_a_name_that_others_moved_meanwhile_buries_nobody() -> None:
    w = World()
    root = Ref(ROOT, ROOT_GENERATION)
    ino = await w.write(b"n", b"x")
    await w.write(b"o", b"y")
    await w.meta.rename(root, b"n", root, b"m")  # another client
    await w.ops.rename(TOP, b"o", TOP, b"n", 0, ctx())
    assert (await w.ops.getattr(ino, ctx())).st_nlink == 1


async def test_what_was_kept_by_mistake_is_let_go() -> None:
    w = World()
    root = Ref(ROOT, ROOT_GENERATION)
    info, _ = await w.ops.create(TOP, b"a", 0o644, os.O_RDWR, ctx())
    other = await w.write(b"b", b"")
    await w.meta.rename(root, b"a", root, b"c")  # another client: "a" is another file now
    await w.meta.rename(root, b"b", root, b"a")
    await w.ops.unlink(TOP, b"a", ctx())
    assert w.meta.store.orphans
    await w.ops.forget([(other, 1)])
    await w.services.mounted.opens.settle()
    assert not w.meta.store.orphans
    await w.ops.release(info.fh)


async def test_append_goes_where_the_server_says() -> None:
    w = World()
    ino = await w.write(b"log", b"12345")
    info = await w.ops.open(ino, os.O_WRONLY | os.O_APPEND, ctx())
    await w.ops.write(info.fh, 2, b"678")
    assert bytes(w.meta.data[w.table[ino].ino]) == b"12345678"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(w.services.mounted.notify.run)
        with trio.fail_after(10):
            await w.kernel.told.wait()
        nursery.cancel_scope.cancel()
    assert w.kernel.pages == [ino]


async def test_truncating_open() -> None:
    w = World()
    ino = await w.write(b"a", b"hello")
    info = await w.ops.open(ino, os.O_WRONLY | os.O_TRUNC, ctx())
    assert (await w.ops.getattr(ino, ctx())).st_size == 0
    await w.ops.release(info.fh)


async def test_pages_are_kept_only_while_nothing_changed() -> None:
    w = World()
    ino = await w.write(b"a", b"hello")

    async def opened() -> bool:
        info = await w.ops.open(ino, os.O_RDONLY, ctx())
        await w.ops.release(info.fh)
        return bool(info.keep_cache)

    await opened()
    assert await opened()
    await w.meta.setattr(w.table[ino].ref, 32, mtime_ns=5)
    w.now += 2
    assert not await opened()
    assert await opened()


async def test_a_write_clears_setuid_for_all_but_root() -> None:
    w = World()
    ino = await w.write(b"a", b"x")
    await w.ops.setattr(ino, wanted(st_mode=0o104777), fields("mode"), None, ctx())
    info = await w.ops.open(ino, os.O_WRONLY, ctx())
    await w.ops.write(info.fh, 0, b"y")
    assert (await w.ops.getattr(ino, ctx())).st_mode & 0o7777 == 0o4777
    other = await w.ops.open(ino, os.O_WRONLY, ctx(uid=1000))
    w.kernel.attrs.clear()
    await w.ops.write(other.fh, 0, b"z")
    assert (await w.ops.getattr(ino, ctx())).st_mode & 0o7777 == 0o777
    assert set(w.kernel.attrs) == {ino}


async def test_no_xattr_means_no_question() -> None:
    w = World()
    ino = await w.write(b"a", b"x")
    w.meta.calls.clear()
    for name in (b"security.capability", b"system.posix_acl_access", b"user.none"):
        with pytest.raises(pyfuse3.FUSEError) as error:
            await w.ops.getxattr(ino, name, ctx())
        assert errno_of(error) == errno.ENODATA
    assert await w.ops.listxattr(ino, ctx()) == []
    assert not w.meta.calls
    await w.ops.setxattr(ino, b"user.k", b"v", ctx())
    assert await w.ops.getxattr(ino, b"user.k", ctx()) == b"v"
    assert await w.ops.listxattr(ino, ctx()) == [b"user.k"]
    with pytest.raises(pyfuse3.FUSEError) as error:
        await w.ops.setxattr(ino, b"system.other", b"v", ctx())
    assert errno_of(error) == errno.EOPNOTSUPP


async def test_relatime_is_set_once_and_shipped_later() -> None:
    w = World()
    ino = await w.write(b"a", b"x")
    info = await w.ops.open(ino, os.O_RDONLY, ctx())
    await w.ops.read(info.fh, 0, 1)
    entry = await w.ops.getattr(ino, ctx())
    assert entry.st_atime_ns == 2_000_000_000_000_000_000
    assert "touch" not in w.meta.calls
    await w.services.atimes.ship()
    await w.services.atimes.ship()
    assert w.meta.calls["touch"] == 1
    await w.ops.setattr(ino, wanted(st_atime_ns=7), fields("atime"), None, ctx())
    assert (await w.ops.getattr(ino, ctx())).st_atime_ns == 7


@pytest.mark.allow_log("a bug in the mount")
async def test_errors_become_errnos_and_bugs_become_eio(caplog: pytest.LogCaptureFixture) -> None:
    w = World()
    for error, expected in (
        (FsError(Code.QUOTA), errno.EDQUOT),
        (RuntimeError("a bug"), errno.EIO),
    ):
        w.meta.fail["mkdir"] = error  # type: ignore[assignment]
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await w.ops.mkdir(TOP, b"d", 0o755, ctx())
        assert errno_of(raised) == expected
    assert "a bug" in caplog.text
    assert w.ops.gauges["mkdir"].errors == 2
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await w.ops.read(12345, 0, 1)
    assert errno_of(raised) == errno.EINVAL


async def test_negative_names_are_believed_only_on_request() -> None:
    w = World()
    with pytest.raises(pyfuse3.FUSEError) as error:
        await w.ops.lookup(TOP, b"none", ctx())
    assert errno_of(error) == errno.ENOENT
    w = World(negative_timeout_s=2.0)
    entry = await w.ops.lookup(TOP, b"none", ctx())
    assert (entry.st_ino, entry.entry_timeout) == (0, 2.0)


async def test_special_files_links_and_exchange() -> None:
    w = World()
    fifo = await w.ops.mknod(TOP, b"p", stat.S_IFIFO | 0o644, 0, ctx())
    assert stat.S_ISFIFO(fifo.st_mode)
    link = await w.ops.symlink(TOP, b"l", b"target", ctx(uid=5, gid=6))
    assert await w.ops.readlink(link.st_ino, ctx()) == b"target"
    assert (link.st_uid, link.st_gid) == (5, 6)
    ino = await w.write(b"a", b"A")
    hard = await w.ops.link(ino, TOP, b"b", ctx())
    assert (hard.st_ino, hard.st_nlink) == (ino, 2)
    await w.ops.unlink(TOP, b"a", ctx())
    assert (await w.ops.getattr(ino, ctx())).st_nlink == 1
    await w.ops.rename(TOP, b"b", TOP, b"l", 2, ctx())
    assert (await w.ops.lookup(TOP, b"l", ctx())).st_ino == ino
    assert (await w.ops.lookup(TOP, b"b", ctx())).st_ino == link.st_ino
    with pytest.raises(pyfuse3.FUSEError) as error:
        await w.ops.rename(TOP, b"b", TOP, b"l", 1, ctx())
    assert errno_of(error) == errno.EEXIST


async def test_finish_leaves_nothing_behind() -> None:
    w = World()
    info, entry = await w.ops.create(TOP, b"a", 0o644, os.O_RDWR, ctx())
    await w.ops.write(info.fh, 0, b"late")
    await w.services.finish()
    stored = w.meta.store.get_inode(ROOT, w.table[entry.st_ino].ino)
    assert stored is not None
    assert stored.size == 4


@pytest.mark.allow_log("the last close failed")
async def test_what_the_last_close_could_not_write_is_given_up() -> None:
    """Or it would be written later, over what the next who opens the file has written."""
    w = World()
    ino = await w.write(b"a", b"x")
    info = await w.ops.open(ino, os.O_WRONLY, ctx())
    await w.ops.write(info.fh, 0, b"y")
    contents = w.table[ino].file.contents
    contents.fail = FsError(Code.UNAVAILABLE, "away")
    with pytest.raises(pyfuse3.FUSEError):
        await w.ops.flush(info.fh)
    assert contents.is_dirty
    await w.ops.release(info.fh)
    assert not contents.is_dirty
    assert w.table[ino].file is None
