"""Directories of a mount, their numbers and their listings, without a kernel."""

from __future__ import annotations

import errno
import stat

import pyfuse3
import pytest

from harness.memmount import TOP, World, ctx, errno_of
from superfs.core.ids import ROOT, ROOT_GENERATION, directory_id
from superfs.core.namespace.txn import Caller, Ref
from superfs.mount import lookups


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


async def test_a_new_directory_with_the_number_of_one_that_was_removed() -> None:
    w = World()
    first = await w.ops.mkdir(TOP, b"d", 0o755, ctx())
    node = w.table[first.st_ino]
    await w.ops.rmdir(TOP, b"d", ctx())
    assert node.attr is not None
    node.attr.change += 1000  # what it was in the end had changes of which the server heard later
    await w.ops.forget([(first.st_ino, 1)])
    second = await w.ops.mkdir(TOP, b"d", 0o755, ctx())
    assert w.services.mounted.nodes.alive(second.st_ino) is node
    await w.ops.create(second.st_ino, b"f", 0o644, 0, ctx())


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


async def test_what_has_changed_since_it_was_listed_is_asked_for_together() -> None:
    """One by one, in a directory where everything changes, a listing took seconds."""
    w = World(attr_timeout_s=0.0, entry_timeout_s=0.0)
    for i in range(20):
        await w.write(b"f%02d" % i, b"")
    fh = await w.ops.opendir(TOP, ctx())
    first = await w.list(fh, limit=4)
    m = w.services.mounted
    root = Ref(ROOT, ROOT_GENERATION, ROOT)
    await w.meta.unlink(root, b"f05", caller=Caller(0, 0))
    for i in range(3, 9):
        m.cache.changed(m.nodes.root, b"f%02d" % i)
    w.meta.calls.clear()
    rest = await w.list(fh, start=first[-1][1])
    assert [name for name, _ in rest] == [b"f%02d" % i for i in range(2, 20) if i != 5]
    assert w.meta.calls == {"get_many": 1}


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


async def test_who_looks_up_name_after_name_is_answered_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookups, "MISSES_MAX", 1 << 30)  # as if it were too big to be learned whole
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
