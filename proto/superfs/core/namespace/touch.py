"""touch: access times of many inodes, told lazily.

An access time never goes back, nor into the future, and no other time changes with it. The inode's
`change` does not either: whatever is held of its contents is as good as before. What is not there
any more, or may not be read by the caller, is passed over, as is what another client holds
exclusively: an access time is not worth having it shipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.contents import may_read
from superfs.core.namespace.find import find
from superfs.core.namespace.inodes import save
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.namespace.txn import Caller, Ref, Txn


def touch(txn: Txn, caller: Caller, inodes: Sequence[tuple[Ref, int]]) -> Outcome:
    """`inodes`: each with its access time, in nanoseconds since 1970."""
    for ref, atime_ns in inodes:
        try:
            attr, directory = find(txn, ref)
        except FsError as error:
            if error.code not in (Code.STALE, Code.NOT_FOUND, Code.DELEGATED):
                raise
            continue
        atime_ns = min(atime_ns, txn.now_ns)
        if atime_ns > attr.atime_ns and may_read(txn, caller, attr):
            attr.atime_ns = atime_ns
            save(txn, attr, directory)
    return Outcome()
