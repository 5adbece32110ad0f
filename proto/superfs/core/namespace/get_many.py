"""get_many: lookups of many names of one directory, with small contents. Each entry has a fate of
its own."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import LISTING_BYTES_MAX, MANY_ENTRIES_MAX
from superfs.core.namespace.access import enter
from superfs.core.namespace.contents import may_read, stored
from superfs.core.namespace.find import inode_of
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Entry, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.namespace.txn import Caller, Ref, Txn


def get_many(
    txn: Txn,
    caller: Caller,
    dir: Ref,  # noqa: A002
    names: Sequence[bytes],
    *,
    inline_max: int = 0,
) -> Outcome:
    """Contents are left out (None) when the answer would grow beyond LISTING_BYTES_MAX; ask for
    those one by one."""
    directory = enter(txn, caller, dir)
    if len(names) > MANY_ENTRIES_MAX:
        raise FsError(Code.TOO_LARGE, f"{len(names)} names; at most {MANY_ENTRIES_MAX}")
    ino = directory.attr.ino
    room = LISTING_BYTES_MAX
    entries: list[Entry] = []
    for name in names:
        entry = Entry(name)
        entries.append(entry)
        try:
            check_name(name)
            dentry = txn.get_dentry(ino, name)
            if dentry is None:
                entry.code = Code.NOT_FOUND
                continue
            attr = inode_of(txn, ino, dentry)
        except FsError as error:
            entry.code = error.code
            continue
        entry.ino, entry.type, entry.attr = attr.ino, stat.S_IFMT(attr.mode) >> 12, attr
        wanted = inline_max and attr.is_inline and attr.size <= inline_max
        if wanted and attr.size <= room and may_read(txn, caller, attr):
            entry.inline = stored(txn, attr)
            room -= len(entry.inline)
    return Outcome(None, entries=entries)
