"""What an operation is about, as far as one can tell before it is done. Pure.

A reference names the place where a file was last seen. It may have been moved since, and so what
is about a file is told by its number, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.attrs import Set
from superfs.core.ids import is_directory_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from superfs.client.delegation.overlay import Overlay
    from superfs.client.ops import Call

EVERYTHING = 0
"""No number of anything: stands for all of them."""
ACCESS = int(Set.MODE | Set.UID | Set.GID | Set.KILL_PRIV)
ONE_NAME = frozenset(("create", "mkdir", "unlink", "rmdir"))
ATTR_ONLY = frozenset(("setattr", "publish", "append", "new_data", "setxattr", "removexattr"))
"""Of `inode`, and of nothing else."""
_TAKE_NAMES = frozenset(("rmdir", "rename", "remove_tree"))
_OF_INODE = ATTR_ONLY | {"getattr", "open", "read_inline", "getxattr", "listxattr"}


def places(call: Call, overlay: Overlay) -> set[int]:
    """Directories, and inodes with several links."""
    found = {call.key}
    verb, body = call.verb, call.body
    if verb == "rename":
        found.add(body.new_dir.ino)
    elif verb == "release":
        found.update(inode.place or inode.ino for inode in body.inodes)
    elif verb == "link":
        found.update((body.dir.ino, body.inode.place, body.inode.ino))
        found |= overlay.places_of(body.inode.ino, body.inode.place)
    elif verb in _OF_INODE:
        found |= overlay.places_of(body.inode.ino, body.inode.place)
        if is_directory_id(body.inode.ino) and is_access(call):
            found |= overlay.parents_of(body.inode.ino)
    if verb in _TAKE_NAMES:
        names = _names(call)
        for ino, group in overlay.groups.items():
            record = group.directory
            if not record.name or (record.parent, record.name) in names:
                found.add(ino)  # nobody makes a file in one meanwhile
    return found


def keys(call: Call, found: Iterable[int]) -> frozenset[int]:
    """Whatever has one of these numbers may look different after it. `found`: more of them."""
    numbers = {call.key, *found}
    verb, body = call.verb, call.body
    if verb == "remove_tree":
        numbers.add(EVERYTHING)
    elif verb in ATTR_ONLY or verb == "link":
        numbers.add(body.inode.ino)
    elif verb == "rename":
        numbers.add(body.new_dir.ino)
    return frozenset(numbers)


def is_access(call: Call) -> bool:
    """It may change who may do what, which lies with the name of a directory, too."""
    if call.verb == "setattr":
        return bool(call.body.mask & ACCESS)
    return call.verb in ("setxattr", "removexattr")


def _names(call: Call) -> set[tuple[int, bytes]]:
    """What loses its name, or may."""
    body = call.body
    if call.verb == "rename":
        return {(body.old_dir.ino, body.old_name), (body.new_dir.ino, body.new_name)}
    return {(body.dir.ino, body.name)}
