"""What an ended client has written under numbers that never became files is dropped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from superfs.core.errors import Code, FsError
from superfs.meta import keys, sweeper
from superfs.meta.chains import Layout
from superfs.meta.keys import Table
from superfs.meta.records import unpack_session
from superfs.meta.sweeper import Swept
from unit.meta_exclusive import ExclusiveClient, files, log, until
from unit.meta_node import FakeDataDaemons, make, running

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from superfs.meta.node import MetaNode


class Daemons(FakeDataDaemons):
    """Two that are in the map, and what they were asked to drop."""

    def __init__(self) -> None:
        super().__init__()
        self.swept: list[tuple[int, Swept]] = []

    def attach(self, node: MetaNode) -> None:
        super().attach(node)
        datads: Any = node.datads
        datads.drop_range = self.drop_range
        layout = node.layout
        addresses: Any = {11: ("unix:/nowhere",), 12: ("unix:/nowhere",)}
        node.set_layout(Layout(2, layout.owned, layout.chains, layout.nodes_of, addresses))

    async def drop_range(self, node: int, swept: Swept) -> int:
        if node in self.away:
            raise FsError(Code.UNAVAILABLE, "away")
        self.swept.append((node, swept))
        return 1


def range_of(node: MetaNode, session: int) -> int:
    with node.environment.reading() as rows:
        record = rows.get(Table.SESSION, keys.pack_id(session))
    assert record is not None
    return unpack_session(record).range


def test_every_data_daemon_is_asked_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "RETRY_S", 0.01)
    config, daemons = make(tmp_path), Daemons()

    async def run() -> None:
        daemons.away.add(12)
        async with running(config, daemons) as node:
            client = ExclusiveClient(node, 1)
            await client.hello()
            made = await client.directory(b"d")
            entry = files(made.ino, [(b"f", client.file(made.ino), b"")])
            assert not (await client.do(log=log(entry))).code
            await node.goodbye(client.grant)
            left = Swept(1, 2, client.range, 1)
            await until(lambda: daemons.swept == [(11, left)])
            assert range_of(node, 1)
        daemons.swept.clear()
        async with running(config, daemons) as node:  # it is on record
            await until(lambda: daemons.swept == [(11, left)])
            daemons.away.clear()
            await until(lambda: daemons.swept == [(11, left), (12, left)])
            await until(lambda: not range_of(node, 1))
            await until(lambda: not len(node.sweeper))
        async with running(config, daemons) as node:
            assert not node.sessions.unswept

    asyncio.run(run())


def test_who_has_no_numbers_leaves_nothing(tmp_path: Path) -> None:
    daemons = Daemons()

    async def run() -> None:
        async with running(make(tmp_path), daemons) as node:
            client = ExclusiveClient(node, 1)
            client.exclusive = False
            await client.hello()
            await client.create(b"f")
            await node.goodbye(client.grant)
            assert not len(node.sweeper)

    asyncio.run(run())
