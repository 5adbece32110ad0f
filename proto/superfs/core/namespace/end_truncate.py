"""end_truncate: the data daemons have dropped what `truncate_data` asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.namespace.bits import TRUNCATING
from superfs.core.namespace.find import find_inode
from superfs.core.namespace.inodes import save
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Ref, Txn


def end_truncate(txn: Txn, inode: Ref) -> Outcome:
    """Times stay: the truncation has set them. STALE where the inode is gone by now."""
    attr = find_inode(txn, inode)
    if attr.flags & TRUNCATING:
        attr.flags &= ~TRUNCATING
        attr.change = max(txn.commit, attr.change + 1)
        save(txn, attr)
    return Outcome(attr)
