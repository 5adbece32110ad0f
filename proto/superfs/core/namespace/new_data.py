"""new_data: prepares the spill of an inline file. `number` is an unused data generation, `data`
the inline contents; both it and attr.chains are kept with the inode, which stays inline until the
spill is published. `change` stays too: the contents are the same.

A later new_data takes over: what the earlier one's client has written is reaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.ids import FIRST_DATA_GENERATION, slot_of
from superfs.core.namespace.contents import check_writable, stored
from superfs.core.namespace.find import find_inode
from superfs.core.namespace.inodes import save
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Ref, Txn


def new_data(txn: Txn, caller: Caller, inode: Ref) -> Outcome:
    attr = find_inode(txn, inode)
    check_writable(txn, caller, attr)
    if not attr.is_inline:
        raise FsError(Code.NOT_INLINE, "contents are on data daemons already")
    if not txn.has_room(0):
        raise FsError(Code.NO_SPACE)
    chains = txn.choose_chains(attr.ino, _layout(txn, attr))
    if not chains:
        raise FsError(Code.UNAVAILABLE, "no data daemon has registered")
    if attr.data_generation:
        txn.reap_data(attr)
    slot = slot_of(attr.ino)
    generation = txn.new_data_generation(slot)
    if generation == FIRST_DATA_GENERATION:
        generation = txn.new_data_generation(slot)
    attr.data_generation, attr.chains = generation, tuple(chains)
    save(txn, attr)
    return Outcome(attr, number=generation, data=stored(txn, attr))


def _layout(txn: Txn, attr: Attr) -> Sequence[int]:
    """What the file was created with, or what its directory says."""
    if attr.chains or attr.place == attr.ino:
        return attr.chains
    directory = txn.get_directory(attr.place)
    return directory.layout if directory is not None else ()
