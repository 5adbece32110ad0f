"""What all operations of one mount share: the connection, the nodes, the caches, the clocks.

Operations take and give `Node`s. An answer of the server is absorbed here: whatever attributes it
carries go to the nodes that the kernel knows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from superfs.core.errors import Code, FsError
from superfs.mount.notify import Notify
from superfs.rpc.bridge import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager

    from superfs.client.meta import MetaClient
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller
    from superfs.mount.attrcache import AttrCache
    from superfs.mount.handles import FileHandle
    from superfs.mount.nodes import Node, Nodes
    from superfs.mount.opens import Opens
    from superfs.mount.options import MountOptions

T = TypeVar("T")


class Contents(Protocol):
    """The contents of one regular file (superfs.client.file.OpenInode)."""

    @property
    def attr(self) -> Attr:
        """The server's, with what was written here and is not published yet on top."""

    @property
    def is_dirty(self) -> bool: ...

    losses: int

    def telling(self, handle: FileHandle) -> AbstractContextManager[None]:
        """Around what a handle does: it is told of lost bytes, once."""

    def observe(self, attr: Attr) -> None:
        """The server has told these attributes of the inode."""

    async def read(self, offset: int, length: int) -> bytes: ...
    async def write(self, offset: int, data: bytes) -> int: ...
    async def append_at(self, data: bytes) -> int: ...
    async def flush(self) -> None: ...
    async def fsync(self) -> None: ...
    async def abandon(self, still: Callable[[], bool]) -> None: ...

    async def setattr(
        self,
        mask: int,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        atime_ns: int = 0,
        mtime_ns: int = 0,
        caller: Caller | None = None,
    ) -> Attr:
        """In order with the writes."""


@dataclass(slots=True)
class Mounted:
    meta: MetaClient
    contents_of: Callable[[Attr], Contents]
    options: MountOptions
    nodes: Nodes
    cache: AttrCache
    opens: Opens
    notify: Notify = field(default_factory=Notify)
    now: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns

    def node(self, number: int) -> Node:
        try:
            return self.nodes.table[number]
        except KeyError:
            raise FsError(Code.STALE, f"inode {number} is not known here") from None

    async def call(self, coro: Coroutine[Any, Any, T]) -> T:
        return await drive(coro)

    async def ask(self, coro: Coroutine[Any, Any, Outcome]) -> Outcome:
        """One operation of the server; its attributes are cached from now on."""
        asked = self.now()
        outcome = await drive(coro)
        self.absorb(outcome, asked)
        return outcome

    def absorb(self, outcome: Outcome, asked: float) -> None:
        for attr in outcome.dirs:
            self.absorb_attr(attr, asked)
        if outcome.attr is not None:
            self.absorb_attr(outcome.attr, asked)
        if outcome.other is not None:
            self.absorb_attr(outcome.other, asked)

    def absorb_attr(self, attr: Attr, asked: float) -> None:
        node = self.nodes.find(attr.ino)
        if node is not None and node.generation == attr.generation:
            self.store(node, attr, asked)

    def store(self, node: Node, attr: Attr, asked: float) -> None:
        if attr.nlink == 0:
            self.cache.bury(node, attr)
        else:
            self.cache.store(node, attr, asked)
        if node.file is not None and node.file.contents is not None:
            node.file.contents.observe(attr)

    async def attr(self, node: Node) -> Attr:
        """Never older than the timeout. Files open here: with what was written here on top."""
        attr = self.known_attr(node)
        return attr if attr is not None else await self.fetch(node)

    def known_attr(self, node: Node) -> Attr | None:
        if self.now() < node.expires or node.gone:
            return node.attr if node.file is None else node.file.attr
        return None

    async def fetch(self, node: Node) -> Attr:
        asked = self.now()
        try:
            outcome = await drive(self.meta.getattr(node.ref))
        except FsError as error:
            if error.code in (Code.STALE, Code.NOT_FOUND):
                self.cache.drop_attr(node)
                raise FsError(Code.STALE, error.detail) from None
            raise
        assert outcome.attr is not None
        self.store(node, outcome.attr, asked)
        return outcome.attr if node.file is None else node.file.attr
