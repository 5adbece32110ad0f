"""What a daemon has done in a directory that we hold, because it could not be done here.

Answers may be taken in by several threads, in any order: of each inode the newest counts
(`Attr.change`). Names of one directory are changed one after the other, for the kernel holds it
meanwhile. Called with the lock of the state.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.client.delegation.concerns import ATTR_ONLY, ONE_NAME
from superfs.core.namespace.bits import ACL_FLAGS, MULTI
from superfs.core.namespace.rename import EXCHANGE
from superfs.core.namespace.txn import Dentry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from superfs.client.delegation.state import Delegations
    from superfs.client.ops import Call
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome


def moved(state: Delegations, call: Call, outcome: Outcome) -> None:
    """Directories that were moved or removed by the daemon, held or not."""
    verb, body, held = call.verb, call.body, state.overlay.groups
    if verb == "remove_tree":
        state.forget_all()
    elif verb in ("rename", "rmdir"):
        if outcome.other is not None:
            state.forget((outcome.other.ino,))
        attr = outcome.attr
        group = None if attr is None else held.get(attr.ino)
        if attr is not None and group is not None:
            group.directory.parent = body.new_dir.ino
            group.directory.name = body.new_name
            put(state, attr)


def absorb(state: Delegations, call: Call, outcome: Outcome, groups: Iterable[int]) -> None:
    """`groups`: what we hold of what it was about."""
    held = state.overlay.groups
    verb, body = call.verb, call.body
    for above in outcome.dirs:
        group = held.get(above.ino)
        if group is not None and above.change >= group.directory.attr.change:
            group.directory.attr = above.copy()
    attr = outcome.attr
    if verb in ATTR_ONLY:
        if attr is not None:
            put(state, attr)
        return
    for changed in (attr, outcome.other):
        if changed is not None and changed.ino in state.overlay.linked:
            state.forget((changed.ino,))
    if verb == "rename" and _renamed(state, call, outcome):
        return
    if verb == "link" and attr is not None:
        _linked(state, call, attr, groups)
        return
    group = held.get(body.dir.ino) if verb in ONE_NAME else None
    if verb not in ONE_NAME:
        state.forget(groups)
    elif group is not None and verb in ("create", "mkdir"):
        if attr is not None:
            put(state, attr, new=True)
            group.entries[body.name] = dentry_of(attr)
    elif group is not None:
        entry = group.entries.pop(body.name, None)
        if entry is not None:
            group.inodes.pop(entry.ino, None)
        if verb == "rmdir":
            group.take(body.name)


def _renamed(state: Delegations, call: Call, outcome: Outcome) -> bool:
    """False: the answer does not say what has become of both names."""
    body, attr = call.body, outcome.attr
    if attr is None or body.flags & EXCHANGE:
        return False
    held = state.overlay.groups
    old, new = held.get(body.old_dir.ino), held.get(body.new_dir.ino)
    replaced = None if new is None else new.entries.get(body.new_name)
    if not attr.is_dir and attr.nlink > 1:
        # Were both names of this file, nothing was done: what the new one was has to be known. To
        # forget the directories instead would not end: they would be learned with every such file.
        if new is None:
            return False
        if replaced is not None and replaced.ino == attr.ino:
            return True
    if old is not None:
        old.entries.pop(body.old_name, None)
        old.inodes.pop(attr.ino, None)
        if attr.is_dir:
            old.take(body.old_name)
    if new is not None:
        if replaced is not None:
            new.inodes.pop(replaced.ino, None)
            if attr.is_dir:
                new.take(body.new_name)
        put(state, attr, new=True)
        new.entries[body.new_name] = dentry_of(attr)
        state.overlay.learned.add(body.new_dir.ino)
    return True


def _linked(state: Delegations, call: Call, attr: Attr, groups: Iterable[int]) -> None:
    """From the first link on it is filed under its own number, and not held."""
    held = state.overlay.groups
    for directory in groups:
        if directory in held:
            held[directory].inodes.pop(attr.ino, None)
    group = held.get(call.body.dir.ino)
    if group is not None:
        group.entries[call.body.name] = dentry_of(attr)


def put(state: Delegations, attr: Attr, *, new: bool = False) -> None:
    """Attributes as the daemon has told them, if they are the newest. Of a file that is not known
    they may be from before it was removed or moved, unless it is `new`."""
    overlay = state.overlay
    if attr.is_dir:
        group = overlay.groups.get(attr.ino)
        if group is not None and attr.change >= group.directory.attr.change:
            group.directory.attr = attr.copy()
        for parent in overlay.parents_of(attr.ino):
            entries = overlay.groups[parent].entries
            for name, entry in entries.items():
                if entry.ino == attr.ino:
                    entries[name] = dentry_of(attr)
                    break
        return
    if attr.place == attr.ino:
        if attr.ino in overlay.linked and attr.change >= overlay.linked[attr.ino].change:
            overlay.linked[attr.ino] = attr.copy()
            overlay.inline.pop(attr.ino, None)
        return
    group = overlay.groups.get(attr.place)
    if group is None:
        return
    known = group.inodes.get(attr.ino)
    if known is None and not new:
        state.forget((attr.place,))
    elif known is None or attr.change >= known.change:
        group.inodes[attr.ino] = attr.copy()
        overlay.inline.pop(attr.ino, None)


def dentry_of(attr: Attr) -> Dentry:
    if attr.is_dir:
        return Dentry(
            attr.ino, attr.generation, attr.mode, attr.uid, attr.gid, attr.flags & ACL_FLAGS
        )
    multi = MULTI if attr.place == attr.ino else 0
    return Dentry(attr.ino, attr.generation, stat.S_IFMT(attr.mode), flags=multi)
