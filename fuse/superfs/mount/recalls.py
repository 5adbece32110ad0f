"""What this mount repeats without asking ends: other clients changed it, or the connection broke.

The connection calls from its threads (superfs.client.leases.LeaseHolder); everything is done in the
loop of the mount, in the order it came. The rules and their reasons are in
docs/decisions/0012-shared-leases.md.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import trio

from superfs.client.codec import unpack_names
from superfs.core.ids import is_directory_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from superfs.core.errors import FsError
    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node
    from superfs.v1 import meta_pb2

DROP_WAIT_S = 0.1
"""How long an acknowledgement waits for the kernel to drop names: a local process may hold their
directory while it waits for us, and we for a mount that waits for us."""
LAPSE_WAIT_S = 1.0
"""How long a new hello waits for the kernel to drop names: whoever holds their directory may wait
for it."""
FORGET_WAIT_S = 0.05
"""How often it is seen whether there is still something to wait for."""
TICK_S = 0.25

TAKEN_IN_S = 1.0
"""How long it may take until a process has seen the answer that it waited for."""
Drop = tuple["Node", trio.Event]
"""Of names of a directory, by the kernel, and when it is done."""

log = logging.getLogger("superfs.mount.recalls")


class Lapse:
    """`forgotten`: nothing is told from memory any more, and the kernel tells no attributes.
    `dropped`: nor names."""

    def __init__(self) -> None:
        self.forgotten = threading.Event()
        self.dropped = threading.Event()


class Recalls:
    """Made before the connection, serving from `run` on."""

    def __init__(self) -> None:
        self._mounted: Mounted | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._until = 0.0
        self._over = 0.0  # the end of leases that the kernel was told of late
        self.received = 0

    # ---- from the threads of the connection

    def extended(self, until: float) -> None:
        self._until = until
        self._soon(self._extend)

    def recalled(self, message: meta_pb2.Invalidate, acknowledge: Callable[[], None]) -> None:
        if not self._soon(self._recall, message, acknowledge):
            acknowledge()  # nothing is repeated yet, or any more

    def lost(self, inos: Collection[int], error: FsError, heard: Callable[[], None]) -> None:
        if not self._soon(self._lose, inos, error, heard):
            heard()

    def lapsed(self) -> None:
        lapse = Lapse()
        if not self._soon(self._lapse, lapse):
            return
        # The hello says that nothing is repeated any more. That must be so, however long the loop
        # is at something else; what was under leases ends by itself with them.
        while not lapse.forgotten.wait(FORGET_WAIT_S):
            mounted = self._mounted
            if self._token is None or mounted is None or mounted.now() > self._until:
                return
        lapse.dropped.wait(LAPSE_WAIT_S)

    def _soon(self, function: Callable[..., None], *arguments: object) -> bool:
        if self._token is None:
            return False
        try:
            self._token.run_sync_soon(function, *arguments)
        except trio.RunFinishedError:
            return False
        return True

    # ---- in the loop

    def _lose(self, inos: Collection[int], error: FsError, heard: Callable[[], None]) -> None:
        """Each is as the server says, also where it has never heard of what was answered here."""
        m = self._mounted
        assert m is not None
        m.lost.count += len(inos)
        try:
            m.lost.note([ino for ino in inos if not self._disown(ino, error)], error)
        finally:
            heard()

    def _disown(self, ino: int, error: FsError) -> bool:
        """Whether somebody has it open, and will be told."""
        m = self._mounted
        assert m is not None
        node = m.nodes.alive(ino)
        if node is None:
            return False
        m.cache.disown(node)
        m.contents.drop(node)
        node.pages_of = None
        if node.file is None:
            return False
        contents = node.file.contents
        if contents is None and node.attr is not None:
            contents = node.file.contents = m.contents_of(node.attr)
        if contents is not None:
            contents.lose(error)
        return contents is not None

    async def run(self, mounted: Mounted) -> None:
        """Until cancelled. Before, nothing comes under a lease."""
        async with trio.open_nursery() as self._nursery:
            self._mounted = mounted
            self._token = trio.lowlevel.current_trio_token()
            self._extend()
            try:
                while True:
                    await trio.sleep(TICK_S)
                    self._end()
            finally:
                self._token = None

    def _extend(self) -> None:
        if self._until and self._mounted is not None:
            self._mounted.leases.extend(self._until)
            self._mounted.guard.good_until(self._mounted.leases.until)

    def _end(self) -> None:
        """The kernel counts from when an answer has arrived. One that was on its way while this
        process or the machine stood still may be believed for longer than its lease."""
        m = self._mounted
        assert m is not None
        if m.leases.until and m.now() >= m.leases.until:
            self._lapse(Lapse())

    def _recall(self, message: meta_pb2.Invalidate, acknowledge: Callable[[], None]) -> None:
        if self._token is None:
            acknowledge()
            return
        self.received += 1
        assert self._mounted is not None
        self._mounted.notify.settle()
        try:
            slow = [drop for recall in message.recalls for drop in self._one(recall)]
        except Exception:
            log.exception("a bug in the mount: everything is forgotten instead")
            self._lapse(Lapse())
            slow = []
        if not slow:
            acknowledge()
            return
        assert self._nursery is not None
        self._nursery.start_soon(self._acknowledge_later, slow, acknowledge)

    async def _acknowledge_later(self, slow: list[Drop], acknowledge: Callable[[], None]) -> None:
        m = self._mounted
        assert m is not None
        with trio.move_on_after(DROP_WAIT_S) as scope:
            for _, event in slow:
                await event.wait()
        if scope.cancelled_caught:
            if m.guard.is_on:
                m.notify.drop_all_names()
            for directory, event in slow:
                if not event.is_set():
                    m.contend(directory)
        acknowledge()

    def _one(self, recall: meta_pb2.Recall) -> list[Drop]:
        """What the acknowledgement has to wait for."""
        m = self._mounted
        assert m is not None
        m.leases.recall(recall.lease, whole=recall.whole, inos=recall.inos)
        directory = m.nodes.alive(recall.lease)
        if directory is None:
            return self._forget_inodes(recall.inos)
        if recall.whole:
            slow = self._forget_inodes({node.ino for node in self._under(recall.lease)})
            directory.changes += 1
            m.cache.unsure_readers(directory)
            return slow + self._drop(directory, list(m.cache.names_of(directory)))
        found: list[tuple[bytes, Node | None]] = []
        unsure_of_kernel = m.options.negative_timeout_s > 0  # what does not exist is believed too
        for name in unpack_names(recall.names):
            node = m.cache.last_known(directory, name)
            if node is not None or unsure_of_kernel:
                found.append((name, node))
            m.cache.changed(directory, name)
        return self._forget_inodes(recall.inos) + self._drop(directory, found)

    def _drop(self, directory: Node, names: list[tuple[bytes, Node | None]]) -> list[Drop]:
        m = self._mounted
        assert m is not None
        if not names:
            return []
        if directory.busy:
            m.contend(directory)
        dropped = m.drop_names(directory, names)
        return [] if dropped is None else [(directory, dropped)]

    def _under(self, lease_id: int) -> list[Node]:
        m = self._mounted
        assert m is not None
        return [node for node in m.nodes.all_alive() if node.place == lease_id]

    def _forget_inodes(self, inos: Iterable[int]) -> list[Drop]:
        m = self._mounted
        assert m is not None
        slow: list[Drop] = []
        for ino in inos:
            node = m.nodes.alive(ino)
            if node is None:
                continue
            m.cache.drop_attr(node)
            if node.file is not None and node.file.contents is not None:
                node.file.contents.recalled()
            if node.nlookup > 0:
                known = self._drop_in_kernel(node)
                above = m.nodes.table.get(node.parent)
                if above is not None and (not known or m.now() < node.made + TAKEN_IN_S):
                    # What it was told about it last may still be on its way.
                    slow.append((above, m.notify.drop_attr_again(node.number, above.number)))
                if node.file is not None:
                    m.notify.drop_pages(node.number)
        return slow

    def _drop_in_kernel(self, node: Node) -> bool:
        """Attributes; of a directory also what it has listed, which its times alone would not tell
        to be old: they can be set."""
        m = self._mounted
        assert m is not None
        if is_directory_id(node.ino):
            return m.notify.drop_listing(node.number)
        return m.notify.drop_attr(node.number)

    # ---- all of them

    def answered(self) -> None:
        """After each answer to the kernel. One that was made under a lease which has ended since,
        when this process was stopped in between, comes after what the guard has said."""
        m = self._mounted
        if m is None or not m.guard.is_on:
            return
        until = m.leases.until
        if until and until != self._over and m.now() >= until:
            self._over = until
            m.notify.drop_all_names()
            for node in m.nodes:
                if node.file is not None or node.number in m.watched:
                    m.notify.drop_attr(node.number)

    def _lapse(self, lapse: Lapse) -> None:
        m = self._mounted
        assert m is not None
        m.notify.settle()
        had = len(m.leases)
        m.leases.lapse()
        if not had or self._token is None:
            lapse.forgotten.set()
            lapse.dropped.set()
            return
        log.info("%d leases have ended", had)
        for node in m.nodes.all_alive():
            m.cache.drop_attr(node)
            if node.file is not None and node.file.contents is not None:
                node.file.contents.recalled()
        names: dict[int, list[tuple[bytes, Node | None]]] = {}
        for number, name, node in m.cache.all_names():
            names.setdefault(number, []).append((name, node))
        for node in m.nodes:
            self._drop_in_kernel(node)
        if m.guard.is_on:
            m.notify.drop_all_names()
        slow: list[trio.Event] = []
        for number, found in names.items():
            directory = m.nodes.table.get(number)
            if directory is not None:
                directory.changes += 1
                if not m.guard.is_on:
                    slow += [event for _, event in self._drop(directory, found)]
        m.guard.good_until(0.0)  # not before: what is stopped half-way is the guard's
        lapse.forgotten.set()
        assert self._nursery is not None
        self._nursery.start_soon(_wait_for_all, slow, lapse.dropped)


async def _wait_for_all(slow: list[trio.Event], done: threading.Event) -> None:
    try:
        for event in slow:
            await event.wait()
    finally:
        done.set()
