"""A client with exclusive leases for tests of the metadata daemon without network, and its logs."""

from __future__ import annotations

import asyncio
import stat
import struct
from typing import TYPE_CHECKING, Any

from superfs.core.attrs import Attr, pack_attr, unpack_attr
from superfs.core.ids import (
    DELEGATED_GENERATION,
    FIRST_DATA_GENERATION,
    delegated_file_id,
    directory_id,
    slot_of,
)
from superfs.core.namespace.bits import INLINE
from superfs.meta.columns import NOT_SENT, pack_names
from superfs.v1 import common_pb2, meta_pb2
from unit.meta_leases import LeaseClient
from unit.meta_node import ROOT, FakeDataDaemons, make, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from superfs.meta.node import MetaNode

NOW = 1_700_000_000_500_000_000


class ExclusiveClient(LeaseClient):
    """Ships nothing by itself; counts its numbers as a client does."""

    __test__ = False
    exclusive = True

    def __init__(self, node: MetaNode, session: int, *, acks: bool = True) -> None:
        super().__init__(node, session, acks=acks)
        self.range = 0
        self.counter = 0
        self.generations: list[int] = []

    async def hello(self, *inos: int) -> meta_pb2.Welcome:
        welcome = await super().hello(*inos)
        self.range = welcome.number_range
        return welcome

    def lets_go(self) -> None:
        """Of everything so far, and of what it hears from now on."""
        self.acks = True
        self.acknowledge()

    def settled(self) -> None:
        self.node.settled(self.grant, self)

    async def reserve(self, count: int = 16) -> None:
        first = (await self.good(reserve={"generations": count})).number
        self.generations += range(first, first + count)

    @property
    def mine(self) -> set[int]:
        """What the daemon has it hold exclusively."""
        return set(self.node.lessor.exclusives.of(self.grant.session_id))

    def recalled(self) -> set[int]:
        return {r.lease for told in self.told for r in told.recalls if r.exclusive}

    async def directory(self, name: bytes, into: Any = ROOT) -> common_pb2.Attr:  # noqa: ANN401
        """A new one; exclusively its own."""
        reply = await self.ask(self.op(mkdir={"dir": into, "name": name, "mode": 0o755}))
        assert not reply.results[0].code, reply.results[0]
        attr = reply.results[0].attr
        assert attr.ino in reply.exclusive
        return attr

    # ---- logs

    def number(self, directory: int) -> int:
        self.counter += 1
        return delegated_file_id(slot_of(directory), self.range, self.counter)

    def file(self, directory: int, size: int = 0, **more: Any) -> Attr:  # noqa: ANN401
        attr = Attr(
            self.number(directory), DELEGATED_GENERATION, directory, stat.S_IFREG | 0o644, 1, 0, 0,
            size, 0, NOW, NOW, NOW, NOW, INLINE,
        )  # fmt: skip
        for name, value in more.items():
            setattr(attr, name, value)
        return attr

    def on_daemons(self, directory: int, size: int) -> Attr:
        generation = int(FIRST_DATA_GENERATION)
        return self.file(directory, size, flags=0, data_generation=generation, chains=(1,))


def files(
    directory: int, made: Iterable[tuple[bytes, Attr, bytes]], generation: int = 0
) -> meta_pb2.LogEntry:
    """(name, attributes, contents) each."""
    rows = list(made)
    lengths = [len(data) if attr.flags & INLINE else NOT_SENT for _, attr, data in rows]
    group = meta_pb2.LogFiles(
        dir=common_pb2.InodeRef(ino=directory, generation=generation, place=directory),
        count=len(rows),
        names=pack_names([name for name, _, _ in rows]),
        attrs=b"".join(pack_attr(attr) for _, attr, _ in rows),
        inline=b"".join(data for _, attr, data in rows if attr.flags & INLINE),
        inline_lengths=struct.pack(f"<{len(lengths)}I", *lengths),
    )
    return meta_pb2.LogEntry(now_ns=NOW, files=group)


def unlinks(directory: int, *names: bytes) -> meta_pb2.LogEntry:
    ref = common_pb2.InodeRef(ino=directory, place=directory)
    body = meta_pb2.LogUnlinks(dir=ref, names=pack_names(names))
    return meta_pb2.LogEntry(now_ns=NOW, unlinks=body)


def mkdir(directory: int, name: bytes, generation: int, mode: int = 0o755) -> meta_pb2.LogEntry:
    ref = common_pb2.InodeRef(ino=directory, place=directory)
    return meta_pb2.LogEntry(
        now_ns=NOW,
        ino=directory_id(directory, name),
        generation=generation,
        mkdir=meta_pb2.Mkdir(dir=ref, name=name, mode=mode),
    )


def log(*entries: meta_pb2.LogEntry, attrs: Iterable[Attr] = ()) -> meta_pb2.Log:
    return meta_pb2.Log(entries=entries, attrs=b"".join(map(pack_attr, attrs)))


def attrs_of(result: meta_pb2.Result) -> list[Attr]:
    listing = result.listing
    size = len(listing.attrs) // max(listing.count, 1)
    return [unpack_attr(listing.attrs, i * size) for i in range(listing.count)]


def plain(a: common_pb2.Attr, **more: Any) -> Attr:  # noqa: ANN401
    """As a record, with some things changed."""
    attr = Attr(
        a.ino, a.generation, a.place, a.mode, a.nlink, a.uid, a.gid, a.size, a.rdev, a.atime_ns,
        a.mtime_ns, a.ctime_ns, a.btime_ns, a.flags, a.data_generation, a.change, tuple(a.chains),
    )  # fmt: skip
    for name, value in more.items():
        setattr(attr, name, value)
    return attr


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0)


def with_directory(
    tmp_path: Path,
    body: Callable[[MetaNode, ExclusiveClient, common_pb2.Attr], Any],
    datads: FakeDataDaemons | None = None,
) -> None:
    """Of a client with an exclusive directory of its own and reserved generations."""

    async def run() -> None:
        async with running(make(tmp_path), datads) as node:
            client = ExclusiveClient(node, 1)
            await client.hello()
            await client.reserve()
            await body(node, client, await client.directory(b"d"))

    asyncio.run(run())
