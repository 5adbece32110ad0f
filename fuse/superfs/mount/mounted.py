"""What all operations of one mount share: the connection, the nodes, the caches, the clocks.

Operations take and give `Node`s. An answer of the server is absorbed here: whatever attributes it
carries go to the nodes that the kernel knows.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import trio

from superfs.client.leases import lease_clock
from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.mount.contention import Contention
from superfs.mount.contents import SmallContents
from superfs.mount.guard import GUARDED_S, Unguarded
from superfs.mount.leases import NEVER, Grant, Leases
from superfs.mount.losses import Losses
from superfs.mount.meter import Gauge
from superfs.mount.notify import Notify
from superfs.mount.watched import Watched
from superfs.rpc.bridge import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from superfs.client.meta import MetaClient
    from superfs.client.sought import Sought
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller
    from superfs.mount.attrcache import AttrCache
    from superfs.mount.handles import FileHandle, Told
    from superfs.mount.leases import Lease
    from superfs.mount.nodes import Node, Nodes
    from superfs.mount.opens import Opens
    from superfs.mount.options import MountOptions

T = TypeVar("T")
DOUBT_WAIT_S = 0.1
"""How long a request by a doubtful name waits for the kernel to drop that name."""

ROOM_WAIT_S = 0.25
"""How long a listing waits for memory: the kernel may need its answer to let go of any."""


class Contents(Protocol):
    """The contents of one regular file (superfs.client.file.OpenInode)."""

    @property
    def attr(self) -> Attr:
        """The server's, with what was written here and is not published yet on top."""

    @property
    def is_dirty(self) -> bool: ...

    @property
    def is_settled(self) -> bool:
        """Nothing is to be written, and no error is to be told."""

    @property
    def settled(self) -> tuple[int, bytes] | None:
        """Version and contents of a small file, where they are known and all is published."""

    losses: int

    def read_now(self, offset: int, length: int, *, seek: bool = False) -> bytes | Sought | None:
        """As `read`, of what is in memory; None: it has to be fetched. `seek`: a little of it is
        sought on a disk of this host."""

    def read_soon(self, offset: int, length: int, done: Callable[[bytes | None], None]) -> bool:
        """`done` is told in whatever thread has it; None, or False now: ask with `read`."""

    def write_now(self, offset: int, data: bytes | memoryview) -> bool:
        """As `write`, where nothing has to be waited for; False: nothing was done."""

    def telling(self, handle: FileHandle | Told) -> AbstractContextManager[None]:
        """Around what a handle does: it is told of lost bytes, once."""

    def observe(self, attr: Attr) -> None:
        """The server has told these attributes of the inode."""

    def lose(self, error: FsError) -> None:
        """What was published is lost: every handle is told, once."""

    def recalled(self) -> None:
        """Another client has changed it: the next read asks for the attributes."""

    async def read(self, offset: int, length: int) -> bytes: ...
    async def write(self, offset: int, data: bytes | memoryview) -> int: ...
    async def append_at(self, data: bytes | memoryview) -> int: ...
    async def flush(self) -> None: ...

    def flush_here(self) -> bool:
        """As `flush`, where this client tells of it later and no data daemon gets anything now;
        False: it has to be waited for."""

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

    def setattr_here(
        self, mask: int, *, caller: Caller | None = None, **values: int
    ) -> Attr | None:
        """As `setattr`, where this client tells of it later; None: it has to be waited for."""


class Asked(NamedTuple):
    """When a question was sent: by the lease clock, and by the count of recalls."""

    at: float
    clock: int


