"""Telling the kernel that what it has cached is not so any more.

Attributes alone can be dropped from anywhere. Dropping pages may wait for requests that the
kernel has under way, and so may dropping a name: those go through one queue to a thread of their
own, never from inside the handler of a request.
"""

from __future__ import annotations

import errno
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.mount.nodes import Node

PAGES_MAX = 10_000
"""Waiting so many, further pages are not dropped: an open will compare. Names always are; there are
no more of them than the kernel knows."""
PRUNED_MAX = 4096
"""Inodes in one message: the kernel works on them for some 20 ms."""

log = logging.getLogger("superfs.mount.notify")


class Kernel(Protocol):
    """What can be said (superfs.mount.desk.device.Notices); tests record the calls."""

    def settle(self) -> None:
        """Before anything is said: what was answered earlier has reached the kernel."""

    def invalidate_inode(self, inode: int, attr_only: bool = False) -> None: ...
    def invalidate_entry(self, inode_p: int, name: bytes, deleted: int = 0) -> None: ...
    def prune(self, inodes: Sequence[int]) -> None:
        """To forget them, where nobody uses them; at most PRUNED_MAX. EINVAL: it cannot be asked
        that."""


@dataclass(frozen=True, slots=True)
class Pages:
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """(directory, name) each; the event is set when the kernel has dropped them, and until then
    the nodes are in doubt."""

    names: Sequence[tuple[int, bytes]]
    doubted: Sequence[tuple[tuple[int, bytes], Node]] = ()
    done: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, slots=True, eq=False)
class Unused:
    """What the kernel had better forget of a directory."""

    parent: int
    known: Sequence[tuple[bytes, Node]]
    done: trio.Event = field(default_factory=trio.Event)


What = Pages | Names | Unused


class Notify:
    def __init__(self, kernel: Kernel | None = None) -> None:
        self._kernel = kernel
        self._prunes = True
        self._send, self._receive = trio.open_memory_channel[What](math.inf)

    def settle(self) -> None:
        if self._kernel is not None:
            self._kernel.settle()

    def drop_attr(self, number: int) -> None:
        if self._kernel is not None:
            _quietly(lambda kernel: kernel.invalidate_inode(number, attr_only=True), self._kernel)

    def drop_pages(self, number: int) -> None:
        if self._send.statistics().current_buffer_used < PAGES_MAX:
            self._send.send_nowait(Pages(number))

    def drop_names(
        self,
        names: Sequence[tuple[int, bytes]],
        doubted: Sequence[tuple[tuple[int, bytes], Node]] = (),
    ) -> trio.Event:
        """Set when it is done."""
        what = Names(names, doubted)
        for key, node in doubted:
            if node.doubts is None:
                node.doubts = {}
            node.doubts[key] = what.done
        self._send.send_nowait(what)
        return what.done

    def prune(self, parent: int, known: Sequence[tuple[bytes, Node]]) -> trio.Event:
        """Set when the kernel has been asked. It forgets what is not in use."""
        what = Unused(parent, known)
        self._send.send_nowait(what)
        return what.done

    async def run(self) -> None:
        """Until cancelled. One thread at a time, of which the loop does not wait at its end."""
        limiter = trio.CapacityLimiter(1)
        async for what in self._receive:
            await trio.to_thread.run_sync(self._tell, what, abandon_on_cancel=True, limiter=limiter)
            if not isinstance(what, Pages):
                what.done.set()
            if isinstance(what, Names):
                for key, node in what.doubted:
                    if node.doubts is not None and node.doubts.get(key) is what.done:
                        del node.doubts[key]
            del what  # the nodes in it are nobody's, from now on

    def _tell(self, what: What) -> None:
        kernel = self._kernel
        if kernel is None:
            return
        if isinstance(what, Pages):
            _quietly(lambda kernel: kernel.invalidate_inode(what.number), kernel)
        elif isinstance(what, Unused):
            self._tell_unused(what, kernel)
        else:
            for parent, name in what.names:
                _drop_name(kernel, parent, name)

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


def _quietly(tell: object, kernel: Kernel) -> None:
    """The kernel says ENOENT when it has nothing cached, EBADF or ENODEV at the end of a mount."""
    assert callable(tell)
    try:
        tell(kernel)
    except OSError as error:
        log.debug("notification: %s", error)
