"""Fetches the contents of small files before they are read: what ahead.py says, as columns, many in
one message.

It sees every read that memory could not answer (`miss`), and every first read of what was fetched
(`read`). A reader waits for a window only where the file it wants is in it. What cannot be had that
way (a file that changed just now, a name that is gone, a daemon that does not answer) is left to
the file's own `Contents`, which says what is wrong.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import trio

from superfs.client.data import Where
from superfs.core.errors import FsError
from superfs.core.limits import INLINE_BYTES_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.core.namespace.bits import TRUNCATING
from superfs.mount.ahead import UNIT_BYTES, WIDTH_MIN, Course, Habit
from superfs.mount.contents import ENTRY_BYTES
from superfs.rpc.bridge import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from superfs.core.attrs import Attr
    from superfs.mount.ahead import Run, Window
    from superfs.mount.contents import Whole
    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node
    from superfs.mount.places import Place

DIRECTORIES_MAX = 64
FILES_MAX = 200_000
"""In all directories that are followed."""
FLIGHTS_MAX = 4
"""Windows on their way at once."""
DATA_BYTES_MAX = 128 * 1024
"""Files on data daemons up to this size are small."""
NEAR_UNIT_BYTES, NEAR_WIDTH_MIN = 64 * 1024, 32
"""In place of those of ahead.py, where data daemons are on this host: bytes cost less there, and
what readers wait for at first is the number of windows."""
GROWTH = 16
"""A directory is put in order anew when its known names have grown by one in so many."""
IDLE_S = 2.0
"""What was fetched for a directory that nobody has read in for so long makes room for others."""

log = logging.getLogger("superfs.mount.prefetch")


class BulkReader(Protocol):
    """The data daemons (superfs.client.data.DataClient)."""

    @property
    def many_bytes_max(self) -> int:
        """What is better asked for at once than in parts."""

    async def read_many(self, wanted: Sequence[tuple[Where, int]]) -> list[bytes | FsError]: ...

    def commit(self) -> Coroutine[Any, Any, None]:
        """What was written anywhere is on disk."""


@dataclass(slots=True, eq=False)
class Followed:
    """A directory in which files are read: its names as far as they were known, which need not be
    so any more, and the position of each file in them."""

    parent: Node
    names: list[bytes]
    nodes: list[Node]
    positions: dict[int, int]
    course: Course


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """A window on its way."""

    followed: Followed
    run: Run
    positions: list[int]
    bytes: int
    landed: trio.Event


class Prefetch:
    def __init__(self, mounted: Mounted, data: BulkReader | None = None) -> None:
        self._m = mounted
        self.data = data
        self._contents = mounted.contents
        self._followed: dict[int, Followed] = {}
        self._runs: dict[Course, Followed] = {}
        self._flying: dict[Node, trio.Event] = {}
        self._flights = self._flying_bytes = 0
        self._habit = Habit()
        self._serving = False
        self._send, self._receive = trio.open_memory_channel[Flight](FLIGHTS_MAX)
        self.asked = 0
        """Files that were asked for in bulk."""
        mounted.contents.on_read = self._read

    async def run(self) -> None:
        """Until cancelled: the windows that nobody waits for."""
        async with trio.open_nursery() as nursery:
            self._serving = True
            try:
                async for flight in self._receive:
                    nursery.start_soon(self._land, flight)
            finally:
                self._serving = False

    @property
    def figures(self) -> dict[str, tuple[str, Callable[[], int]]]:
        """For a meter."""
        contents = self._contents
        return {
            "contents_bytes": ("Bytes of small files kept", lambda: contents.bytes_kept),
            "contents_hits": ("Reads answered with them", lambda: contents.hits),
            "contents_ahead": ("Small files fetched ahead", lambda: self.asked),
            "contents_wasted": ("Small files dropped unread", lambda: contents.wasted),
        }

    # ---- what is read

    async def miss(self, node: Node) -> None:
        """Somebody is about to read a file whose contents are not here. They may be afterwards."""
        m = self._m
        under_way = self._flying.get(node)
        if under_way is not None:
            await under_way.wait()
            return
        attr = m.known_attr(node)
        if attr is None or not self._is_worth(attr) or self._contents.bytes_max <= 0:
            return
        followed = self._follow(node)
        if followed is None:
            return
        followed.course.read_at = m.now()
        window = followed.course.missed(followed.positions[node.number])
        if window is None:
            return
        if not window.waits:
            self._soon(followed, window)
        elif (flight := self._begin(followed, window)) is not None:
            await self._land(flight)

    def _read(self, whole: Whole, run: Run) -> None:
        followed = self._runs.get(run.course)
        if followed is None:
            return
        run.course.read_at = self._m.now()
        window = run.course.found(whole.position, run)
        if window is not None:
            self._soon(followed, window)

    def _soon(self, followed: Followed, window: Window) -> None:
        if self._serving and self._flights < FLIGHTS_MAX:
            flight = self._begin(followed, window)
            if flight is not None:
                self._send.send_nowait(flight)

    # ---- directories

    def _follow(self, node: Node) -> Followed | None:
        """The directory of a file, as far as its names are known."""
        m = self._m
        parent = m.nodes.table.get(node.parent)
        listing = None if parent is None else m.cache.places.get(parent.ino)
        if parent is None or listing is None or m.now() >= listing.lease.until:
            return None
        followed = self._followed.get(parent.number)
        width = self._habit.width
        if followed is not None and followed.parent is parent:
            if node.number in followed.positions:
                return followed
            new = abs(len(listing.names) - len(followed.names))
            if GROWTH * new < len(followed.names):
                return None
            width = followed.course.width or width
        self.unfollow(parent.number)
        names, nodes = listing.order or _in_order(listing)
        positions = {n.number: position for position, n in enumerate(nodes)}
        if node.number not in positions:
            return None
        attr = node.attr
        near = self._is_near and attr is not None and not attr.is_inline
        course = Course(len(names), width, NEAR_WIDTH_MIN if near else WIDTH_MIN)
        followed = Followed(parent, names, nodes, positions, course)
        while self._followed and (
            len(self._followed) >= DIRECTORIES_MAX
            or len(names) + sum(len(f.names) for f in self._followed.values()) > FILES_MAX
        ):
            self.unfollow(next(iter(self._followed)))
        self._followed[parent.number] = followed
        self._runs[followed.course] = followed
        self._habit.begun(followed.course)
        return followed

    def unfollow(self, number: int) -> None:
        """This directory, by the kernel's number, and whatever is in it, may be forgotten."""
        followed = self._followed.pop(number, None)
        if followed is not None:
            del self._runs[followed.course]

    def forget(self, node: Node) -> None:
        """The kernel does not know this inode any more."""
        self.unfollow(node.number)

    # ---- windows

    def _begin(self, followed: Followed, window: Window) -> Flight | None:
        """None: there is nothing to fetch, or no room."""
        self._make_room()
        nodes, flying = followed.nodes, self._flying

        room = min(self._window_bytes, self._contents.room - self._flying_bytes)
        if not window.waits and room < min(self._window_bytes, self._contents.bytes_max) // 4:
            return None  # not worth a message: it is tried again when something has been read
        inline = min(MESSAGE_DATA_BYTES_MAX, room)  # of metad: one message
        seen: set[Node] = set()  # a file may have several names here

        def cost(position: int) -> int:
            nonlocal inline
            node = nodes[position]
            bytes_ = -1 if node in flying or node in seen else self._cost(node)
            seen.add(node)
            if bytes_ > 0 and node.attr is not None and node.attr.is_inline:
                inline -= bytes_
            return bytes_ if inline >= 0 else room + 1

        unit = NEAR_UNIT_BYTES if self._is_near else UNIT_BYTES
        positions = followed.course.pick(window, cost, room, unit)
        if not positions:
            return None
        landed = trio.Event()
        flying.update((nodes[position], landed) for position in positions)
        attrs = [nodes[position].attr for position in positions]
        bytes_ = sum(ENTRY_BYTES + attr.size for attr in attrs if attr is not None)
        self._flights += 1
        self._flying_bytes += bytes_
        self.asked += len(positions)
        return Flight(followed, window.run, positions, bytes_, landed)

    @property
    def _is_near(self) -> bool:
        return self._window_bytes > MESSAGE_DATA_BYTES_MAX

    @property
    def _window_bytes(self) -> int:
        return MESSAGE_DATA_BYTES_MAX if self.data is None else self.data.many_bytes_max

    async def _land(self, flight: Flight) -> None:
        try:
            await self._ask(flight)
        except FsError as error:
            directory = flight.followed.parent
            log.debug("%d files of inode %d: %s", len(flight.positions), directory.ino, error)
        finally:
            self._flights -= 1
            self._flying_bytes -= flight.bytes
            for position in flight.positions:
                del self._flying[flight.followed.nodes[position]]
            flight.landed.set()

    async def _ask(self, flight: Flight) -> None:
        nodes = flight.followed.nodes
        inline: list[int] = []
        others: list[tuple[int, Attr]] = []
        for position in flight.positions:
            attr = nodes[position].attr
            if attr is None or attr.is_inline:
                inline.append(position)
            else:
                others.append((position, attr))
        if inline:
            await self._ask_meta(flight, inline)
        if others:
            await self._ask_data(flight, others)

    async def _ask_meta(self, flight: Flight, positions: list[int]) -> None:
        m, contents, followed = self._m, self._contents, flight.followed
        asked, clock = m.asking(), contents.clock
        names = [followed.names[position] for position in positions]
        files = await drive(m.meta.get_small(followed.parent.ref, names))
        grant = m.grant(asked, files.leases)
        rows = zip(positions, files.rows, strict=True)
        for index, (position, (ino, change, data)) in enumerate(rows):
            node = followed.nodes[position]
            if node.ino != ino or data is None:
                continue
            attr = node.attr
            if attr is None or attr.change < change:
                attr = files.attr(index)
            if attr.change == change:
                m.store(node, attr, grant.attr(attr))
                contents.keep(node, change, data, clock, flight.run, position)

    async def _ask_data(self, flight: Flight, files: list[tuple[int, Attr]]) -> None:
        """Contents are of the version that was known before they were asked for: what was published
        by then is in them (docs/decisions/0015)."""
        assert self.data is not None, "only what can be fetched is worth it"
        clock = self._contents.clock
        wanted = [(Where.of(attr), attr.size) for _, attr in files]
        found = await drive(self.data.read_many(wanted))
        for (position, attr), data in zip(files, found, strict=True):
            if isinstance(data, bytes):
                node = flight.followed.nodes[position]
                self._contents.keep(node, attr.change, data, clock, flight.run, position)

    def _cost(self, node: Node) -> int:
        """What its contents would take; negative: there is no use in fetching them."""
        attr = node.attr
        if attr is None or node.gone or self._contents.has(node) or not self._is_worth(attr):
            return -1
        if node.file is not None and node.file.contents is not None:
            return -1
        if not attr.is_inline and self._m.now() >= node.lease.until:
            return -1  # of which version would it be?
        return ENTRY_BYTES + attr.size

    def _is_worth(self, attr: Attr) -> bool:
        """A small file that is not empty."""
        if attr.is_inline:
            return attr.is_regular and 0 < attr.size <= INLINE_BYTES_MAX
        if self.data is None or not attr.is_regular or attr.flags & TRUNCATING:
            return False
        return 0 < attr.size <= DATA_BYTES_MAX and bool(attr.chains)

    def _make_room(self) -> None:
        limit = self._m.now() - IDLE_S
        while self._contents.room - self._flying_bytes < self._window_bytes:
            oldest = self._contents.oldest_unread()
            if oldest is None or oldest.run is None or oldest.run.course.read_at > limit:
                break
            self._contents.drop(oldest.node)


def _in_order(listing: Place) -> tuple[list[bytes], list[Node]]:
    """Without the names that are unsure."""
    known = {n: node for n, node in listing.names.items() if not isinstance(node, tuple)}
    names = sorted(known)
    return names, [known[name] for name in names]
