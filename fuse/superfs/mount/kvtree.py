"""`.kv` in the root of a mount: the blocks of the KVCache pool as files that can be read.

    .kv/NAMESPACE/blocks/KEY    KEY: 32 hexadecimal digits, as in the pool

Nothing of it is in the namespace. It is found by its name and not listed in the root, so that who
walks the tree does not walk a cache. Only the mount's user (and root) may look: the slab lets in no
others either. Every name is asked for again when it is used, so what was evicted is gone at once;
reading does not count as a use in the pool. The kernel may know `KNOWN_MAX` blocks at a time, and
a listing makes it know none, so that a million of them cost a mount nothing.
"""

from __future__ import annotations

import os
import stat
import time
from bisect import bisect_right
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from superfs.core.attrs import Attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import VIRTUAL_MAX, virtual_id
from superfs.mount.handles import Handles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from superfs.client.kvblocks import KvBlock

T = TypeVar("T")
NAME = b".kv"
BLOCKS = b"blocks"
KNOWN_MAX = 16_384
FORGET_BLOCKS = 1024
"""At a time, of those that the kernel has known longest."""
PAGE_BLOCKS = 256
"""Of a listing, at a time: others wait while a page is worked on."""
ASKING_MAX = 4
"""Threads that wait for a data daemon."""
DIRECTORY_MODE, FILE_MODE = stat.S_IFDIR | 0o500, stat.S_IFREG | 0o400


class Source(Protocol):
    """superfs.client.kvblocks.KvBlocks"""

    def names(self) -> list[str]: ...
    def listed(self, name: str, after: int, limit: int) -> tuple[list[KvBlock], int]: ...
    def length(self, name: str, key: bytes) -> int: ...
    def contents(self, name: str, key: bytes) -> bytes | None: ...


@dataclass(slots=True, eq=False)
class KvNode:
    """`path` below `.kv`: (), (namespace,), (namespace, "blocks") or (…, key)."""

    number: int
    path: tuple[bytes, ...]
    length: int = 0
    lookups: int = 0

    @property
    def is_block(self) -> bool:
        return len(self.path) == 3

    @property
    def space(self) -> str:
        return self.path[0].decode()


@dataclass(slots=True, eq=False)
class KvHandle:
    node: KvNode
    page: list[KvBlock] = field(default_factory=list)
    page_after: int = -1  # where it begins
    page_next: int = 0


