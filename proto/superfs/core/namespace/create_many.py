"""create_many: new files of one directory in one operation, each with a fate of its own.

`attr` of an entry says what the file is to be: mode, owner, times, size, device number, data
generation and chains; `inline` its contents or its target. Modes are meant as they are: there is
no umask, but a default ACL is inherited. A time of 0 is now. Data may lie on data daemons already,
under a reserved number and ids.FIRST_DATA_GENERATION.

With `replace` an existing inode that is not a directory loses the name, as by a rename over it.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from dataclasses import replace as replaced
from typing import TYPE_CHECKING

from superfs.core.attrs import Attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import FIRST_DATA_GENERATION, slot_of
from superfs.core.limits import FILE_DATA_BYTES_MAX, MANY_ENTRIES_MAX
from superfs.core.namespace.access import EXEC, WRITE, check_removal, enter, keeps_setgid
from superfs.core.namespace.bits import INLINE
from superfs.core.namespace.create import check_layout, check_new, check_reserved
from superfs.core.namespace.find import inode_of
from superfs.core.namespace.inherit import inherit, put_acls
from superfs.core.namespace.inodes import RECORD_BYTES, remove_link, stamp_entries
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Entry, Outcome
from superfs.core.namespace.txn import Dentry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.namespace.txn import Caller, Directory, Ref, Txn

_TIME_MAX = (1 << 63) - 1
_NO_ID = 0xFFFFFFFF


def create_many(
    txn: Txn,
    caller: Caller,
    dir: Ref,  # noqa: A002
    entries: Sequence[Entry],
    *,
    replace: bool = False,
) -> Outcome:
    directory = enter(txn, caller, dir, WRITE | EXEC)
    if len(entries) > MANY_ENTRIES_MAX:
        raise FsError(Code.TOO_LARGE, f"{len(entries)} entries; at most {MANY_ENTRIES_MAX}")
    contents = sum(len(e.inline or b"") for e in entries)
    if not txn.has_room(RECORD_BYTES * len(entries) + contents):
        raise FsError(Code.NO_SPACE)
    # Asking for no umask lets inherit say what a default ACL makes of a mode, and no more.
    maker = replaced(caller, umask=0)
    made: list[Entry] = []
    for entry in entries:
        answer = Entry(entry.name)
        made.append(answer)
        try:
            plan = _check(txn, maker, directory.attr, entry, replace)
        except FsError as error:
            answer.code = error.code
            continue
        attr = _make(txn, maker, directory, entry.name, plan)
        answer.ino, answer.type, answer.attr = attr.ino, stat.S_IFMT(attr.mode) >> 12, attr
    if any(e.code == Code.OK for e in made):
        txn.put_directory(directory)
    return Outcome(None, (directory.attr,), entries=made)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What has been found good about an entry."""

    given: Attr
    ino: int
    contents: bytes
    victim: Attr | None


def _check(txn: Txn, caller: Caller, parent: Attr, entry: Entry, replace: bool) -> _Plan:
    check_name(entry.name)
    given = entry.attr
    if given is None:
        raise FsError(Code.BAD_REQUEST, "an entry without attributes")
    ino = entry.ino or given.ino
    contents = check_given(caller, given, ino, entry.inline or b"")
    if ino:
        check_reserved(txn, caller, parent.ino, ino)
    dentry = txn.get_dentry(parent.ino, entry.name)
    if dentry is None:
        return _Plan(given, ino, contents, None)
    if not replace:
        raise FsError(Code.EXISTS, repr(entry.name))
    if stat.S_ISDIR(dentry.mode):
        raise FsError(Code.IS_DIRECTORY, repr(entry.name))
    victim = inode_of(txn, parent.ino, dentry)
    check_removal(txn, caller, parent, victim)
    return _Plan(given, ino, contents, victim)


def check_given(caller: Caller, given: Attr, ino: int, inline: bytes) -> bytes:
    """Everything about an entry that does not depend on the store. Returns its contents."""
    kind = stat.S_IFMT(given.mode)
    is_link = kind == stat.S_IFLNK
    contents = check_new(
        caller, kind, given.rdev, inline if is_link else b"", b"" if is_link else inline
    )
    if not len(contents) <= given.size <= FILE_DATA_BYTES_MAX and kind == stat.S_IFREG:
        raise FsError(Code.INVALID, f"{len(contents)} bytes in a file of {given.size}")
    times = (given.atime_ns, given.mtime_ns, given.btime_ns)
    if any(not -_TIME_MAX <= t <= _TIME_MAX for t in times):
        raise FsError(Code.INVALID, "a time out of range")
    if not (0 <= given.uid < _NO_ID and 0 <= given.gid < _NO_ID):
        raise FsError(Code.INVALID, f"owner {given.uid}:{given.gid}")
    own = given.uid == caller.uid and caller.in_group(given.gid)
    if not (own or caller.trusted or caller.uid == 0):
        raise FsError(Code.NOT_PERMITTED, f"owner {given.uid}:{given.gid}")
    check_layout(given.chains)
    if given.data_generation:
        at_daemons = kind == stat.S_IFREG and ino and given.chains and not contents
        if not at_daemons or given.data_generation != FIRST_DATA_GENERATION:
            raise FsError(Code.INVALID, "data takes a reserved number, chains and generation 1")
    return contents


def _make(txn: Txn, caller: Caller, directory: Directory, name: bytes, plan: _Plan) -> Attr:
    parent, contents, victim = directory.attr.ino, plan.contents, plan.victim
    attr = _new_attr(txn, caller, directory.attr, plan.given, plan.ino, len(contents))
    if victim is not None:
        txn.delete_dentry(parent, name)
        remove_link(txn, caller, victim, keep=False)
        stamp_entries(txn, directory, -1)
    if contents:
        txn.put_inline(parent, attr.ino, contents)
    txn.put_inode(attr)
    txn.put_dentry(parent, name, Dentry(attr.ino, attr.generation, stat.S_IFMT(attr.mode)))
    stamp_entries(txn, directory, 1)
    return attr


def _new_attr(
    txn: Txn, caller: Caller, parent: Attr, given: Attr, ino: int, stored_bytes: int
) -> Attr:
    kind = stat.S_IFMT(given.mode)
    if ino:
        txn.use_reserved(ino)
    slot = slot_of(parent.ino)
    now = txn.now_ns
    regular, link = kind == stat.S_IFREG, kind == stat.S_IFLNK
    setgid = bool(parent.mode & stat.S_ISGID)
    gid = parent.gid if setgid and not caller.trusted else given.gid
    acl = None
    mode = kind | (0o777 if link else given.mode & 0o7777)
    if not link:
        mode, acl, _ = inherit(txn, caller, parent, mode)
        if mode & stat.S_ISGID and not caller.trusted and not keeps_setgid(caller, gid):
            mode &= ~stat.S_ISGID
    attr = Attr(
        ino or txn.new_inode_ids(slot, 1), txn.new_generation(slot), parent.ino, mode, 1,
        given.uid, gid, given.size if regular else stored_bytes, given.rdev,
        given.atime_ns or now, given.mtime_ns or now, now, given.btime_ns or now,
        INLINE if link or (regular and not given.data_generation) else 0,
        given.data_generation, txn.commit, given.chains if regular else (),
    )  # fmt: skip
    if acl is not None:
        put_acls(txn, attr, acl, None)
    return attr
