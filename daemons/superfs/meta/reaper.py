"""Pays the debts to the data daemons: drops data that nothing names, cuts off truncated tails.

A debt is written in the transaction that causes it (`reap` table), told to every data daemon that
may hold some of it until each has acknowledged, and then deleted in a transaction of its own;
for a truncation that transaction also clears the inode's TRUNCATING flag. Telling twice does no
harm. One task a data daemon: one that is away holds up nobody else's debts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.end_truncate import end_truncate
from superfs.core.namespace.txn import Ref
from superfs.meta import keys, records
from superfs.meta.background import Background
from superfs.meta.keys import Table, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superfs.core.attrs import Attr
    from superfs.daemon.world import World
    from superfs.meta.commit import Committer
    from superfs.meta.datads import DataDaemons
    from superfs.meta.records import Debt
    from superfs.meta.store import LmdbTxn
    from superfs.meta.table import Records

ITEMS_MAX = 512
"""Debts of one call to a data daemon, and of one transaction that settles them."""
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0


@dataclass(slots=True)
class _Open:
    """A debt, and the data daemons that have not acknowledged it."""

    debt: Debt
    missing: set[int]
    settled: asyncio.Future[Attr | None]


@dataclass(slots=True)
class _Lane:
    """What one data daemon has to be told, in the order it came up."""

    waiting: dict[bytes, Debt] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Reaper:
    def __init__(self, datads: DataDaemons, committer: Committer, world: World) -> None:
        self._datads = datads
        self._committer = committer
        self._world = world
        self._open: dict[bytes, _Open] = {}
        self._lanes: dict[int, _Lane] = {}
        self._background: Background | None = None
        self._acknowledged: dict[bytes, _Open] = {}
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def start(self, group: asyncio.TaskGroup, rows: Records) -> None:
        """With the debts that an earlier run left."""
        self._background = Background(group)
        self.owe({k: records.unpack_debt(r) for k, r in rows.scan(Table.REAP, b"")})
        self._background.start(self._settle(), "reaper")

    async def stop(self) -> None:
        """Debts that are left are on record."""
        if self._background is not None:
            await self._background.stop()

    def owe(self, debts: Mapping[bytes, Debt]) -> None:
        loop = asyncio.get_running_loop()
        for key, debt in debts.items():
            nodes = self._datads.nodes_of(debt.chains)
            former = self._open.get(key)
            settled = loop.create_future() if former is None else former.settled
            self._open[key] = _Open(debt, set(nodes), settled)
            for node in nodes:
                lane = self._lane(node)
                lane.waiting[key] = debt
                lane.news.set()

    def reroute(self) -> None:
        """After a new cluster map: what nobody could be told may have somebody now."""
        lost = {k: o.debt for k, o in self._open.items() if not o.missing}
        self.owe({k: d for k, d in lost.items() if k not in self._acknowledged})

    async def settled(self, key: bytes) -> Attr | None:
        """Until the debt is paid: the inode afterwards, None if it is gone by now."""
        found = self._open.get(key)
        return None if found is None else await asyncio.shield(found.settled)

    def _lane(self, node: int) -> _Lane:
        lane = self._lanes.get(node)
        if lane is None:
            assert self._background is not None
            lane = self._lanes[node] = _Lane()
            self._background.start(self._serve(node, lane), f"reap at {node}")
        return lane

    # ---- telling

    async def _serve(self, node: int, lane: _Lane) -> None:
        delay_s, told = RETRY_FIRST_S, False
        while True:
            await lane.news.wait()
            lane.news.clear()
            while lane.waiting:
                part = dict(islice(lane.waiting.items(), ITEMS_MAX))
                try:
                    await self._tell(node, part)
                except FsError as error:
                    if not told or not error.retryable:
                        self._world.log.warning(
                            "a data daemon does not reap", node=node, error=str(error)
                        )
                    told = True
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, RETRY_MAX_S)
                    continue
                delay_s, told = RETRY_FIRST_S, False
                self._paid(node, lane, part)

    async def _tell(self, node: int, part: Mapping[bytes, Debt]) -> None:
        self._world.failpoints.hit("metad.reap.before")
        reaps: list[tuple[int, int]] = []
        for key, debt in part.items():
            ino, generation, kind = keys.parse_reap(key)
            if kind == Work.REAP:
                reaps.append((ino, generation))
            else:
                await self._datads.truncate(node, ino, generation, debt.size)
        if reaps:
            await self._datads.reap(node, reaps)

    def _paid(self, node: int, lane: _Lane, part: Mapping[bytes, Debt]) -> None:
        for key, debt in part.items():
            if lane.waiting.get(key) != debt:
                continue  # something newer is owed under the same key by now
            del lane.waiting[key]
            found = self._open.get(key)
            if found is not None and found.debt == debt:
                found.missing.discard(node)
                if not found.missing:
                    self._acknowledged[key] = found
                    self._news.set()

    # ---- settling

    async def _settle(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._acknowledged:
                part = dict(islice(self._acknowledged.items(), ITEMS_MAX))
                for key in part:
                    del self._acknowledged[key]
                self._world.failpoints.hit("metad.settle.before")
                debts = {key: found.debt for key, found in part.items()}
                try:
                    attrs = await self._committer.run(
                        partial(settle, debts=debts), weight=len(debts)
                    )
                except FsError as error:
                    if error.code is Code.UNAVAILABLE:
                        return  # stopping: the debts are on record
                    if error.code is not Code.NO_SPACE:
                        raise
                    # Not a page is left for it (the writer has said so). It stays owed.
                    self._acknowledged = part | self._acknowledged
                    await asyncio.sleep(RETRY_MAX_S)
                    continue
                self._forget(part, attrs)

    def _forget(self, part: Mapping[bytes, _Open], attrs: Sequence[Attr | None]) -> None:
        for (key, found), attr in zip(part.items(), attrs, strict=True):
            if self._open.get(key) is found:
                del self._open[key]
            if not found.settled.done():
                found.settled.set_result(attr)


def settle(txn: LmdbTxn, debts: Mapping[bytes, Debt]) -> list[Attr | None]:
    """Deletes paid debts; ends their truncations. The inode of each, where it is one."""
    attrs: list[Attr | None] = []
    for key, debt in debts.items():
        attrs.append(None)
        record = txn.rows.get(Table.REAP, key)
        if record is None or records.unpack_debt(record) != debt:
            continue
        txn.rows.delete(Table.REAP, key)
        ino, _, kind = keys.parse_reap(key)
        if kind == Work.TRUNCATE:
            try:
                attrs[-1] = end_truncate(txn, Ref(ino, 0, debt.place)).attr
            except FsError as error:
                if error.code is not Code.STALE:
                    raise
    return attrs
