"""What a log may not contain: whatever a client sends, it is told so, and nothing of it is done."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.errors import Code
from superfs.core.ids import RANGE_FILES_MAX
from superfs.meta import keys
from superfs.meta.keys import Table
from superfs.meta.records import unpack_session
from superfs.v1 import meta_pb2
from unit.meta_exclusive import (
    NOW,
    ExclusiveClient,
    attrs_of,
    files,
    log,
    mkdir,
    plain,
    with_directory,
)
from unit.meta_node import ROOT, TestClient, ref

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.core.attrs import Attr
    from superfs.meta.node import MetaNode
    from superfs.v1 import common_pb2

TOP = int(ROOT["ino"])


def _name(m: meta_pb2.LogFiles, attr: Attr) -> None:
    m.names = b"\x03\0a/b"


def _dots(m: meta_pb2.LogFiles, attr: Attr) -> None:
    m.names = b"\x02\0.."


def _count(m: meta_pb2.LogFiles, attr: Attr) -> None:
    m.count = 2


def _lengths(m: meta_pb2.LogFiles, attr: Attr) -> None:
    m.inline_lengths = b"\x09\0\0\0"


BAD_COLUMNS = [_name, _dots, _count, _lengths]
BAD_ATTRS: list[dict[str, Any]] = [
    {"generation": 2}, {"place": TOP}, {"mode": stat.S_IFDIR | 0o755},
    {"mode": stat.S_IFIFO | 0o644}, {"nlink": 2}, {"uid": 0xFFFFFFFF}, {"gid": 0xFFFFFFFF},
    {"rdev": 1}, {"flags": 0}, {"flags": 3}, {"flags": 33}, {"data_generation": 1},
    {"size": 1 << 60}, {"change": 1 << 60}, {"atime_ns": -(1 << 63)},
    {"flags": 0, "data_generation": 2, "chains": (1,)},
    {"flags": 0, "data_generation": 1},
    {"flags": 0, "data_generation": 1, "chains": (1,), "mode": stat.S_IFLNK | 0o777},
    {"mode": stat.S_IFLNK | 0o777},
]  # fmt: skip


@pytest.mark.parametrize("spoil", BAD_COLUMNS)
def test_columns_that_do_not_add_up(tmp_path: Path, spoil: Any) -> None:  # noqa: ANN401
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        attr = client.file(made.ino)
        entry = files(made.ino, [(b"f", attr, b"")])
        spoil(entry.files, attr)
        assert (await client.do(log=log(entry))).code == Code.BAD_REQUEST
        assert (await client.good(getattr={"inode": ref(made)})).attr.size == 0

    with_directory(tmp_path, body)


@pytest.mark.parametrize("wrong", BAD_ATTRS, ids=str)
def test_attributes_that_no_client_of_ours_would_send(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        entry = files(made.ino, [(b"f", client.file(made.ino, **wrong), b"")])
        refused = await client.do(log=log(entry))
        assert refused.code == Code.BAD_REQUEST, refused
        assert (await client.good(getattr={"inode": ref(made)})).attr.size == 0

    with_directory(tmp_path, body)


def test_strange_numbers_are_refused(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        good = client.number(made.ino)
        strange = [
            1, 0, made.ino, good ^ 1 << 51, good + (1 << 24), good & ~RANGE_FILES_MAX, (1 << 64) - 1
        ]  # fmt: skip
        for ino in strange:
            attr = client.file(made.ino, ino=ino)
            refused = await client.do(log=log(files(made.ino, [(b"f", attr, b"")])))
            assert refused.code == Code.LOG_REFUSED, hex(ino)
        down = [client.file(made.ino), client.file(made.ino)]
        falling = files(made.ino, [(b"a", down[1], b""), (b"b", down[0], b"")])
        assert (await client.do(log=log(falling))).code == Code.BAD_REQUEST
        twice = files(made.ino, [(b"a", down[0], b"")])
        top = files(TOP, [(b"a", plain_of(down[0], TOP), b"")])
        assert (await client.do(log=log(twice, top))).code == Code.BAD_REQUEST

    with_directory(tmp_path, body)


def plain_of(attr: Attr, place: int) -> Attr:
    copy = attr.copy()
    copy.place = place
    return copy


def test_what_else_a_log_may_not_be(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        rename = {"old_dir": ref(made), "old_name": b"a", "new_dir": ref(made), "new_name": b"b"}
        entry = meta_pb2.LogEntry
        logs = [
            (log(entry(now_ns=NOW)), Code.BAD_REQUEST),
            (meta_pb2.Log(attrs=b"short"), Code.BAD_REQUEST),
            (log(*[entry(now_ns=NOW, rename=rename)] * 4097), Code.TOO_LARGE),
            (log(entry(now_ns=NOW, rename=rename)), Code.LOG_REFUSED),
            (log(mkdir(made.ino, b"s", 5)), Code.BAD_REQUEST),
            (log(files(made.ino, [])), Code.BAD_REQUEST),
        ]
        for given, code in logs:
            assert (await client.do(log=given)).code == code
        stranger = TestClient(node, 9)
        await stranger.hello()
        assert (await stranger.do(log=log())).code == Code.FORBIDDEN

    with_directory(tmp_path, body)


def test_no_time_of_the_future(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        future = 1 << 62
        attr = client.file(made.ino, ctime_ns=future, mtime_ns=future)
        entry = files(made.ino, [(b"f", attr, b"")])
        entry.now_ns = future
        claimed = plain(made, size=1, ctime_ns=future)
        done = await client.do(log=log(entry, attrs=[claimed]))
        assert not done.code, done
        limit = node.now_ns() + 3_000_000_000
        found = (await client.good(lookup={"dir": ref(made), "name": b"f"})).attr
        assert found.ctime_ns <= limit
        assert found.mtime_ns == future  # anybody may set that
        assert attrs_of(done)[0].ctime_ns <= limit
        later = await client.create(b"later")
        assert limit >= later.attr.ctime_ns > found.ctime_ns

    with_directory(tmp_path, body)


def test_a_directory_with_a_default_acl_takes_no_files(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        acl = bytes.fromhex("02000000 0100 0700 ffffffff 0400 0500 ffffffff 2000 0500 ffffffff")
        name = b"system.posix_acl_default"
        await client.good(setxattr={"inode": ref(made), "name": name, "value": acl})
        entry = files(made.ino, [(b"f", client.file(made.ino), b"")])
        assert (await client.do(log=log(entry))).code == Code.LOG_REFUSED

    with_directory(tmp_path, body)


def test_the_record_of_the_session_is_small_and_holds_all(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        for _ in range(6):
            await client.reserve(2)
        await client.good(log=log(files(made.ino, [(b"f", client.file(made.ino), b"")])))
        with node.environment.reading() as rows:
            record = rows.get(Table.SESSION, keys.pack_id(1))
        assert record is not None
        found = unpack_session(record)
        assert len(found.runs) == 4
        assert (found.range, found.used, found.exclusive) == (client.range, 1, True)

    with_directory(tmp_path, body)
