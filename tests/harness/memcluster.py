"""A cluster in one process for tests of the mount: the rules on a store in memory, contents in a
dict. The same interface as the client's, no daemons, no threads.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from superfs.client.columns import SmallFiles
from superfs.core.attrs import PACKED_ATTR_BYTES, Set, pack_attr
from superfs.core.errors import Code, FsError
from superfs.core.limits import MESSAGE_DATA_BYTES_MAX
from superfs.core.namespace.outcome import FsStat, Outcome
from superfs.core.namespace.release_orphan import release_orphan
from superfs.core.namespace.txn import Caller, Ref
from superfs.core.namespace.verbs import VERBS
from superfs.meta.memstore import MemStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.client.data import Where
    from superfs.client.sought import Sought
    from superfs.core.attrs import Attr
    from superfs.rpc.pending import Pending

SESSION = 7


class _Everything(frozenset[int]):
    def __contains__(self, _: object) -> bool:
        return True


EVERY_LEASE = _Everything()


class MemMeta:
    """`calls` counts what was asked; `fail` maps a verb to the error it raises next."""

    def __init__(self) -> None:
        self.store = MemStore()
        self.calls: Counter[str] = Counter()
        self.fail: dict[str, FsError] = {}
        self.held: Counter[int] = Counter()
        self.data: dict[int, bytearray] = {}
        self.made: Counter[int] = Counter()
        """Contents that somebody wanted to read or write by themselves, by inode."""
        self.fetched: list[bytes] = []
        """Names asked for with their contents."""
        self.held_back: dict[str, Pending[None]] = {}
        """By verb: its answers come when this is done; what it did is done before."""
        self.returned: list[int] = []
        """Leases that were given back."""
        self.grants = False
        """Whether everything is told under its lease."""

    is_synced = True
    here = None

    async def sync(self) -> None:
        """Everything is done at once."""

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb not in VERBS:
            raise AttributeError(verb)

        async def call(
            *args: Any,  # noqa: ANN401
            caller: Caller | None = None,
            session: object = None,
            **options: Any,  # noqa: ANN401
        ) -> Outcome:
            self.calls[verb] += 1
            if verb in self.fail:
                raise self.fail.pop(verb)
            who = caller or Caller()
            who = Caller(who.uid, who.gid, who.groups, who.umask, SESSION)
            outcome: Outcome = self.store.run(VERBS[verb], who, *args, **options)
            if verb in self.held_back:
                await self.held_back[verb]
            return self._granted(outcome)

        return call

    async def find_name(self, *args: Any, **options: Any) -> Outcome:  # noqa: ANN401
        """Counted as the lookup it is."""
        try:
            outcome: Outcome = await self.lookup(*args, **options)
        except FsError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            outcome = Outcome()
        return self._granted(outcome)

    async def get_small(self, dir: Ref, names: Sequence[bytes]) -> SmallFiles:  # noqa: A002
        self.calls["get_small"] += 1
        self.fetched += names
        if "get_small" in self.fail:
            raise self.fail.pop("get_small")
        rows: list[tuple[int, int, bytes | None]] = []
        packed = b""
        for entry in self.store.run(VERBS["get_many"], Caller(), dir, names).entries:
            attr = entry.attr
            if attr is None:
                rows.append((0, 0, None))
                packed += bytes(PACKED_ATTR_BYTES)
                continue
            data = bytes(self.data.get(attr.ino, b"")[: attr.size])
            rows.append((attr.ino, attr.change, data if attr.is_inline else None))
            packed += pack_attr(attr)
        answer = SmallFiles(rows, EVERY_LEASE if self.grants else frozenset(), packed)
        if "get_small" in self.held_back:
            await self.held_back["get_small"]
        return answer

    def return_leases(self, leases: Sequence[int]) -> None:
        self.returned += leases

    many_bytes_max = MESSAGE_DATA_BYTES_MAX

    async def read_many(self, wanted: Sequence[tuple[Where, int]]) -> list[bytes | FsError]:
        """As the client of the data daemons."""
        self.calls["read_many"] += 1
        if "read_many" in self.fail:
            return [self.fail.pop("read_many")] * len(wanted)
        found: list[bytes | FsError] = [
            bytes(self.data.get(where.ino, b"")[:size]).ljust(size, b"\0") for where, size in wanted
        ]
        if "read_many" in self.held_back:
            await self.held_back["read_many"]
        return found

    def _granted(self, outcome: Outcome) -> Outcome:
        if self.grants:
            outcome.leases = EVERY_LEASE
        return outcome

    async def open(self, inode: Ref, **_: object) -> Outcome:
        self.calls["open"] += 1
        self.note_open(inode)
        return Outcome(self.store.run(VERBS["getattr"], Caller(), inode).attr)

    def note_open(self, inode: Ref) -> None:
        self.held[inode.ino] += 1
        self.store.opened.setdefault(inode.ino, set()).add(SESSION)

    async def release(self, inodes: Sequence[Ref], **_: object) -> None:
        self.calls["release"] += 1
        for ref in inodes:
            self.held[ref.ino] -= 1
            assert self.held[ref.ino] == 0, "released as often as opened"
            self.store.opened.get(ref.ino, set()).discard(SESSION)
            if self.store.get_orphan(ref.ino) is not None:
                self.store.run(release_orphan, ref.ino, SESSION)

    async def statfs(self) -> Outcome:
        self.calls["statfs"] += 1
        return Outcome(fs_stat=FsStat(1 << 40, 1 << 39, len(self.store.inodes), 1 << 30))

    def contents_of(self, attr: Attr) -> MemContents:
        self.made[attr.ino] += 1
        return MemContents(self, attr)


class MemContents:
    """As OpenInode: size and times are published by flush; bytes lie in a dict of the cluster."""

    def __init__(self, meta: MemMeta, attr: Attr) -> None:
        self._meta = meta
        self._attr = attr
        self._size = 0
        self.is_dirty = False
        self.fail: FsError | None = None
        self.losses = 0
        self.recalls = 0

    @property
    def _bytes(self) -> bytearray:
        return self._meta.data.setdefault(self._attr.ino, bytearray())

    @property
    def ref(self) -> Ref:
        return Ref(self._attr.ino, self._attr.generation, self._attr.place)

    @property
    def attr(self) -> Attr:
        attr = self._attr.copy()
        attr.size = max(attr.size, self._size) if self.is_dirty else attr.size
        return attr

    def observe(self, attr: Attr) -> None:
        if attr.change >= self._attr.change:
            self._attr = attr

    @property
    def is_settled(self) -> bool:
        return not self.is_dirty and self.fail is None

    def read_now(self, offset: int, length: int, *, seek: bool = False) -> Sought | bytes | None:
        """As if there were nothing in memory but what is written."""
        return None

    def read_soon(self, _offset: int, _length: int, _done: Callable[[bytes | None], None]) -> bool:
        return False

    def write_now(self, offset: int, data: bytes | memoryview) -> bool:
        return False

    async def read(self, offset: int, length: int) -> bytes:
        found = bytes(self._bytes[offset : min(offset + length, self.attr.size)])
        wanted = max(0, min(length, self.attr.size - offset))
        return found.ljust(wanted, b"\0")

    async def write(self, offset: int, data: bytes | memoryview) -> int:
        if self.fail is not None:
            raise self.fail
        held = self._bytes
        held.extend(bytes(max(0, offset - len(held))))
        held[offset : offset + len(data)] = data
        self._size = max(self.attr.size, offset + len(data))
        self.is_dirty = True
        return len(data)

    async def append_at(self, data: bytes | memoryview) -> int:
        outcome = await self._meta.getattr(self.ref)
        assert outcome.attr is not None
        self.observe(outcome.attr)
        offset = self.attr.size
        await self.write(offset, data)
        await self.flush()
        return offset

    def recalled(self) -> None:
        self.recalls += 1

    def lose(self, _error: FsError) -> None:
        self.losses += 1

    def telling(self, _handle: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    async def abandon(self, still: Callable[[], bool]) -> None:
        assert still()
        self.is_dirty = False

    settled = None

    def flush_here(self) -> bool:
        return False

    def setattr_here(
        self, mask: int, *, caller: Caller | None = None, **values: int
    ) -> Attr | None:
        return None

    async def flush(self) -> None:
        if not self.is_dirty:
            return
        if self.fail is not None:
            raise self.fail
        attr = self.store_size(self._size)
        self.is_dirty = False
        self.observe(attr)

    def store_size(self, size: int) -> Attr:
        """Past the rules: contents are not the server's business here."""
        outcome = self._meta.store.run(
            VERBS["setattr"], Caller(), self.ref, int(Set.SIZE), size=size
        )
        assert outcome.attr is not None
        return outcome.attr

    async def fsync(self) -> None:
        await self.flush()

    async def setattr(
        self, mask: int, *, size: int = 0, caller: Caller | None = None, **values: int
    ) -> Attr:
        await self.flush()
        if mask & Set.SIZE:
            del self._bytes[size:]
        outcome = await self._meta.setattr(
            self.ref, mask, size=size, caller=caller or Caller(), **values
        )
        assert outcome.attr is not None
        self.observe(outcome.attr)
        return self.attr