class KvTree:
    def __init__(
        self, source: Source, memory_max: int, forget: Callable[[int, Sequence[bytes]], object]
    ) -> None:
        """`memory_max` bytes of contents are kept at most, but for one block. `forget`: the kernel
        is asked to, these names of a directory."""
        self._source = source
        self._memory_max = memory_max
        self._forget = forget
        self.made_ns = time.time_ns()
        self.top = KvNode(virtual_id(0), (), lookups=1)
        self.table: dict[int, KvNode] = {self.top.number: self.top}
        self._blocks: OrderedDict[int, None] = OrderedDict()  # that it was not asked to forget
        self.handles: Handles[KvHandle] = Handles()
        self._contents: OrderedDict[tuple[bytes, ...], bytes] = OrderedDict()
        self._contents_bytes = 0
        self._open: Counter[tuple[bytes, ...]] = Counter()
        self._limiter = trio.CapacityLimiter(ASKING_MAX)

    # ---- names

    def node(self, number: int) -> KvNode:
        node = self.table.get(number)
        if node is None:
            raise FsError(Code.STALE, f"inode {number} is not known here")
        return node

    async def find(self, parent: KvNode, name: bytes) -> KvNode:
        """Not counted yet. NOT_FOUND: there is no such thing, or not any more."""
        path, length = (*parent.path, name), 0
        if not parent.path:
            known = name.decode("ascii", "replace") in await self._ask(self._source.names)
        elif len(parent.path) == 1:
            known = name == BLOCKS
        elif len(parent.path) == 2 and (key := _key_of(name)) is not None:
            length = await self._ask(partial(self._source.length, parent.space, key))
            known = length > 0
        else:
            known = False
        if not known:
            raise FsError(Code.NOT_FOUND)
        return self._made(path, length)

    def _made(self, path: tuple[bytes, ...], length: int) -> KvNode:
        counter = _counter_of(path)
        while (node := self.table.get(virtual_id(counter))) is not None and node.path != path:
            counter = counter % VIRTUAL_MAX + 1
        node = node or KvNode(virtual_id(counter), path)
        node.length = length
        return node

    def count(self, node: KvNode) -> None:
        """A look-up was answered with it."""
        node.lookups += 1
        self.table[node.number] = node
        if node.is_block:
            self._blocks[node.number] = None
            self._blocks.move_to_end(node.number)
            if len(self._blocks) > KNOWN_MAX:
                self._shrink()

    def _shrink(self) -> None:
        names: dict[tuple[bytes, ...], list[bytes]] = {}
        for _ in range(FORGET_BLOCKS):
            node = self.table[self._blocks.popitem(last=False)[0]]
            names.setdefault(node.path[:2], []).append(node.path[2])
        for path, dropped in names.items():
            self._forget(self._made(path, 0).number, dropped)

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> None:
        """The kernel counts so many look-ups less of each; others than ours are passed over."""
        for number, lookups in forgotten:
            node = self.table.get(number)
            if node is None or node is self.top:
                continue
            node.lookups -= lookups
            if node.lookups <= 0:
                del self.table[number]
                self._blocks.pop(number, None)

    def attr(self, node: KvNode) -> Attr:
        """Times are when the mount was made: a block has none."""
        mode, links = (FILE_MODE, 1) if node.is_block else (DIRECTORY_MODE, 2)
        at = self.made_ns
        return Attr(
            node.number, 1, node.number, mode, links, os.geteuid(), os.getegid(), node.length,
            atime_ns=at, mtime_ns=at, ctime_ns=at,
        )  # fmt: skip

    # ---- directories

    async def entries(
        self, handle: KvHandle, after: int
    ) -> tuple[list[tuple[bytes, int, int]], int]:
        """(name, number, where to go on behind it) of some, from `after` on; and where to go on
        behind all, 0: that was the end."""
        path = handle.node.path
        if len(path) == 2:
            return await self._block_entries(handle, after)
        names = [BLOCKS]
        if not path:
            names = [name.encode() for name in await self._ask(self._source.names)]
        rest = list(enumerate(names, 1))[after:]
        return [(name, virtual_id(_counter_of((*path, name))), at) for at, name in rest], 0

    async def _block_entries(
        self, handle: KvHandle, after: int
    ) -> tuple[list[tuple[bytes, int, int]], int]:
        page = handle.page
        if not (page and handle.page_after <= after < page[-1].after):
            page, ahead = await self._ask(
                partial(self._source.listed, handle.node.space, after, PAGE_BLOCKS)
            )
            handle.page, handle.page_after, handle.page_next = page, after, ahead
        first = bisect_right(page, after, key=lambda block: block.after)
        path = handle.node.path
        found = [
            (name := block.key.hex().encode(), virtual_id(_counter_of((*path, name))), block.after)
            for block in page[first:]
        ]
        return found, handle.page_next

    # ---- files

    async def fetch(self, node: KvNode) -> bytes | None:
        """Its contents, compared with their checksum by the data daemon. None: it is gone."""
        data = self._contents.get(node.path)
        if data is not None:
            self._contents.move_to_end(node.path)
            return data
        key = _key_of(node.path[2])
        assert key is not None
        data = await self._ask(partial(self._source.contents, node.space, key))
        if data is not None:
            self._keep(node.path, data)
        return data

    def _keep(self, path: tuple[bytes, ...], data: bytes) -> None:
        self._contents_bytes += len(data) - len(self._contents.pop(path, b""))
        self._contents[path] = data
        while self._contents_bytes > self._memory_max and len(self._contents) > 1:
            self._contents_bytes -= len(self._contents.popitem(last=False)[1])

    def opened(self, node: KvNode) -> int:
        self._open[node.path] += 1
        return self.handles.add(KvHandle(node))

    def release(self, fh: int) -> None:
        """Contents that nobody has open are not kept."""
        path = self.handles.pop(fh).node.path
        self._open[path] -= 1
        if not self._open[path]:
            del self._open[path]
            self._contents_bytes -= len(self._contents.pop(path, b""))

    async def _ask(self, ask: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._limiter)


def _key_of(name: bytes) -> bytes | None:
    if len(name) != 32 or name != name.lower():
        return None
    try:
        key = bytes.fromhex(name.decode("ascii"))
    except ValueError:
        return None
    return key if len(key) == 16 else None


def _counter_of(path: tuple[bytes, ...]) -> int:
    """From 1 on: the number of a path where no other has it. 0 is `.kv` itself."""
    if len(path) == 3:
        return int(path[2][16:], 16) % VIRTUAL_MAX + 1
    found = blake2b(b"/".join(path), digest_size=8).digest()
    return int.from_bytes(found, "little") % VIRTUAL_MAX + 1
