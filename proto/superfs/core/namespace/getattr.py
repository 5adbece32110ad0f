"""getattr: attributes of an inode by number. For a directory `number` is its parent's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.namespace.find import find
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def getattr(txn: Txn, caller: Caller, inode: Ref) -> Outcome:  # noqa: A001
    attr, directory = find(txn, inode)
    if directory is not None:
        return Outcome(attr, number=directory.parent)
    return Outcome(attr)
