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
        state.forget(list(held))
    elif verb in ("rename", "rmdir"):
        if outcome.other is not None:
            state.forget((outcome.other.ino,))
        group = None if outcome.attr is None else held.get(outcome.attr.ino)
        if group is not None:
            group.directory.parent = body.new_dir.ino
            group.directory.name = body.new_name


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
