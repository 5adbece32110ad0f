"""`.kv` as the kernel asks for it: a socket pair stands for /dev/fuse."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from harness.front import Front, front, read_in
from harness.memmount import TOP
from superfs.client.kvblocks import KvBlock
from superfs.core.errors import Code, FsError
from superfs.core.ids import (
    VIRTUAL_MAX,
    delegated_file_id,
    directory_id,
    file_id,
    is_virtual,
    virtual_id,
)
from superfs.mount import kvtree
from superfs.mount.desk.protocol import Op
from superfs.mount.kvtree import KvTree

if TYPE_CHECKING:
    from collections.abc import Sequence


class Pool:
    """Blocks in a dictionary; a page has `page` of them at most, and every other page is empty."""

    def __init__(self, count: int, size: int = 10) -> None:
        self.blocks = {number.to_bytes(16, "big"): b"%d" % number * size for number in range(count)}
        self.page = 7
        self.asked: Counter[str] = Counter()
        self.gate = threading.Event()
        self.gate.set()
        self.down = False

    def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.down:
            raise FsError(Code.UNAVAILABLE)
        self.gate.wait(10)

    def names(self) -> list[str]:
        self._ask("names")
        return ["chat"]

    def listed(self, name: str, after: int, limit: int) -> tuple[list[KvBlock], int]:
        self._ask("listed")
        place, odd = divmod(after, 1000)
        if not odd and after:
            return [], after + 500
        keys = sorted(self.blocks)[place : place + min(limit, self.page)]
        found = [
            KvBlock(key, len(self.blocks[key]), 1000 * (place + n) + 1)
            for n, key in enumerate(keys, 1)
        ]
        end = place + len(keys)
        return found, 1000 * end if end < len(self.blocks) else 0

    def length(self, name: str, key: bytes) -> int:
        self._ask("length")
        return len(self.blocks.get(key, b""))

    def contents(self, name: str, key: bytes) -> bytes | None:
        self._ask("contents")
        return self.blocks.get(key)


class Shown:
    """A mount that shows a pool."""

    def __init__(self, f: Front) -> None:
        self.f = f

    async def find(self, *names: bytes) -> int:
        """Its number, or what the error is, below zero."""
        number = TOP
        for name in (b".kv", *names):
            error, body = await self.f.ask(Op.LOOKUP, number, name + b"\0")
            if error:
                return -error
            number = struct.unpack_from("=Q", body)[0]
        return number

    async def block(self, number: int) -> int:
        return await self.find(b"chat", b"blocks", b"%032x" % number)

    async def list(self, number: int, room: int, op: Op = Op.READDIRPLUS) -> list[bytes]:
        _, body = await self.f.ask(Op.OPENDIR, number, bytes(8))
        (fh,) = struct.unpack_from("=Q", body)
        names: list[bytes] = []
        cookie, entry = 0, 128 if op == Op.READDIRPLUS else 0
        while body:
            error, body = await self.f.ask(op, number, read_in(fh, cookie, room))
            assert (error, len(body) <= room) == (0, True)
            at = 0
            while at < len(body):
                assert not any(body[at : at + entry]), "the kernel makes no inode of it"
                _, cookie, length, _ = struct.unpack_from("=QQII", body, at + entry)
                names.append(body[at + entry + 24 : at + entry + 24 + length])
                at += entry + 24 + -(-length // 8) * 8
        await self.f.ask(Op.RELEASEDIR, number, struct.pack("=QII", fh, 0, 0))
        return names


def tree_of(pool: Pool, memory_max: int = 1 << 20) -> tuple[KvTree, list[tuple[int, bytes]]]:
    """And what the kernel was asked to forget."""
    dropped: list[tuple[int, bytes]] = []

    def forget(directory: int, names: Sequence[bytes]) -> None:
        dropped.extend((directory, name) for name in names)

    return KvTree(pool, memory_max, forget), dropped


def test_numbers_are_nobody_elses() -> None:
    assert is_virtual(virtual_id(0))
    assert is_virtual(virtual_id(VIRTUAL_MAX))
    for other in (
        1, file_id(4095, (1 << 50) - 1), delegated_file_id(4095, 1, 1), directory_id(1, b"a"),
        delegated_file_id(0, (1 << 26) - 1, (1 << 24) - 1),
    ):  # fmt: skip
        assert not is_virtual(other)


@pytest.mark.parametrize("op", [Op.READDIRPLUS, Op.READDIR])
@pytest.mark.parametrize("room", [400, 4096, 1 << 17])
async def test_a_listing_in_parts(op: Op, room: int) -> None:
    tree, _ = tree_of(Pool(30))
    async with front(tree) as f:
        shown = Shown(f)
        names = await shown.list(await shown.find(b"chat", b"blocks"), room, op)
        assert names == [b".", b"..", *(b"%032x" % number for number in range(30))]
        assert await shown.list(await shown.find(), room, op) == [b".", b"..", b"chat"]
        assert await shown.list(await shown.find(b"chat"), room, op) == [b".", b"..", b"blocks"]
        assert len(tree.table) == 3, "no block is remembered for having been listed"
        assert not tree.handles.table


async def test_names_that_are_none() -> None:
    tree, _ = tree_of(Pool(3))
    async with front(tree) as f:
        shown = Shown(f)
        for names in (
            [b"other"], [b"chat", b"block"], [b"chat", b"blocks", b"%032x" % 9],
            [b"chat", b"blocks", b"%031x" % 1], [b"chat", b"blocks", b"%032X" % 0xA],
            [b"chat", b"blocks", b" " * 32], [b"chat", b"blocks", b"\xff" * 32], [b"\xff"],
        ):  # fmt: skip
            assert await shown.find(*names) == -errno.ENOENT, names
        block = await shown.block(1)
        assert (await f.ask(Op.LOOKUP, block, b"x\0"))[0] == errno.ENOENT
        assert (await f.ask(Op.LOOKUP, virtual_id(77), b"x\0"))[0] == errno.ESTALE


async def test_the_kernel_knows_so_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvtree, "KNOWN_MAX", 10)
    monkeypatch.setattr(kvtree, "FORGET_BLOCKS", 4)
    tree, dropped = tree_of(Pool(30))
    async with front(tree) as f:
        shown = Shown(f)
        numbers = [await shown.block(n) for n in range(11)]
        above = await shown.find(b"chat", b"blocks")
        assert dropped == [(above, b"%032x" % n) for n in range(4)]
        assert await shown.block(2) == numbers[2], "it is used again"
        await f.send(Op.FORGET, numbers[0], struct.pack("=Q", 1))
        many = struct.pack("=IIQQQQQQ", 3, 0, numbers[2], 1, numbers[1], 1, 424242, 7)
        await f.send(Op.BATCH_FORGET, 0, many)
        assert await shown.block(12) > 0
        assert numbers[0] not in tree.table
        assert numbers[1] not in tree.table
        assert numbers[2] in tree.table, "looked up twice, forgotten once"


async def open_of(f: Front, number: int, flags: int = os.O_RDONLY) -> tuple[int, int]:
    error, body = await f.ask(Op.OPEN, number, struct.pack("=II", flags, 0))
    return error, 0 if error else struct.unpack_from("=Q", body)[0]


async def test_contents_are_fetched_once_and_not_kept() -> None:
    pool = Pool(5)
    tree, _ = tree_of(pool, memory_max=25)
    async with front(tree) as f:
        shown = Shown(f)
        numbers = [await shown.block(n) for n in range(4)]
        handles = [(await open_of(f, number))[1] for number in numbers]
        assert pool.asked["contents"] == 4
        for _ in range(2):
            for n in (3, 2):
                found = await f.ask(Op.READ, numbers[n], read_in(handles[n], 3, 5))
                assert found == (0, b"%d" % n * 5)
        assert pool.asked["contents"] == 4
        assert (await f.ask(Op.READ, numbers[0], read_in(handles[0], 8, 50))) == (0, b"00")
        assert pool.asked["contents"] == 5, "room for two"
        pool.blocks.clear()
        gone = await f.ask(Op.READ, numbers[1], read_in(handles[1], 0, 50))
        assert gone[0] == errno.ESTALE
        assert (await open_of(f, numbers[1]))[0] == errno.ESTALE
        for number, handle in zip(numbers, handles, strict=True):
            released = await f.ask(Op.RELEASE, number, struct.pack("=QIIQ", handle, 0, 0, 0))
            assert released == (0, b"")
        assert (tree._contents, tree._contents_bytes) == ({}, 0)
        assert (await f.ask(Op.READ, numbers[1], read_in(handles[1], 0, 50)))[0] == errno.EINVAL


async def test_a_daemon_that_is_away_is_an_error_and_holds_up_nobody() -> None:
    pool = Pool(5)
    tree, _ = tree_of(pool)
    async with front(tree) as f:
        shown = Shown(f)
        number = await shown.block(1)
        pool.down = True
        assert await shown.block(1) == -errno.EIO
        assert (await open_of(f, number))[0] == errno.EIO
        pool.down = False
        pool.gate.clear()
        waiting = await f.send(Op.OPEN, number, struct.pack("=II", 0, 0))
        assert (await f.ask(Op.GETATTR, TOP))[0] == 0, "the rest of the mount is served"
        pool.gate.set()
        error, _ = await f.answer(waiting)
        assert error == 0


async def test_everything_else_is_refused() -> None:
    tree, _ = tree_of(Pool(2))
    async with front(tree) as f:
        number = await Shown(f).block(0)
        assert (await open_of(f, number, os.O_RDWR))[0] == errno.EROFS
        assert (await open_of(f, number, os.O_TRUNC))[0] == errno.EROFS
        for op in set(range(1, 60)) - {2, 3, 14, 15, 17, 27, 28, 29, 38, 42, 44}:
            error, _ = await f.ask(op, number, struct.pack("=Q", number) + bytes(100))
            expected = {1: errno.ENOENT, 18: errno.EINVAL, 22: errno.ENODATA, 23: 0}
            if op in (20, 25, 30):
                assert error == 0, op
            else:
                known = expected.get(op)
                assert error == known if known is not None else error in (errno.EROFS, errno.ENOSYS)
