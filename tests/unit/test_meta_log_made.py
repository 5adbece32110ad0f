"""What a log makes is closed to others from its commit on, granted or not: its maker may have gone
on there, and what others changed before that is shipped would have it refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.meta.lessor import SLOW_MAX_S
from unit.meta_exclusive import (
    ExclusiveClient,
    files,
    log,
    mkdir,
    plain,
    until,
    with_directory,
)
from unit.meta_leases import Late, LeaseClient, is_waiting
from unit.meta_node import ref

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.meta.node import MetaNode
    from superfs.v1 import meta_pb2


async def made_below(client: ExclusiveClient, above: Any) -> meta_pb2.Log:  # noqa: ANN401
    """A log that makes the directory `s`."""
    attr = (await client.good(getattr={"inode": ref(above)})).attr
    entry = mkdir(above.ino, b"s", client.generations[0])
    return log(entry, attrs=[plain(attr, nlink=3, size=1)])


def below(body: meta_pb2.Log) -> dict[str, int]:
    ino = body.entries[0].ino
    return {"ino": ino, "generation": 0, "place": ino}


async def goes_on(client: ExclusiveClient, directory: int, name: bytes) -> int:
    entry = files(directory, [(name, client.file(directory), b"")], client.generations[0])
    return int((await client.do(log=log(entry))).code)


def test_until_it_is_given_back_by_a_maker_that_is_granted_nothing(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: Any) -> None:  # noqa: ANN401
        other = LeaseClient(node, 2, acks=True)
        await other.hello()
        made_s = await made_below(client, made)
        client.acks = False
        node.lessor._is_slow(client.grant.session_id, SLOW_MAX_S)
        reply = await client.ask(client.op(log=made_s))
        assert not reply.results[0].code
        directory = below(made_s)
        assert directory["ino"] not in reply.exclusive
        create = {"dir": directory, "name": b"theirs", "mode": 0o100644, "exclusive": True}
        asking = other.asking(create=create)
        assert await is_waiting(asking)
        assert not await goes_on(client, directory["ino"], b"ours")
        node.lessor.returned(client.grant.session_id, client, [directory["ino"]])
        assert not (await asking).results[0].code

    with_directory(tmp_path, body)


def test_from_before_its_maker_is_answered(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: Any) -> None:  # noqa: ANN401
        other = LeaseClient(node, 2, acks=True)
        await other.hello()
        made_s = await made_below(client, made)
        client.acks = False
        late = Late(node)
        making = client.asking(log=made_s)
        await late.first.wait()
        directory = below(made_s)
        asking = other.asking(getattr={"inode": directory})
        await until(lambda: directory["ino"] in client.recalled())
        late.release()
        reply = await making
        assert not reply.results[0].code
        assert directory["ino"] not in reply.exclusive
        assert await is_waiting(asking)
        assert not await goes_on(client, directory["ino"], b"ours")
        client.lets_go()
        assert (await asking).results[0].attr.size == 1

    with_directory(tmp_path, body)


def test_as_long_as_its_maker_has_not_settled(tmp_path: Path) -> None:
    """The stream breaks before the log is answered."""

    async def body(node: MetaNode, client: ExclusiveClient, made: Any) -> None:  # noqa: ANN401
        other = LeaseClient(node, 2, acks=True)
        await other.hello()
        made_s = await made_below(client, made)
        late = Late(node)
        making = client.asking(log=made_s)
        await late.first.wait()
        node.lessor.hung_up(client.grant.session_id, client)
        late.release()
        await making
        await client.hello()
        directory = below(made_s)
        asking = other.asking(getattr={"inode": directory})
        assert await is_waiting(asking)
        assert not await goes_on(client, directory["ino"], b"ours")
        client.settled()
        assert (await asking).results[0].attr.size == 1

    with_directory(tmp_path, body)
