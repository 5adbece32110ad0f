"""release_orphan: sessions closed an inode that has no name. The last one to do so ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.namespace.inodes import delete_content
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Txn


def release_orphan(txn: Txn, ino: int, *sessions: int) -> Outcome:
    """`number` is 1 where the inode is gone now. Nothing happens for a number that is no orphan,
    or that none of the sessions holds: a release may be told twice."""
    orphan = txn.get_orphan(ino)
    if orphan is None or orphan.holders.isdisjoint(sessions):
        return Outcome()
    orphan.holders.difference_update(sessions)
    if orphan.holders:
        txn.put_orphan(orphan)
        return Outcome(orphan.attr)
    txn.delete_orphan(ino)
    delete_content(txn, orphan.attr)
    return Outcome(orphan.attr, number=1)
