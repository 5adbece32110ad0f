"""Second names in a log: the file is its client's from then on, until somebody else wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code
from superfs.core.namespace.bits import MULTI
from superfs.v1 import meta_pb2
from unit.meta_exclusive import NOW, ExclusiveClient, files, log, unlinks, with_directory
from unit.meta_leases import LeaseClient
from unit.meta_node import ref

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.core.attrs import Attr
    from superfs.meta.node import MetaNode
    from superfs.v1 import common_pb2


def link(file: Attr, made: common_pb2.Attr, name: bytes) -> meta_pb2.LogEntry:
    inode = {"ino": file.ino, "generation": file.generation, "place": file.place}
    return meta_pb2.LogEntry(now_ns=NOW, link={"inode": inode, "dir": ref(made), "name": name})


def linked(file: Attr, nlink: int = 2) -> Attr:
    """As it is with a second name."""
    after = file.copy()
    after.place, after.nlink, after.flags = file.ino, nlink, file.flags | MULTI
    return after


async def with_two_names(client: ExclusiveClient, made: common_pb2.Attr) -> Attr:
    file = client.file(made.ino, 2)
    entries = files(made.ino, [(b"f", file, b"hi")]), link(file, made, b"g")
    reply = await client.ask(client.op(log=log(*entries, attrs=[linked(file)])))
    assert not reply.results[0].code, reply
    assert set(reply.exclusive) == {made.ino, file.ino}
    return linked(file)


def test_a_file_is_exclusive_with_its_second_name(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        file = await with_two_names(client, made)
        assert {made.ino, file.ino} <= client.mine
        other = LeaseClient(node, 2)
        await other.hello()
        inode = {"ino": file.ino, "generation": 1, "place": file.ino}
        found = await other.good(getattr={"inode": inode})
        assert found.attr.nlink == 2
        assert client.recalled() == {file.ino}
        assert file.ino not in client.mine
        assert made.ino in client.mine

    with_directory(tmp_path, body)


def test_without_a_name_nobody_holds_it(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        file = await with_two_names(client, made)
        await client.good(log=log(unlinks(made.ino, b"f", b"g")))
        assert file.ino not in client.mine
        assert file.ino not in node.lessor.exclusives.held

    with_directory(tmp_path, body)


def test_a_count_of_names_that_is_not_so_is_refused(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        file = await with_two_names(client, made)
        wrong = await client.do(log=log(unlinks(made.ino, b"f"), attrs=[linked(file, 2)]))
        assert wrong.code == Code.LOG_REFUSED, wrong
        elsewhere = linked(file, 1)
        elsewhere.place = made.ino
        wrong = await client.do(log=log(unlinks(made.ino, b"f"), attrs=[elsewhere]))
        assert wrong.code == Code.LOG_REFUSED, wrong
        await client.good(log=log(unlinks(made.ino, b"f"), attrs=[linked(file, 1)]))

    with_directory(tmp_path, body)


def test_another_has_renamed_a_name_meanwhile(tmp_path: Path) -> None:
    """A log that comes late is refused, and the file is as the other has left it."""

    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        file = await with_two_names(client, made)
        other = LeaseClient(node, 2)
        await other.hello()
        await other.good(unlink={"dir": ref(made), "name": b"g"})
        late = await client.do(log=log(link(file, made, b"h"), attrs=[linked(file, 3)]))
        assert late.code == Code.LOG_REFUSED, late
        inode = {"ino": file.ino, "generation": 1, "place": file.ino}
        assert (await other.good(getattr={"inode": inode})).attr.nlink == 1

    with_directory(tmp_path, body)


def test_a_name_was_lost_when_the_client_says_so(tmp_path: Path) -> None:
    """Names are removed many in one entry, at the time of its end."""

    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        file = await with_two_names(client, made)
        after = linked(file, 1)
        after.ctime_ns = NOW + 5
        entry = unlinks(made.ino, b"f")
        entry.now_ns = NOW + 1_000_000
        await client.good(log=log(entry, attrs=[after]))
        inode = {"ino": file.ino, "generation": 1, "place": file.ino}
        assert (await client.good(getattr={"inode": inode})).attr.ctime_ns == NOW + 5

    with_directory(tmp_path, body)
