"""reserve: numbers of a directory's slot for a session to create files under. `number` is the
first of `count` consecutive ones. Data for them may be written before the files are created,
under ids.FIRST_DATA_GENERATION."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.ids import slot_of
from superfs.core.limits import RESERVE_COUNT_MAX
from superfs.core.namespace.access import EXEC, WRITE, enter
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def reserve(txn: Txn, caller: Caller, dir: Ref, count: int) -> Outcome:  # noqa: A002
    directory = enter(txn, caller, dir, WRITE | EXEC)
    if not 0 < count <= RESERVE_COUNT_MAX:
        raise FsError(Code.INVALID, f"{count} numbers; at most {RESERVE_COUNT_MAX}")
    slot = slot_of(directory.attr.ino)
    return Outcome(number=txn.reserve_inode_ids(slot, count, caller.session))
