"""The mount's operations called as pyfuse3 would, on a cluster in memory, without a kernel."""

from __future__ import annotations

import errno
import os
import stat
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio

from harness.memcluster import MemMeta
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT, ROOT_GENERATION, directory_id
from superfs.core.namespace.txn import Ref
from superfs.mount.encode import REUSE_S
from superfs.mount.meter import Meter
from superfs.mount.operations import Operations
from superfs.mount.options import MountOptions
from superfs.mount.services import Services

TOP = 1


class Kernel:
    def __init__(self) -> None:
        self.attrs: list[int] = []
        self.pages: list[int] = []
        self.told = trio.Event()

    def invalidate_inode(self, inode: int, attr_only: bool = False) -> None:
        (self.attrs if attr_only else self.pages).append(inode)
        if not attr_only:  # from the notify thread
            trio.from_thread.run_sync(self.told.set)

    def invalidate_entry(self, inode_p: int, name: bytes, deleted: int = 0) -> None:
        raise AssertionError("not used yet")


class World:
    """One mount; `now` is its clock."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        self.now = 100.0
        self.meta = MemMeta()
        self.kernel = Kernel()
        self.services = Services.make(
            self.meta,  # type: ignore[arg-type]
            self.meta.contents_of,
            MountOptions(**options),
            Ref(ROOT, ROOT_GENERATION, ROOT),
            kernel=self.kernel,
            now=lambda: self.now,
            wall_ns=lambda: 2_000_000_000_000_000_000,
        )
        self.ops = Operations(self.services, Meter())

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


async def test_an_unlinked_open_file_lives_until_its_release() -> None:
    w = World()
    info, entry = await w.ops.create(TOP, b"a", 0o644, os.O_RDWR, ctx())
    await w.ops.write(info.fh, 0, b"data")
    await w.ops.unlink(TOP, b"a", ctx())
    assert (await w.ops.getattr(entry.st_ino, ctx())).st_nlink == 0
    assert await w.ops.read(info.fh, 0, 10) == b"data"
    assert w.meta.store.orphans
    await w.ops.release(info.fh)
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


async def test_a_removed_directory_number_is_skipped_while_known() -> None:
    w = World()
    first = await w.ops.mkdir(TOP, b"d", 0o755, ctx())
    await w.ops.rmdir(TOP, b"d", ctx())
    second = await w.ops.mkdir(TOP, b"d", 0o755, ctx())
    assert first.st_ino == directory_id(ROOT, b"d", 0)
    assert second.st_ino == directory_id(ROOT, b"d", 1)
    assert (await w.ops.getattr(first.st_ino, ctx())).st_nlink == 0
    await w.ops.rmdir(TOP, b"d", ctx())
    await w.ops.forget([(first.st_ino, 1), (second.st_ino, 1)])
    assert (await w.ops.mkdir(TOP, b"d", 0o755, ctx())).st_ino == first.st_ino


async def test_forget_drops_what_is_not_counted_any_more() -> None:
    w = World()
    ino = await w.write(b"a", b"")
    await w.ops.lookup(TOP, b"a", ctx())
    await w.ops.forget([(ino, 1)])
    assert ino in w.table
    await w.ops.forget([(ino, 1), (TOP, 1), (987, 1)])
    assert ino not in w.table
    assert TOP in w.table
    with pytest.raises(pyfuse3.FUSEError) as error:
        await w.ops.getattr(ino, ctx())
    assert errno_of(error) == errno.ESTALE


async def test_inode_number_one_is_not_the_root() -> None:
    w = World()
    numbers = [await w.write(b"%d" % i, b"") for i in range(3)]
    assert TOP not in numbers
    assert 0 not in numbers
    own = [w.table[n].ino for n in numbers]
    assert 1 in own
    assert w.table[ROOT].ino == 1


async def test_listing_is_stable_while_the_directory_changes() -> None:
    w = World()
    for i in range(50):
        await w.write(b"f%02d" % i, b"")
    fh = await w.ops.opendir(TOP, ctx())
    first = await w.list(fh, limit=12)
    assert [name for name, _ in first[:3]] == [b".", b"..", b"f00"]
    await w.ops.unlink(TOP, b"f20", ctx())
    await w.ops.rename(TOP, b"f30", TOP, b"f31", 0, ctx())
    await w.write(b"f10a", b"")
    rest = await w.list(fh, start=first[-1][1])
    names = [name for name, _ in first + rest]
    assert len(names) == len(set(names))
    gone = {b"f20", b"f30"}
    assert set(names) - {b"f10a"} == {b".", b".."} | {b"f%02d" % i for i in range(50)} - gone
    again = await w.list(fh)
    assert {name for name, _ in again} == ({*names, b"f10a"})
    await w.ops.releasedir(fh)
    assert w.table[TOP].readers is None


async def test_big_directories_are_read_in_pages_and_can_be_gone_back_in() -> None:
    w = World(listing_entries_max=100)
    for i in range(2500):
        await w.meta.create(Ref(ROOT, ROOT_GENERATION, ROOT), b"f%04d" % i, stat.S_IFREG | 0o644)
    fh = await w.ops.opendir(TOP, ctx())
    everything = await w.list(fh)
    assert len(everything) == 2502
    assert w.meta.calls["read_dir"] == 3
    back = await w.list(fh, start=everything[9][1], limit=5)
    assert back == everything[10:15]
    assert w.meta.calls["get_many"] == 1


async def test_a_second_reader_is_served_from_memory() -> None:
    w = World()
    for i in range(10):
        await w.write(b"f%d" % i, b"")
    for _ in range(2):
        fh = await w.ops.opendir(TOP, ctx())
        await w.list(fh)
        await w.ops.releasedir(fh)
    assert w.meta.calls["read_dir"] == 1
    w.now += 1.5
    await w.list(await w.ops.opendir(TOP, ctx()))
    assert w.meta.calls["read_dir"] == 2


async def test_who_looks_up_name_after_name_is_answered_ahead() -> None:
    w = World()
    for i in range(300):
        await w.write(b"f%03d" % i, b"")
    w.now += 5
    w.meta.calls.clear()
    for i in range(300):
        assert (await w.ops.lookup(TOP, b"f%03d" % i, ctx())).st_nlink == 1
    assert w.meta.calls == {"lookup": 4, "read_dir": 4}
    with pytest.raises(pyfuse3.FUSEError):
        await w.ops.lookup(TOP, b"f9", ctx())
    w.now += 5
    w.meta.calls.clear()
    for i in reversed(range(20)):
        await w.ops.lookup(TOP, b"f%03d" % i, ctx())
    assert w.meta.calls == {"lookup": 20}, "only in the order of listings"


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
    await w.ops.write(other.fh, 0, b"z")
    assert (await w.ops.getattr(ino, ctx())).st_mode & 0o7777 == 0o777
    assert w.kernel.attrs == [ino]


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
    assert "publish" not in w.meta.calls
    await w.services.atimes.ship()
    await w.services.atimes.ship()
    assert w.meta.calls["publish"] == 1
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
    assert w.meta.store.get_inode(ROOT, w.table[entry.st_ino].ino).size == 4  # type: ignore[union-attr]
