"""Telling the kernel that what it has cached is not so any more.

Attributes alone can be dropped from anywhere. Dropping pages may wait for requests that the
kernel has under way, and so may dropping a name: those go through one queue to a thread of their
own, never from inside the handler of a request. One directory does not wait for another.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from superfs.core.limits import NAME_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.mount.contention import Contention
    from superfs.mount.nodes import Node

PAGES_MAX = 10_000
"""Waiting so many, further pages are not dropped: an open will compare. Names always are; there are
no more of them than the kernel knows."""
PRUNED_MAX = 4096
"""Inodes in one message: the kernel works on them for some 20 ms."""
NO_NAME = b"-" * (NAME_BYTES_MAX + 1)
THREADS_MAX = 8
"""So many directories at a time."""

log = logging.getLogger("superfs.mount.notify")


class Kernel(Protocol):
    """What can be said (superfs.mount.desk.device.Notices); tests record the calls."""

    def settle(self) -> None:
        """Before anything is said: what was answered earlier has reached the kernel."""

    def forget_names(self) -> None:
        """All of them; EINVAL: it cannot be asked that."""

    def invalidate_inode(self, inode: int, attr_only: bool = False) -> None: ...
    def invalidate_entry(self, inode_p: int, name: bytes, deleted: int = 0) -> None: ...
    def prune(self, inodes: Sequence[int]) -> None:
        """To forget them, where nobody uses them; at most PRUNED_MAX. EINVAL: it cannot be asked
        that."""


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """Of one directory. The event is set when the kernel has dropped them; until then these nodes
    are in doubt, by (directory, name)."""

    names: Sequence[bytes]
    doubted: Sequence[tuple[tuple[int, bytes], Node]] = ()
    contention: Contention | None = None
    again: int = 0  # afterwards, the attributes of this inode
    done: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, slots=True, eq=False)
class Unused:
    """What the kernel had better forget of a directory."""

    parent: int
    known: Sequence[tuple[bytes, Node]]
    done: trio.Event = field(default_factory=trio.Event)


What = Names | Unused


class Notify:
    def __init__(self, kernel: Kernel | None = None) -> None:
        self._kernel = kernel
        self._prunes = True
        self._pages, self._pages_due = trio.open_memory_channel[int](PAGES_MAX)
        self._waiting: dict[int, deque[What]] = {}
        self._dropping: Counter[tuple[int, bytes]] = Counter()
        self._nursery: trio.Nursery | None = None
        self._limiter = trio.CapacityLimiter(THREADS_MAX)

    def settle(self) -> None:
        if self._kernel is not None:
            self._kernel.settle()

    def drop_attr(self, number: int) -> bool:
        """False: the kernel does not know the inode, or not yet."""
        kernel = self._kernel
        return kernel is None or _quietly(lambda k: k.invalidate_inode(number, True), kernel)

    def drop_listing(self, number: int) -> bool:
        """What the kernel has listed of a directory, and its attributes. As `drop_attr`: nothing is
        waited for that could wait for us."""
        kernel = self._kernel
        return kernel is None or _quietly(lambda k: k.invalidate_inode(number), kernel)

    def drop_attr_again(self, number: int, directory: int) -> trio.Event:
        """When the kernel has taken in what it has been told about this directory until now. It
        does so under the lock of the directory; dropping a name that none can have waits for it."""
        return self._drop(directory, Names((NO_NAME,), again=number))

    def drop_all_names(self) -> None:
        if self._kernel is not None:
            _quietly(lambda kernel: kernel.forget_names(), self._kernel)

    def drop_pages(self, number: int) -> None:
        try:
            self._pages.send_nowait(number)
        except trio.WouldBlock:
            log.debug("too much is waiting: pages of inode %d are not dropped", number)

    def drop_names(
        self,
        directory: int,
        names: Sequence[bytes],
        doubted: Sequence[tuple[tuple[int, bytes], Node]] = (),
        contention: Contention | None = None,
    ) -> trio.Event:
        """Set when it is done."""
        what = Names(names, doubted, contention)
        for key, node in doubted:
            if node.doubts is None:
                node.doubts = {}
            node.doubts[key] = what.done
        return self._drop(directory, what)

    def _drop(self, directory: int, what: Names) -> trio.Event:
        for name in what.names:
            self._dropping[directory, name] += 1
        return self._soon(directory, what)

    def _soon(self, directory: int, what: What) -> trio.Event:
        waiting = self._waiting.get(directory)
        if waiting is None:
            self._waiting[directory] = waiting = deque()
            if self._nursery is not None:
                self._nursery.start_soon(self._drain, directory)
        waiting.append(what)
        return what.done

    def prune(self, parent: int, known: Sequence[tuple[bytes, Node]]) -> trio.Event:
        """Set when the kernel has been asked. It forgets what is not in use."""
        return self._soon(parent, Unused(parent, known))

    def is_dropping(self, directory: int, name: bytes) -> bool:
        """Whether the kernel may still believe what we know to be otherwise."""
        return (directory, name) in self._dropping

    async def run(self) -> None:
        """Until cancelled. The loop does not wait for the threads at its end."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for directory in self._waiting:
                nursery.start_soon(self._drain, directory)
            alone = trio.CapacityLimiter(1)
            try:
                async for number in self._pages_due:
                    await self._in_thread(partial(self._drop_pages, number), alone)
            finally:
                self._nursery = None

    async def _in_thread(self, tell: Callable[[], None], limiter: trio.CapacityLimiter) -> None:
        if self._kernel is not None:
            await trio.to_thread.run_sync(tell, abandon_on_cancel=True, limiter=limiter)

    async def _drain(self, directory: int) -> None:
        waiting = self._waiting[directory]
        while waiting:
            what = waiting.popleft()
            await self._in_thread(partial(self._tell, directory, what), self._limiter)
            what.done.set()
            if isinstance(what, Names):
                self._dropped(directory, what)
            del what  # the nodes in it are nobody's, from now on
        del self._waiting[directory]

    def _dropped(self, directory: int, what: Names) -> None:
        for name in what.names:
            self._dropping[directory, name] -= 1
            if not self._dropping[directory, name]:
                del self._dropping[directory, name]
            if what.contention is not None:
                what.contention.dropped(name)
        for key, node in what.doubted:
            if node.doubts is not None and node.doubts.get(key) is what.done:
                del node.doubts[key]

    # ---- in threads

    def _drop_pages(self, number: int) -> None:
        assert self._kernel is not None
        _quietly(lambda kernel: kernel.invalidate_inode(number), self._kernel)

    def _tell(self, directory: int, what: What) -> None:
        assert self._kernel is not None
        if isinstance(what, Unused):
            self._tell_unused(what, self._kernel)
            return
        for name in what.names:
            _drop_name(self._kernel, directory, name)
        if what.again:
            self.drop_attr(what.again)

    def _tell_unused(self, what: Unused, kernel: Kernel) -> None:
        if self._prunes:
            try:
                kernel.prune([node.number for _, node in what.known])
                return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    log.debug("notification: %s", error)
                    return
                log.info("this kernel forgets no inodes on request: it is told names one by one")
                self._prunes = False
        for name, node in what.known:
            # A directory may be somebody's working directory, which has to keep its name.
            if node.attr is not None and not node.attr.is_dir:
                _drop_name(kernel, what.parent, name)


def _drop_name(kernel: Kernel, parent: int, name: bytes) -> None:
    _quietly(lambda kernel: kernel.invalidate_entry(parent, name), kernel)


def _quietly(tell: object, kernel: Kernel) -> bool:
    """The kernel says ENOENT when it has nothing cached: False. EBADF or ENODEV at the end of a
    mount."""
    assert callable(tell)
    try:
        tell(kernel)
    except OSError as error:
        log.debug("notification: %s", error)
        return error.errno != errno.ENOENT
    return True
