"""What is answered from memory: names, attributes, extended attributes, directories.

Each takes a request (its number, the inode's number, what follows the header, who asks) and gives
the whole answer, or None where somebody has to be asked. Nothing is awaited. What is raised is an
FsError that the desk turns into an errno.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.mount.desk import protocol
from superfs.mount.desk.protocol import (
    FOPEN_CACHE_DIR,
    FOPEN_KEEP_CACHE,
    GETXATTR_IN,
    HANDLE_IN,
    READ_IN,
)
from superfs.mount.encode import is_new_in_contention, packed, shown
from superfs.mount.handles import DirHandle
from superfs.mount.listings import DOTS, SERIES
from superfs.mount.xattrs import HAS_ANY, surely_absent

if TYPE_CHECKING:
    from superfs.mount.desk.waits import Waits
    from superfs.mount.nodes import Node
    from superfs.mount.services import Services

NO_ANSWER = b""
"""Of a request that is done and that nobody waits for."""


class Answers:
    def __init__(self, services: Services, waits: Waits) -> None:
        self._waits = waits
        self._s = services
        self._m = services.mounted
        self._nodes = services.mounted.nodes
        self._table = services.mounted.nodes.table
        self._now = services.mounted.now
        self._valid = services.validity
        self._dirs = services.dirs
        self._negative_s = services.mounted.options.negative_timeout_s

    # ---- names

    def lookup(
        self, unique: int, number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | None:
        parent = self._table.get(number)
        if parent is None:
            return None
        name = bytes(body[:-1])
        try:
            node = self._s.names.cached(parent, name)
        except FsError as error:
            if error.code is Code.NOT_FOUND and self._negative_s > 0:
                return protocol.entry(unique, 0, 0, self._negative_s, 0, bytes(protocol.ATTR_BYTES))
            raise
        if node is None:
            return None
        if node.doubts:
            node.doubts.pop((number, name), None)
        node = self._nodes.count(node)
        now, valid = self._now(), self._valid
        attr_s = valid.attr_s(node, now)
        if is_new_in_contention(parent, node.nlookup):
            attr_s = 0
        return protocol.entry(
            unique, node.number, node.generation, valid.entry_s(node, now), attr_s, packed(node)
        )

    def forget(self, _unique: int, number: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        self._s.forget([(number, protocol.FORGET_IN.unpack_from(body)[0])])
        return NO_ANSWER

    def batch_forget(
        self, _unique: int, _number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes:
        self._s.forget(protocol.forgotten(body))
        return NO_ANSWER

    def interrupt(
        self, _unique: int, _number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes:
        """A signal waits for whoever asked. The answer comes as it would, unless that takes long: a
        system call on a file does not fail because of a signal."""
        self._waits.interrupt(HANDLE_IN.unpack_from(body)[0])
        return NO_ANSWER

    # ---- attributes

    def _known(self, number: int) -> Node | None:
        """With attributes that are still good and names that are not in doubt."""
        node = self._table.get(number)
        if node is None or node.doubts or self._m.known_attr(node) is None:
            return None
        return node

    def getattr(
        self, unique: int, number: int, _body: memoryview, _uid: int, _gid: int
    ) -> bytes | None:
        node = self._known(number)
        if node is None:
            return None
        return protocol.attributes(unique, self._valid.attr_s(node, self._now()), packed(node))

    def readlink(
        self, unique: int, number: int, _body: memoryview, _uid: int, _gid: int
    ) -> bytes | None:
        node = self._table.get(number)
        if node is None or node.doubts:
            return None
        target = self._s.inodes.known_target(node)
        return None if target is None else protocol.data(unique, target)

    def getxattr(
        self, unique: int, number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | None:
        node = self._known(number)
        if node is None:
            return None
        attr = node.attr
        assert attr is not None
        if surely_absent(attr, bytes(body[GETXATTR_IN.size : -1])):
            return protocol.error(unique, errno.ENODATA)
        return None

    def listxattr(
        self, unique: int, number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | None:
        node = self._known(number)
        if node is None:
            return None
        attr = node.attr
        assert attr is not None
        if attr.flags & HAS_ANY:
            return None
        room = GETXATTR_IN.unpack_from(body)[0]
        return protocol.done(unique) if room else protocol.size(unique, 0)

    # ---- directories

    def opendir(self, unique: int, number: int, _body: memoryview, _uid: int, _gid: int) -> bytes:
        """The kernel keeps what it lists. It lists it again from its memory as long as the times of
        the directory are what they were, and those it is told under a lease."""
        node = self._m.node(number)
        handle = DirHandle(node)
        options = FOPEN_CACHE_DIR
        kept = self._m.cache.listing(node, self._now())
        if kept is not None and node.listed == node.changes and kept.in_order() is not None:
            options |= FOPEN_KEEP_CACHE
            self._s.listings.begin(handle)  # it may have to go on here, from any place
        node.listed = node.changes
        return protocol.opened(unique, self._dirs.add(handle), options)

    def releasedir(
        self, unique: int, _number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes:
        self._s.listings.stop(self._dirs.pop(HANDLE_IN.unpack_from(body)[0]))
        return protocol.done(unique)

    def fsyncdir(
        self, unique: int, _number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | None:
        """Every change of a directory was durable when it was acknowledged, but for what this mount
        has yet to tell."""
        node = self._dirs.get(HANDLE_IN.unpack_from(body)[0]).node
        is_synced = self._m.meta.is_synced and node.ino not in self._m.lost
        return protocol.done(unique) if is_synced else None

    def readdirplus(
        self, unique: int, _number: int, body: memoryview, _uid: int, _gid: int
    ) -> bytes | None:
        fh, start, room = READ_IN.unpack_from(body)
        handle = self._dirs.get(fh)
        snapshot, start = self._s.listings.reach(handle, start)
        found: list[bytes] = []
        for cookie, (name, number) in enumerate(
            ((b".", handle.node.number), (b"..", snapshot.parent))[start:],
            snapshot.series * SERIES + start + 1,
        ):
            found.append(protocol.dot(name, cookie, number))
        entries = self._entries(handle, max(start - DOTS, 0), room - sum(map(len, found)))
        if entries is None and not found:
            return None
        return protocol.data(unique, b"".join(found + (entries or [])))

    def _entries(self, handle: DirHandle, index: int, room: int) -> list[bytes] | None:
        """From entry `index` on, as many as there is room for and memory knows; None: it knows
        none, and the directory goes on."""
        snapshot = handle.snapshot
        assert snapshot is not None
        if snapshot.ends_at(index):
            return []
        if not snapshot.covers(index):
            return None
        now, table, enter, nodes = self._now(), self._table, self._nodes.enter, snapshot.nodes
        valid = self._valid
        names, changed, first = snapshot.names, snapshot.changed, snapshot.first
        cookie = snapshot.series * SERIES + DOTS + 1
        found: list[bytes] = []
        contended = handle.node.contention is not None
        for at in range(index, first + len(nodes)):
            name = names[at]
            if changed and name in changed:
                break
            node = nodes[at - first]
            node = table.get(node.number, node)
            if node.attr is None:
                break
            entry_s, attr_s = valid.entry_s(node, now), valid.attr_s(node, now)
            if contended:
                entry_s, attr_s = 0, attr_s if node.nlookup else 0
            entry = protocol.direntplus(
                name, cookie + at, node.number, node.generation, entry_s, attr_s, packed(node),
                shown(node).mode,
            )  # fmt: skip
            room -= len(entry)
            if room < 0:
                break
            found.append(entry)
            node.nlookup += 1
            if node.nlookup == 1:
                enter(node)
        return found or None
