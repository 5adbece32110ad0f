"""read_dir: entries in byte order of names, behind a given name: stable while others change.

`number` is the parent's number. `more` is set when the listing stopped at a limit; it goes on
behind its last name. A listing always holds at least one entry where there is one.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.limits import LISTING_BYTES_MAX, LISTING_ENTRIES_MAX
from superfs.core.namespace.access import EXEC, READ, enter
from superfs.core.namespace.contents import may_read, stored
from superfs.core.namespace.find import inode_of
from superfs.core.namespace.outcome import Entry, Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn

ENTRY_BYTES = 192  # columns of one entry without its name and contents


def read_dir(
    txn: Txn,
    caller: Caller,
    dir: Ref,  # noqa: A002
    *,
    after: bytes = b"",
    limit: int = LISTING_ENTRIES_MAX,
    plus: bool = True,
    inline_max: int = 0,
) -> Outcome:
    directory = enter(txn, caller, dir, READ | EXEC if plus else READ)
    ino = directory.attr.ino
    limit = min(max(limit, 1), LISTING_ENTRIES_MAX)
    entries: list[Entry] = []
    outcome = Outcome(None, (directory.attr,), number=directory.parent, entries=entries)
    room = LISTING_BYTES_MAX
    for name, dentry in txn.list_dentries(ino, after, limit + 1):
        if len(entries) == limit:
            outcome.more = True
            break
        entry = Entry(name, dentry.ino, stat.S_IFMT(dentry.mode) >> 12)
        room -= ENTRY_BYTES + len(name)
        if plus:
            attr = entry.attr = inode_of(txn, ino, dentry)
            if (
                inline_max
                and attr.is_inline
                and attr.size <= inline_max
                and may_read(txn, caller, attr)
            ):
                entry.inline = stored(txn, attr)
                room -= len(entry.inline)
        if room < 0 and entries:
            outcome.more = True
            break
        entries.append(entry)
    return outcome