@dataclass(slots=True)
class Mounted:
    meta: MetaClient
    contents_of: Callable[[Attr], Contents]
    options: MountOptions
    nodes: Nodes
    cache: AttrCache
    opens: Opens
    notify: Notify = field(default_factory=Notify)
    leases: Leases = field(default_factory=Leases)
    now: Callable[[], float] = lease_clock
    wall_ns: Callable[[], int] = time.time_ns
    guard: Unguarded = field(default_factory=Unguarded)
    fetched: int = 0  # attributes that memory did not have
    messages: Gauge = field(default_factory=Gauge)  # how long daemons took to answer
    crowded: trio.Event | None = None  # while too much is remembered; until when
    contents: SmallContents = field(init=False)
    watched: Watched = field(init=False)
    lost: Losses = field(default_factory=Losses)

    def __post_init__(self) -> None:
        self.watched = Watched(self.guard, self.nodes.is_alive)
        self.contents = SmallContents(self.options.contents_max_mib * MIB, self.now)

    async def room(self) -> None:
        """Before something large is remembered."""
        if self.crowded is not None:
            with trio.move_on_after(ROOM_WAIT_S):
                await self.crowded.wait()

    def node(self, number: int) -> Node:
        try:
            return self.nodes.table[number]
        except KeyError:
            raise FsError(Code.STALE, f"inode {number} is not known here") from None

    def named(self, number: int) -> Node:
        """Of a request that came by a path. While the kernel may believe a name of the file that it
        has not any more, it is to look the path up again; who has the file open may go on."""
        node = self.node(number)
        if node.doubts and not _is_free_of_doubt(node):
            raise FsError(Code.STALE, f"a name of inode {number} is being dropped")
        return node

    def disbelieve(self, number: object) -> None:
        """Of an inode that turned out stale: the kernel looks its name up again, and must not hear
        the same from our cache."""
        node = self.nodes.table.get(number) if isinstance(number, int) else None
        if node is not None:
            self.cache.drop_attr(node)

    async def settle(self, node: Node, *, anew: bool = False) -> None:
        """As `named`, of a request that does not hold the directory: the kernel looks the path up
        only once again, and so it is better told when the name has been dropped.
        `anew`: it has nothing open yet."""
        if _is_free_of_doubt(node) and not (anew and node.file is not None):
            return
        with trio.move_on_after(DOUBT_WAIT_S):
            while node.doubts:
                await next(iter(node.doubts.values())).wait()
        raise FsError(Code.STALE, f"a name of inode {node.number} was dropped")

    def drop_names(
        self, directory: Node, names: Iterable[tuple[bytes, Node | None]]
    ) -> trio.Event | None:
        """What the kernel may believe and what is not so any more, or not known to be. Files are
        in doubt until it is dropped, and the event set. None: it believes nothing of it."""
        contention, now = directory.contention, self.now()
        if directory.nlookup <= 0:
            return None
        doubted: list[tuple[tuple[int, bytes], Node]] = []
        dropped: list[bytes] = []
        for name, node in names:
            if contention is not None and not contention.may_be_believed(name, now):
                continue
            dropped.append(name)
            if node is not None and node.attr is not None and not node.attr.is_dir:
                doubted.append(((directory.number, name), node))
                self.notify.drop_attr(node.number)
        if not dropped:
            return None
        return self.notify.drop_names(directory.number, dropped, doubted, contention)

    def believed_until(self) -> float:
        """When the kernel has stopped to believe whatever it was told by now."""
        return self.now() + GUARDED_S if self.guard.is_on else self.leases.latest

    def contend(self, directory: Node) -> None:
        """Requests of this mount hold the directory while others change it."""
        now = self.now()
        contention = directory.contention
        if contention is not None and now < contention.until:
            contention.goes_on(now)
            return
        directory.contention = Contention(now, self.believed_until())

    @contextlib.contextmanager
    def changing(
        self, *nodes: Node | None, names: Sequence[tuple[Node, bytes]] = ()
    ) -> Iterator[None]:
        """A change by this mount is under way, and others may see it before we have the answer:
        meanwhile nothing of it is told from memory, here or by the kernel."""
        changed = [node for node in nodes if node is not None]
        for node in changed:
            node.changing += 1
            if node.nlookup > 0:
                self.notify.drop_attr(node.number)
        for parent, name in names:
            self.cache.changed(parent, name)
            if parent.names_changing is None:
                parent.names_changing = []
            parent.names_changing.append(name)
        try:
            yield
        except BaseException:
            for node in changed:
                self.cache.drop_attr(node)  # whether it was changed is not known
            raise
        finally:
            for node in changed:
                node.changing -= 1
            for parent, name in names:
                assert parent.names_changing is not None
                parent.names_changing.remove(name)
                self.cache.changed(parent, name)

    async def call(self, coro: Coroutine[Any, Any, T]) -> T:
        return await drive(coro)

    async def ask(self, coro: Coroutine[Any, Any, Outcome]) -> Outcome:
        """One operation of the server; its attributes are cached from now on."""
        return (await self.consult(coro))[0]

    async def consult(
        self, coro: Coroutine[Any, Any, Outcome], *held: Node
    ) -> tuple[Outcome, Grant]:
        """As `ask`; and how long the rest of the answer may be repeated. `held`: directories whose
        locks the kernel holds meanwhile."""
        asked = self.asking()
        for node in held:
            node.busy += 1
        try:
            with self.messages.timed():
                outcome = await self.call(coro)
        finally:
            for node in held:
                node.busy -= 1
        grant = self.grant(asked, outcome.leases)
        self._take_in(outcome, grant)
        return outcome, grant

    def change_here(self, node: Node) -> None:
        """It is going to be changed by this mount, and others may see it before the kernel has the
        answer: it believes nothing of before until then."""
        if node.told and node.nlookup > 0:
            node.told = False
            self.notify.drop_attr(node.number)

    def done_here(self, outcome: Outcome) -> Grant:
        """As `consult`, of what this mount has done by itself, at once; not of contents."""
        grant = Grant(self.leases, outcome.leases, self.leases.clock)
        if outcome.attr is not None:
            self._carry_over(outcome.attr)
        self._take_in(outcome, grant)
        return grant

    def _carry_over(self, attr: Attr) -> None:
        """Contents that are kept of a file are still so, if they were until now: others may have
        changed the file before this mount came to hold the directory."""
        node = self.nodes.alive(attr.ino)
        whole = None if node is None else node.whole
        if whole is None or node is None or node.attr is None or node.generation != attr.generation:
            return
        untouched = node.file is None or node.file.contents is None
        if untouched and whole.change == node.attr.change and self.now() < node.lease.until:
            whole.change = attr.change

    def _take_in(self, outcome: Outcome, grant: Grant) -> None:
        for attr in outcome.dirs:
            self._absorb(attr, grant)
            number = self.nodes.number_of(attr.ino)
            if number in self.watched:
                self.notify.drop_attr(number)  # no answer from before is believed after this one
        if outcome.attr is not None:
            self._absorb(outcome.attr, grant)
        if outcome.other is not None:
            self._absorb(outcome.other, grant)

    def asking(self) -> Asked:
        return Asked(self.now(), self.leases.clock)

    def grant(self, asked: Asked, given: frozenset[int]) -> Grant:
        attr_s, entry_s = self.options.attr_timeout_s, self.options.entry_timeout_s
        return Grant(
            self.leases,
            given,
            asked.clock,
            asked.at + attr_s if attr_s else 0.0,
            asked.at + entry_s if entry_s else 0.0,
        )

    def _absorb(self, attr: Attr, grant: Grant) -> None:
        node = self.nodes.alive(attr.ino)
        if node is not None and node.generation == attr.generation:
            self.store(node, attr, grant.attr(attr))

    def store(self, node: Node, attr: Attr, lease: Lease) -> None:
        if attr.nlink == 0:
            self.cache.bury(node, attr)
        else:
            self.cache.store(node, attr, lease)
        if node.file is not None and node.file.contents is not None:
            node.file.contents.observe(attr)

    async def attr(self, node: Node) -> Attr:
        """Never older than the timeout. Files open here: with what was written here on top."""
        attr = self.known_attr(node)
        return attr if attr is not None else await self.fetch(node)

    def known_attr(self, node: Node) -> Attr | None:
        attr = self.cache.fresh(node, self.now())
        return attr if attr is None or node.file is None else node.file.attr

    async def fetch(self, node: Node) -> Attr:
        self.fetched += 1
        try:
            outcome = await self.ask(self.meta.getattr(node.ref))
        except FsError as error:
            if error.code in (Code.STALE, Code.NOT_FOUND):
                self.cache.drop_attr(node)
                if node.file is not None and node.attr is not None:
                    return self._left_open(node, node.file.attr)
                raise FsError(Code.STALE, error.detail) from None
            raise
        assert outcome.attr is not None
        return outcome.attr if node.file is None else node.file.attr

    def _left_open(self, node: Node, attr: Attr) -> Attr:
        """Another client has removed it. Whoever has it open may still ask, above all the kernel
        in the middle of open(O_CREAT), which would make the file once more."""
        attr = attr.copy()
        attr.nlink = 0
        self.store(node, attr, NEVER)
        return attr if node.file is None else node.file.attr


def _is_free_of_doubt(node: Node) -> bool:
    return node.file is not None or (node.attr is not None and node.attr.is_dir)
