"""The desk, byte by byte: a socket pair stands for /dev/fuse, and its other end for the kernel."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from harness.front import ANSWER_S, OUT, Front, front, listed, read_in, write_in
from harness.memmount import TOP, ctx
from superfs.client.data import SHARED_BYTES_MIN
from superfs.client.sharedmem import SharedMemory, slot_of
from superfs.core.attrs import Attr
from superfs.mount.desk import desk, protocol
from superfs.mount.desk.device import Notices
from superfs.mount.desk.protocol import Op

if TYPE_CHECKING:
    from collections.abc import Callable


def entry_of(body: bytes) -> dict[str, int]:
    """struct fuse_entry_out"""
    names = ["nodeid", "generation", "entry_s", "attr_s", "entry_ns", "attr_ns"]
    names += [
        "ino",
        "size",
        "blocks",
        "atime",
        "mtime",
        "ctime",
        "atime_ns",
        "mtime_ns",
        "ctime_ns",
    ]
    names += ["mode", "nlink", "uid", "gid", "rdev", "blksize", "flags"]
    return dict(zip(names, struct.unpack("=QQQQIIQQQqqqIIIIIIIIII", body), strict=True))


async def test_a_name_that_is_known_is_answered_and_counted() -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"hello")
        node = f.world.table[number]
        counted = node.nlookup
        error, body = await f.ask(Op.LOOKUP, TOP, b"a\0")
        entry = entry_of(body)
        assert error == 0
        assert (entry["nodeid"], entry["ino"], entry["size"]) == (number, number, 5)
        assert (entry["mode"], entry["blocks"], entry["nlink"]) == (stat.S_IFREG | 0o644, 1, 1)
        assert node.nlookup == counted + 1
        assert 990 < entry["attr_s"] < 1000
        assert 990 < entry["entry_s"] < 1000


async def test_a_name_that_is_not_known_goes_on_and_its_answer_comes_back() -> None:
    async with front() as f:
        unique = await f.send(Op.LOOKUP, TOP, b"never heard of\0")
        assert await f.handed_on() == (Op.LOOKUP, unique)
        f.behind.send(OUT.pack(16, -errno.ENOENT, unique))
        assert await f.answer(unique) == (errno.ENOENT, b"")


async def test_what_only_pyfuse3_does_goes_on_as_it_came() -> None:
    async with front() as f:
        for op in (8, 13, 38, 26):  # MKNOD, LINK, DESTROY, INIT
            unique = await f.send(op, TOP, b"whatever\0")
            assert await f.handed_on() == (op, unique)


async def test_forgets_are_counted_and_not_answered() -> None:
    async with front() as f:
        numbers = [await f.world.write(name, b"") for name in (b"a", b"b", b"c")]
        counts = [f.world.table[number].nlookup for number in numbers]
        await f.send(Op.FORGET, numbers[0], struct.pack("=Q", counts[0]))
        two = b"".join(
            struct.pack("=QQ", n, c) for n, c in zip(numbers[1:], counts[1:], strict=True)
        )
        await f.send(Op.BATCH_FORGET, 0, struct.pack("=II", 2, 0) + two)
        assert (await f.ask(Op.GETATTR, TOP, bytes(16)))[0] == 0  # the forgets came before
        assert not f.world.table.keys() & set(numbers)


async def test_a_signal_does_not_end_a_request() -> None:
    async with front() as f:
        await f.send(Op.INTERRUPT, 0, struct.pack("=Q", 1))
        assert (await f.ask(Op.GETATTR, TOP, bytes(16)))[0] == 0
        with pytest.raises(BlockingIOError):
            f.behind.recv(1)


async def test_attributes_in_doubt_are_asked_for() -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"hello")
        f.world.table[number].doubts = {(TOP, b"a"): trio.Event()}
        for op, body in ((Op.GETATTR, bytes(16)), (Op.OPEN, bytes(8))):
            unique = await f.send(op, number, body)
            assert await f.handed_on() == (op, unique)


async def test_extended_attributes_that_are_surely_absent() -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"")
        wanted = struct.pack("=II", 100, 0) + b"security.capability\0"
        assert await f.ask(Op.GETXATTR, number, wanted) == (errno.ENODATA, b"")
        assert await f.ask(Op.LISTXATTR, number, struct.pack("=II", 0, 0)) == (0, bytes(8))
        assert await f.ask(Op.LISTXATTR, number, struct.pack("=II", 64, 0)) == (0, b"")
        await f.world.ops.setxattr(number, b"user.k", b"v", ctx())
        unique = await f.send(Op.LISTXATTR, number, struct.pack("=II", 64, 0))
        assert await f.handed_on() == (Op.LISTXATTR, unique)


async def test_open_read_write_flush_release() -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"hello")
        fh, options = await f.open(number, os.O_RDWR)
        assert not options & protocol.FOPEN_NOFLUSH, "its close has to publish"
        assert await f.ask(Op.READ, number, read_in(fh, 1, 3)) == (0, b"ell")
        assert sum(f.meter.of("read").buckets) == 1, "counted when it was answered"
        error, body = await f.ask(Op.WRITE, number, write_in(fh, 5, b" world"))
        assert (error, body) == (0, struct.pack("=II", 6, 0))
        assert await f.ask(Op.FLUSH, number, struct.pack("=Q", fh) + bytes(16)) == (0, b"")
        assert await f.ask(Op.READ, number, read_in(fh, 0, 100)) == (0, b"hello world")
        assert await f.ask(Op.RELEASE, number, struct.pack("=Q", fh) + bytes(16)) == (0, b"")
        assert not f.world.services.handles.table
        error, _ = await f.ask(Op.READ, number, read_in(fh, 0, 1))
        assert error == errno.EINVAL


async def test_a_reader_has_nothing_to_flush_and_keeps_its_pages() -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"hello")
        await f.open(number)
        _, options = await f.open(number)
        assert options == protocol.FOPEN_KEEP_CACHE | protocol.FOPEN_NOFLUSH


async def test_a_large_write_stays_where_it_was_put(monkeypatch: pytest.MonkeyPatch) -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"")
        fh, _ = await f.open(number, os.O_RDWR)
        f.desk._slot = SharedMemory().take
        kept: list[bytes | memoryview] = []

        def keep(_handle: object, _offset: int, data: bytes | memoryview) -> bool:
            kept.append(data)
            return True

        monkeypatch.setattr(f.world.services.files, "write_now", keep)
        for turn in range(4):
            sent = bytes([turn]) * (SHARED_BYTES_MIN if turn < 3 else 5)
            await f.ask(Op.WRITE, number, write_in(fh, 0, sent))
        assert [bytes(data[:5]) for data in kept] == [bytes([turn]) * 5 for turn in range(4)]
        assert [slot_of(data) is not None for data in kept] == [False, True, True, False]


async def test_the_desk_does_not_stay_awake_behind_a_large_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"")
        fh, _ = await f.open(number, os.O_RDWR)
        monkeypatch.setattr(f.world.services.files, "write_now", lambda *_: True)
        await f.ask(Op.WRITE, number, write_in(fh, 0, bytes(SHARED_BYTES_MIN)))
        monkeypatch.setattr(desk, "LINGER_NS", int(ANSWER_S * 1e9))  # nobody else has a turn
        started = trio.current_time()
        await f.ask(Op.WRITE, number, write_in(fh, 0, bytes(SHARED_BYTES_MIN)))
        assert trio.current_time() - started < ANSWER_S


@pytest.mark.parametrize("found", [b"x" * 50_000, None])
async def test_a_read_that_arrives_in_another_thread(
    monkeypatch: pytest.MonkeyPatch, found: bytes | None
) -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"y" * 50_000)
        fh, _ = await f.open(number)

        def soon(_h: object, _o: int, _n: int, done: Callable[[bytes | None], None]) -> bool:
            threading.Thread(target=done, args=(found,)).start()
            return True

        monkeypatch.setattr(f.world.services.files, "read_now", lambda *_, seek=False: None)
        monkeypatch.setattr(f.world.services.files, "read_soon", soon)
        expected = found or b"y" * 50_000
        assert await f.ask(Op.READ, number, read_in(fh, 0, 50_000)) == (0, expected)


@pytest.mark.allow_log("a bug in the mount")
async def test_a_bug_is_an_io_error_and_the_desk_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"hello")
        fh, _ = await f.open(number)

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(f.world.services.files, "read_now", broken)
        assert await f.ask(Op.READ, number, read_in(fh, 0, 1)) == (errno.EIO, b"")
        assert "a bug in the mount" in caplog.text
        caplog.clear()
        assert (await f.ask(Op.GETATTR, number, bytes(16)))[0] == 0


async def test_a_directory_is_listed_from_memory_and_asked_for_before() -> None:
    async with front() as f:
        numbers = {name: await f.world.write(name, b"") for name in (b"a", b"bb", b"c" * 9)}
        error, body = await f.ask(Op.OPENDIR, TOP, bytes(8))
        fh, options, _ = struct.unpack("=QII", body)
        assert (error, options) == (0, protocol.FOPEN_CACHE_DIR)
        unique = await f.send(Op.READDIRPLUS, TOP, read_in(fh, 2, 4096))
        assert await f.handed_on() == (Op.READDIRPLUS, unique)
        handle = f.world.services.dirs.get(fh)
        await f.world.services.listings.fetch(handle, 0)
        error, body = await f.ask(Op.READDIRPLUS, TOP, read_in(fh, 0, 4096))
        assert error == 0
        found, cookies = listed(body)
        assert found == {b".": TOP, b"..": TOP, **numbers}
        first = cookies[0] - 1
        assert cookies == [first + place for place in (1, 2, 3, 4, 5)]
        assert await f.ask(Op.READDIRPLUS, TOP, read_in(fh, first + 5, 4096)) == (0, b"")
        error, part = await f.ask(Op.READDIRPLUS, TOP, read_in(fh, first + 3, 200))
        assert list(listed(part)[0]) == [b"bb"], "as many as there is room for"
        _, body = await f.ask(Op.OPENDIR, TOP, bytes(8))
        both = protocol.FOPEN_CACHE_DIR | protocol.FOPEN_KEEP_CACHE
        assert struct.unpack("=QII", body)[1] == both, "the kernel may list it by itself"
        assert (await f.ask(Op.RELEASEDIR, TOP, struct.pack("=Q", fh) + bytes(16)))[0] == 0
        assert len(f.world.services.dirs) == 1


async def test_times_of_what_is_being_written_are_not_kept() -> None:
    """They are the server's when it is published, which happens by itself."""
    async with front() as f:
        number = await f.world.write(b"a", b"")
        fh, _ = await f.open(number, os.O_RDWR)
        _, body = await f.ask(Op.GETATTR, number, bytes(16))
        assert struct.unpack_from("=Q", body)[0] > 0
        assert (await f.ask(Op.WRITE, number, write_in(fh, 0, b"x")))[0] == 0
        _, body = await f.ask(Op.GETATTR, number, bytes(16))
        assert struct.unpack_from("=QI", body) == (0, 0)
        assert (await f.ask(Op.FLUSH, number, struct.pack("=QIIQ", fh, 0, 0, 0)))[0] == 0
        _, body = await f.ask(Op.GETATTR, number, bytes(16))
        assert struct.unpack_from("=Q", body)[0] > 0


