"""A connection without daemons, for tests of the client: the rules on a store in memory, and data
daemons that are a dict of bytes. Everything answers at once.

Failures are provoked by `meta.fail[verb]` (the next call of that verb) and by `data.lose`.
"""

from __future__ import annotations

import random
import stat
from typing import TYPE_CHECKING, Any, cast

from harness.memcluster import MemMeta
from superfs.client.file import OpenInode
from superfs.client.retry import delays
from superfs.client.wire import Reply
from superfs.core.attrs import Flag
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT, ROOT_GENERATION
from superfs.core.namespace.end_truncate import end_truncate
from superfs.core.namespace.txn import Caller, Ref
from superfs.rpc.pending import Pending, completed, run_sync

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from superfs.client.connection import Connection
    from superfs.client.data import Bytes, Where
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome

ROOT_REF = Ref(ROOT, ROOT_GENERATION, ROOT)


class TruncatingMeta(MemMeta):
    """As a metadata daemon: a shrink is finished at the data daemons before it is answered."""

    def __init__(self, data: MemData) -> None:
        super().__init__()
        self._data = data

    async def setattr(self, *args: Any, **options: Any) -> Outcome:  # noqa: ANN401
        outcome: Outcome = await self.__getattr__("setattr")(*args, **options)
        attr = outcome.attr
        assert attr is not None
        for ino, generation in self.store.reaped:
            self._data.files.pop((ino, generation), None)
            self._data.reaped.add((ino, generation))
        self.store.reaped.clear()
        if attr.flags & Flag.TRUNCATING:
            held = self._data.files.setdefault((attr.ino, attr.data_generation), bytearray())
            del held[attr.size :]
            self.store.shrunk.clear()
            return self.store.run(end_truncate, Ref(attr.ino, attr.generation, attr.place))
        return outcome


class MemData:
    """As DataClient. `lose` writes are answered with an error."""

    def __init__(self) -> None:
        self.files: dict[tuple[int, int], bytearray] = {}
        self.reaped: set[tuple[int, int]] = set()
        self.commits = 0
        self.lose: list[FsError] = []
        self.lose_reads = False
        self.is_busy = False
        self.gathers = False
        self.together: list[int] = []  # how many were sent at once

    def has_room_to_read(self, _length: int) -> bool:
        return True

    def placed(self, _where: Where, _offset: int, _data: Bytes) -> None:
        return None

    def own(self, data: Bytes) -> Bytes:
        return bytes(data)

    def read_now(
        self, _where: Where, _offset: int, _length: int, *, seek: bool = False
    ) -> bytes | None:
        return None

    def read_here(self, _where: Where, _offset: int, _length: int) -> None:
        return None

    def errand(self, _where: Where, _offset: int, _length: int) -> None:
        return None

    def learn(self, _where: Where, _chunk: int) -> None:
        pass

    async def read(self, where: Where, offset: int, length: int) -> bytes:
        held = self.files.get((where.ino, where.data_generation), bytearray())
        return bytes(held[offset : offset + length]).ljust(length, b"\0")

    def start_read_now(
        self, where: Where, offset: int, length: int
    ) -> list[tuple[int, Pending[Reply]]] | None:
        return run_sync(self.start_read(where, offset, length))

    async def start_read(
        self, where: Where, offset: int, length: int
    ) -> list[tuple[int, Pending[Reply]]]:
        if self.lose_reads:
            return [(length, completed(Reply(code=Code.DAMAGED)))]
        data = await self.read(where, offset, length)
        return [(length, completed(Reply(data=data)))]

    async def start_write(self, where: Where, offset: int, data: Bytes) -> list[Pending[Reply]]:
        assert where.data_generation, "data goes under a generation"
        assert where.chains, "data goes to chains"
        if self.lose:
            error = self.lose.pop()
            return [completed(Reply(code=error.code, detail=error.detail))]
        if (where.ino, where.data_generation) in self.reaped:
            return [completed(Reply(code=Code.STALE_DATA))]  # a late write brings nothing back
        held = self.files.setdefault((where.ino, where.data_generation), bytearray())
        held.extend(bytes(max(0, offset - len(held))))
        held[offset : offset + len(data)] = bytes(data)
        return [completed(Reply())]

    def start_writes_now(
        self, where: Where, extents: Sequence[tuple[int, Bytes]]
    ) -> list[Pending[Reply]] | None:
        if self.is_busy:
            return None
        self.together.append(len(extents))
        return [p for o, d in extents for p in run_sync(self.start_write(where, o, d))]

    async def start_write_many(
        self, writes: Iterable[tuple[Where, int, Bytes]]
    ) -> list[Pending[Reply]]:
        return [p for w, o, d in writes for p in await self.start_write(w, o, d)]

    async def commit(self, _chains: Iterable[int] | None = None, _ino: int = 0) -> None:
        self.commits += 1


class _Background:
    def call_later(self, _seconds: float, _callback: object) -> None:
        """Nothing rings: tests release."""


class _Writeback:
    def __init__(self) -> None:
        self.hastened = 0

    def note(self, _file: object) -> None:
        """Nothing ages: tests flush."""

    def hasten(self, _file: object) -> None:
        self.hastened += 1


class MemConnection:
    """What `OpenInode` takes for a connection."""

    retry_timeout_s = 5.0

    def __init__(self) -> None:
        self.data = MemData()
        self.meta = TruncatingMeta(self.data)
        self.writeback = _Writeback()
        self.background = _Background()
        self.caller = Caller()
        self.session = object()
        self.capability = b""
        self.slept = 0

    def delays(self) -> Iterator[float]:
        return delays(random.Random(1), first_s=0.0001, last_s=0.0001)

    def sleep(self, _seconds: float) -> Pending[None]:
        self.slept += 1
        return completed(None)

    async def new_file(self, name: bytes = b"file") -> Attr:
        outcome = await self.meta.create(ROOT_REF, name, stat.S_IFREG | 0o644)
        attr: Attr = outcome.attr
        return attr

    async def now(self, attr: Attr) -> Attr:
        """What the server says by now."""
        ref = Ref(attr.ino, attr.generation, attr.place)
        found: Attr = (await self.meta.getattr(ref)).attr
        return found


def busy() -> FsError:
    return FsError(Code.BUSY, "provoked")


def opened(world: MemConnection, name: bytes = b"file") -> OpenInode:
    return OpenInode(cast("Connection", world), run_sync(world.new_file(name)), inline=b"")


def again(world: MemConnection, file: OpenInode) -> OpenInode:
    """As another client has it."""
    return OpenInode(cast("Connection", world), run_sync(world.now(file.attr)))
