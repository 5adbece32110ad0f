"""Directories at the desk: what one reader is shown, and what the kernel may show another."""

from __future__ import annotations

import struct

from harness.front import Front, front, listed, read_in
from harness.memmount import TOP, ctx
from superfs.mount.desk import protocol
from superfs.mount.desk.protocol import Op
from superfs.mount.handles import DirHandle


async def made(f: Front, *names: bytes) -> None:
    """Files, in a directory that is known whole."""
    for name in names:
        await f.world.write(name, b"")
    await learned(f)


async def learned(f: Front) -> None:
    handle = DirHandle(f.world.table[TOP])
    listings = f.world.services.listings
    listings.start(handle)
    await listings.fetch(handle, 0)
    listings.stop(handle)


async def opened_dir(f: Front) -> int:
    error, body = await f.ask(Op.OPENDIR, TOP, bytes(8))
    assert error == 0
    return int(struct.unpack("=QII", body)[0])


async def test_no_two_listings_that_differ_have_a_cookie_in_common() -> None:
    """The kernel gives to one reader what it keeps of another, from the cookie on where it is."""
    async with front() as f:
        await made(f, b"a", b"b", b"c")
        fh = await opened_dir(f)
        before = listed((await f.ask(Op.READDIRPLUS, TOP, read_in(fh, 0, 4096)))[1])
        same = await opened_dir(f)
        again = listed((await f.ask(Op.READDIRPLUS, TOP, read_in(same, 0, 4096)))[1])
        assert again == before, "nothing has changed: the kernel may go on with it"
        await f.world.ops.unlink(TOP, b"a", ctx())
        await learned(f)
        other = await opened_dir(f)
        after = listed((await f.ask(Op.READDIRPLUS, TOP, read_in(other, 0, 4096)))[1])
        assert set(before[0]) - set(after[0]) == {b"a"}
        assert not set(before[1]) & set(after[1])
        # The kernel keeps nothing any more: everybody is told the rest of his own listing.
        for reader, (found, cookies) in ((fh, before), (same, before), (other, after)):
            at = read_in(reader, cookies[-2], 4096)
            assert list(listed((await f.ask(Op.READDIRPLUS, TOP, at))[1])[0]) == [b"c"], found
        # And of another's, where the kernel has shown it that one.
        at = read_in(fh, after[1][1], 4096)
        assert list(listed((await f.ask(Op.READDIRPLUS, TOP, at))[1])[0]) == [b"b", b"c"]


async def test_who_is_shown_what_the_kernel_keeps_may_have_to_go_on_here() -> None:
    async with front() as f:
        await made(f, b"a", b"b", b"c")
        fh = await opened_dir(f)
        _, cookies = listed((await f.ask(Op.READDIRPLUS, TOP, read_in(fh, 0, 4096)))[1])
        reader = await opened_dir(f)
        assert (await f.ask(Op.RELEASEDIR, TOP, struct.pack("=Q", fh) + bytes(16)))[0] == 0
        await f.world.ops.unlink(TOP, b"a", ctx())
        at = read_in(reader, cookies[3], 4096)  # behind b
        assert list(listed((await f.ask(Op.READDIRPLUS, TOP, at))[1])[0]) == [b"c"]


async def test_a_directory_that_was_moved_lists_where_it_is() -> None:
    async with front() as f:
        ops = f.world.ops
        old = (await ops.mkdir(TOP, b"old", 0o755, ctx())).st_ino
        new = (await ops.mkdir(TOP, b"new", 0o755, ctx())).st_ino
        moved = (await ops.mkdir(old, b"x", 0o755, ctx())).st_ino

        async def opened() -> tuple[int, int]:
            fh, options, _ = struct.unpack("=QII", (await f.ask(Op.OPENDIR, moved, bytes(8)))[1])
            _, body = await f.ask(Op.READDIRPLUS, moved, read_in(fh, 0, 4096))
            return listed(body)[0][b".."], options & protocol.FOPEN_KEEP_CACHE

        assert (await opened())[0] == old
        assert await opened() == (old, protocol.FOPEN_KEEP_CACHE)
        await ops.rename(old, b"x", new, b"x", 0, ctx())
        assert await opened() == (new, 0), "nor may the kernel repeat it"
