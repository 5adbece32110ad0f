"""A metadata daemon without network for tests: a real store, a real writer thread, fake data
daemons."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from superfs.core import ids
from superfs.core.errors import Code, FsError
from superfs.core.tokens import Authority, Grant
from superfs.daemon.clock import ManualClock
from superfs.daemon.failpoints import Failpoints
from superfs.daemon.statedir import Identity
from superfs.daemon.world import World
from superfs.meta.chains import Layout
from superfs.meta.config import MetaConfig, MetadCommon, MetadConfig
from superfs.meta.founding import make_empty
from superfs.meta.fsck import check_store
from superfs.meta.node import MetaNode
from superfs.meta.verify import verify
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from superfs.core.tokens import Kind

KIB = 1024
IDENTITY = Identity("cluster", "metad", 1, 1)
CHAINS = (1, 2)
ROOT = {"ino": int(ids.ROOT), "generation": 1}
BRIEF = {"session_timeout_s": 0.4, "lease_timeout_s": 0.4, "lease_s": 0.2}


class Fatal(Exception):
    pass


def world(clock: ManualClock | None = None) -> World:
    def fatal(message: str, code: int = 75) -> Any:  # noqa: ANN401
        raise Fatal(message)

    return World(Authority(b"k" * 32), clock or ManualClock(), failpoints=Failpoints(), fatal=fatal)


def config(state_dir: Path, **meta: Any) -> MetadConfig:  # noqa: ANN401
    return MetadConfig(MetadCommon(state_dir=state_dir), MetaConfig(**meta))


def make(state_dir: Path, **meta: Any) -> MetadConfig:  # noqa: ANN401
    made = config(state_dir, **meta)
    make_empty(made, IDENTITY, world())
    return made


class FakeDataDaemons:
    """Acknowledges everything, unless `away`."""

    def __init__(self) -> None:
        self.reaped: list[tuple[int, int, int]] = []
        self.truncated: list[tuple[int, int, int, int]] = []
        self.away: set[int] = set()

    def attach(self, node: MetaNode) -> None:
        datads: Any = node.datads
        datads.reap, datads.truncate = self.reap, self.truncate
        layout = node.layout
        nodes_of: dict[int, tuple[int, ...]] = {chain: (10 + chain,) for chain in CHAINS}
        node.set_layout(Layout(1, layout.owned, CHAINS, nodes_of, {}))

    async def reap(self, node: int, items: Sequence[tuple[int, int]]) -> None:
        self._check(node)
        self.reaped += [(node, ino, generation) for ino, generation in items]

    async def truncate(self, node: int, ino: int, generation: int, size: int) -> None:
        self._check(node)
        self.truncated.append((node, ino, generation, size))

    def _check(self, node: int) -> None:
        if node in self.away:
            raise FsError(Code.UNAVAILABLE, "away")


class TestClient:
    """One session; `do` sends operations as one batch and gives their results."""

    __test__ = False

    def __init__(self, node: MetaNode, session: int = 1, kind: Kind = "host", uid: int = 0) -> None:
        self.node = node
        self.grant = Grant(kind, "test", uid=uid, gid=uid, session_id=session)
        self.seq = 0
        self.acked_below = 0

    async def hello(self, *inos: int) -> meta_pb2.Welcome:
        hello = meta_pb2.Hello(protocol=1, client="test")
        for ino in inos:
            hello.open.add(ino=ino)
        return await self.node.hello(self.grant, hello)

    def op(self, **verb: Any) -> meta_pb2.Op:  # noqa: ANN401
        """op(create={...}): numbered, if it mutates."""
        (name,) = verb
        op = meta_pb2.Op(**verb)
        op.caller.umask = 0o022
        if meta_pb2.Op.DESCRIPTOR.fields_by_name[name].number >= 30:
            self.seq += 1
            op.seq = self.seq
        return op

    async def send(self, *ops: meta_pb2.Op) -> list[meta_pb2.Result]:
        return list((await asyncio.wait_for(self.ask(*ops), 20)).results)

    async def ask(self, *ops: meta_pb2.Op) -> meta_pb2.BatchReply:
        batch = meta_pb2.Batch(batch=7, acked_below=self.acked_below, ops=ops)
        reply = await self.node.execute(self.grant, batch)
        assert reply.batch == 7
        assert len(reply.results) == len(ops)
        return reply

    async def do(self, **verb: Any) -> meta_pb2.Result:  # noqa: ANN401
        return (await self.send(self.op(**verb)))[0]

    async def good(self, **verb: Any) -> meta_pb2.Result:  # noqa: ANN401
        result = await self.do(**verb)
        assert not result.code, result
        return result

    async def create(self, name: bytes, **more: Any) -> meta_pb2.Result:  # noqa: ANN401
        make = {"dir": ROOT, "name": name, "mode": 0o100644, "exclusive": True, **more}
        return await self.good(create=make)


def ref(attr: Any) -> dict[str, int]:  # noqa: ANN401
    return {"ino": attr.ino, "generation": attr.generation, "place": attr.place}


nodes: list[MetaNode] = []
"""Those that are running."""


async def everybody_had_a_turn() -> None:
    """Whatever was submitted is committed, and everybody has been told who can be."""
    await _turns()
    for node in nodes:
        committer = node.committer
        if committer._call != type(committer)._call.__get__(committer):
            await asyncio.sleep(0.05)  # it holds its commits back
        else:
            await asyncio.wait_for(committer.run(lambda _: None), 20)
    await _turns()


async def _turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(
    made: MetadConfig, datads: FakeDataDaemons | None = None, given: World | None = None
) -> AsyncIterator[MetaNode]:
    """A node that has been opened and is stopped in the end; fsck finds nothing, nor verify, which
    needs no process of its own here: what only that survives, damage, has its own tests."""
    node = MetaNode(made, IDENTITY, given or world())
    with patch("superfs.meta.node.verify_in_child", verify):
        await node.open()
    tasks: Any = asyncio.TaskGroup()
    nodes.append(node)
    try:
        async with tasks:
            node.start(tasks)
            (datads or FakeDataDaemons()).attach(node)
            yield node
            raise _Done
    except BaseExceptionGroup as errors:
        left = errors.split(_Done)[1]
        if left is not None:
            raise errors.exceptions[0] from None
    finally:
        nodes.remove(node)
        with node.environment.reading() as rows:
            found = list(check_store(rows))
        await node.stop()
    assert not found, found
    verify(made.daemon.state_dir, IDENTITY)


class _Done(Exception):
    pass