async def test_the_end_of_the_mount_ends_the_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Front()

    def gone(*_: object) -> int:
        raise OSError(errno.ENODEV, "no such device")

    monkeypatch.setattr(os, "readv", gone)
    await served.send(Op.GETATTR, TOP, bytes(16))
    with trio.fail_after(ANSWER_S):
        await served.desk.run()
    served.close()


async def test_a_notice_comes_after_every_answer_that_was_given_before() -> None:
    """pyfuse3 has told a name and the answer is still on its way when the name is recalled: the
    kernel would drop what it does not know yet, and then believe it."""
    served = Front()  # whose desk does not run
    served.behind.send(OUT.pack(16, -errno.ENOENT, 5))
    served.notices.settle()
    served.notices.invalidate_entry(TOP, b"name")
    assert OUT.unpack(served.kernel.recv(100)) == (16, -errno.ENOENT, 5)
    assert served.kernel.recv(100).endswith(b"name\0")
    served.close()


async def test_notices_are_what_the_kernel_reads() -> None:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernel:
        notices = Notices(ours.fileno(), lambda: None)
        notices.invalidate_inode(7, attr_only=True)
        assert kernel.recv(100) == struct.pack("=IiQQqq", 40, 2, 0, 7, -1, 0)
        notices.invalidate_inode(7)
        assert kernel.recv(100) == struct.pack("=IiQQqq", 40, 2, 0, 7, 0, 0)
        notices.invalidate_entry(1, b"name")
        assert kernel.recv(100) == struct.pack("=IiQQII", 37, 3, 0, 1, 4, 0) + b"name\0"


def test_times_before_1970_and_reads_that_the_server_does_not_know_of() -> None:
    attr = Attr(9, 1, 1, stat.S_IFREG | 0o600, 1, 0, 0, size=513, mtime_ns=-1)
    fields = struct.unpack("=QQQqqqIIIIIIIIII", protocol.pack_attr(9, attr, 5))
    assert (fields[2], fields[3], fields[6]) == (2, 0, 5), "blocks of 512 bytes, and the later read"
    assert (fields[4], fields[7]) == (-1, 999_999_999)
    attr.atime_ns = -2
    fields = struct.unpack("=QQQqqqIIIIIIIIII", protocol.pack_attr(9, attr, 0))
    assert (fields[3], fields[6]) == (-1, 999_999_998), "nothing was read since"
