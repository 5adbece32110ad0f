"""Learning an exclusive directory that was not made here, so that it can be changed here.

Nobody else changes it: it is ours. But we may: other requests of this mount are on their way to the
daemon, and what is read of a file beside one that changes it may be from before. So nothing is
learned that one of them was about, at any time while it was read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.client import ops
from superfs.client.delegation.absorbing import dentry_of
from superfs.client.delegation.asking import Asking
from superfs.client.delegation.overlay import Group
from superfs.core.limits import LISTING_ENTRIES_MAX
from superfs.core.namespace.txn import Directory

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Ref

LOAD_AFTER = 2
"""So many changes could not be made here; then it is learned. If it could not be, it is tried again
when it was twice as many."""
LOAD_ENTRIES_MAX = 20_000


class Learning(Asking):
    async def _maybe_load(self, directory: Ref) -> None:
        state = self._state
        with state.lock:
            ino = directory.ino
            if ino not in state.exclusive or ino in self._overlay.groups or not state.is_good:
                return
            wanted = state.wanted[ino] = state.wanted.get(ino, 0) + 1
            if wanted < LOAD_AFTER or wanted & (wanted - 1) or not state.learn(ino):
                return
        group = None
        try:
            group = await self._load(directory)
        finally:
            with state.lock:
                state.learned(ino, group)

    async def _load(self, directory: Ref) -> Group | None:
        outcome = await super().getattr(directory)
        attr = outcome.attr
        if attr is None or attr.size > LOAD_ENTRIES_MAX:
            return None
        group = Group(Directory(attr.copy(), 0, b""), born=False)
        after = b""
        while True:
            page = await self.run(ops.read_dir(directory, after=after, limit=LISTING_ENTRIES_MAX))
            for entry in page.entries:
                assert entry.attr is not None
                group.entries[entry.name] = dentry_of(entry.attr)
                if entry.attr.place == directory.ino:
                    group.inodes[entry.attr.ino] = entry.attr
                after = entry.name
            if not page.more:
                break
        again = (await super().getattr(directory)).attr
        if again is None or again.change != attr.change or len(group.entries) != attr.size:
            return None
        return group
