"""What makes, changes, moves and removes, where this mount may do it by itself (decision 19).

As in answers.py: a whole answer, or None where somebody has to be asked; then nothing was done, and
the request goes its ordinary way.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, TypeVar

from superfs.core.namespace.bits import (
    SET_ATIME,
    SET_ATIME_NOW,
    SET_GID,
    SET_MODE,
    SET_MTIME,
    SET_MTIME_NOW,
    SET_SIZE,
    SET_UID,
)
from superfs.core.namespace.txn import Caller
from superfs.mount.desk import protocol
from superfs.mount.desk.protocol import (
    CREATE_IN,
    LINK_IN,
    MKDIR_IN,
    RENAME2_IN,
    RENAME_IN,
    SETATTR_IN,
    SetAttr,
)
from superfs.mount.encode import may_be_taken_in_late, packed
from superfs.mount.inodes import is_setgid_alone

if TYPE_CHECKING:
    from superfs.mount.nodes import Node
    from superfs.mount.services import Services

T = TypeVar("T")
CALLERS_MAX = 1024
_MEANINGS = (
    (int(SetAttr.MODE), SET_MODE),
    (int(SetAttr.UID), SET_UID),
    (int(SetAttr.GID), SET_GID),
    (int(SetAttr.SIZE), SET_SIZE),
    (int(SetAttr.ATIME), SET_ATIME),
    (int(SetAttr.MTIME), SET_MTIME),
    (int(SetAttr.ATIME_NOW), SET_ATIME_NOW),
    (int(SetAttr.MTIME_NOW), SET_MTIME_NOW),
)
_BESIDES = int(SetAttr.FH | SetAttr.LOCKOWNER | SetAttr.KILL_SUIDGID)
"""Privileges are lost by what the change is, whether or not the kernel says so."""
_NOT_UNDERSTOOD = ~(_BESIDES | sum(flag for flag, _ in _MEANINGS))


class Changes:
    def __init__(self, services: Services) -> None:
        self._s = services
        self._m = services.mounted
        self._table = services.mounted.nodes.table
        self._callers: dict[tuple[int, int, int], Caller] = {}

    def _caller(self, uid: int, gid: int, umask: int = 0) -> Caller:
        caller = self._callers.get((uid, gid, umask))
        if caller is None:
            if len(self._callers) >= CALLERS_MAX:
                self._callers.clear()
            caller = self._callers[uid, gid, umask] = Caller(uid, gid, umask=umask)
        return caller

    def _made(self, node: Node, parent: Node) -> tuple[int, int, float, float, bytes]:
        """The answer's entry. The kernel takes it in whatever it has been told meanwhile."""
        m = self._m
        known, now = m.nodes.count(node), m.now()
        attr_s = 0.0
        if not may_be_taken_in_late(known, parent):
            attr_s = self._s.validity.attr_s(known, now)
            known.made = now
        entry_s = self._s.validity.entry_s(known, now)
        return known.number, known.generation, entry_s, attr_s, packed(known)

    # ---- making

    def create(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> bytes | None:
        parent = self._table.get(number)
        if parent is None:
            return None
        flags, mode, umask, _ = CREATE_IN.unpack_from(body)
        name = bytes(body[CREATE_IN.size : -1])
        caller = self._caller(uid, gid, umask)
        found = self._s.create_open_here(parent, name, mode, flags, caller)
        if found is None:
            return None
        node, handle = found
        options = protocol.open_options(*self._s.files.opened(handle))
        fh = self._s.handles.add(handle)
        return protocol.created(unique, *self._made(node, parent), fh, options)

    def mkdir(self, unique: int, number: int, body: memoryview, uid: int, gid: int) -> bytes | None:
        parent = self._table.get(number)
        if parent is None:
            return None
        mode, umask = MKDIR_IN.unpack_from(body)
        name = bytes(body[MKDIR_IN.size : -1])
        node = self._s.names.mkdir_here(parent, name, mode, self._caller(uid, gid, umask))
        return None if node is None else protocol.entry(unique, *self._made(node, parent))

    def symlink(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> bytes | None:
        parent = self._table.get(number)
        if parent is None:
            return None
        name, target = bytes(body[:-1]).split(b"\0")
        mode, caller = stat.S_IFLNK | 0o777, self._caller(uid, gid)
        node = self._s.names.create_here(parent, name, mode, caller, target=target)
        return None if node is None else protocol.entry(unique, *self._made(node, parent))

    def link(self, unique: int, number: int, body: memoryview, uid: int, gid: int) -> bytes | None:
        parent, node = self._table.get(number), self._table.get(LINK_IN.unpack_from(body)[0])
        if parent is None or node is None or node.doubts:
            return None
        name = bytes(body[LINK_IN.size : -1])
        linked = self._s.names.link_here(node, parent, name, self._caller(uid, gid))
        return None if linked is None else protocol.entry(unique, *self._made(linked, parent))

    # ---- moving and removing

    def unlink(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> bytes | None:
        parent, name = self._table.get(number), bytes(body[:-1])
        if parent is None:
            return None
        done = self._s.names.unlink_here(parent, name, self._caller(uid, gid))
        return protocol.done(unique) if done else None

    def rmdir(self, unique: int, number: int, body: memoryview, uid: int, gid: int) -> bytes | None:
        parent = self._table.get(number)
        if parent is None:
            return None
        name = bytes(body[:-1])
        done = self._s.names.rmdir_here(parent, name, self._caller(uid, gid))
        return protocol.done(unique) if done else None

    def rename(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> bytes | None:
        (into,) = RENAME_IN.unpack_from(body)
        return self._rename(unique, number, into, 0, body[RENAME_IN.size :], uid, gid)

    def rename2(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> bytes | None:
        into, flags = RENAME2_IN.unpack_from(body)
        return self._rename(unique, number, into, flags, body[RENAME2_IN.size :], uid, gid)

    def _rename(
        self,
        unique: int,
        number: int,
        into: int,
        flags: int,
        names: memoryview,
        uid: int,
        gid: int,
    ) -> bytes | None:
        parent = self._table.get(number)
        if parent is None or into != number:
            return None
        old, new = bytes(names[:-1]).split(b"\0")
        done = self._s.names.rename_here(parent, old, new, flags, self._caller(uid, gid))
        return protocol.done(unique) if done else None

    # ---- attributes

    def setattr(
        self, unique: int, number: int, body: memoryview, uid: int, gid: int
    ) -> bytes | None:
        node = self._table.get(number)
        if node is None or node.doubts:
            return None
        (
            valid, _, size, atime, mtime, _, atime_ns, mtime_ns, _, mode, owner, group,
        ) = SETATTR_IN.unpack_from(body)  # fmt: skip
        if valid & _NOT_UNDERSTOOD:
            return None
        mask = 0
        for flag, meaning in _MEANINGS:
            if valid & flag:
                mask |= meaning
        if uid and node.attr is not None and is_setgid_alone(node.attr):
            return None
        done = self._s.inodes.setattr_here(
            node, mask, self._caller(uid, gid), mode=stat.S_IMODE(mode), uid=owner, gid=group,
            size=size, atime_ns=atime * 10**9 + atime_ns, mtime_ns=mtime * 10**9 + mtime_ns,
        )  # fmt: skip
        if not done:
            return None
        # The kernel would keep what it is told here, whatever it has been told meanwhile.
        return protocol.attributes(unique, 0, packed(node))
