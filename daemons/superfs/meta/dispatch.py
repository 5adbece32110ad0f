"""From an `Op` on the wire to a rule and back to a `Result`. One line of a table for each verb.

The rules check what an operation means; here is checked what a message may contain at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from superfs.core.cachedirs import USAGE_XATTR
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.core.limits import (
    GROUPS_MAX,
    REMOVE_TREE_ENTRIES_MAX,
    RESERVE_COUNT_MAX,
    RESERVE_GENERATIONS_MAX,
    XATTR_VALUE_BYTES_MAX,
)
from superfs.core.namespace.append import append
from superfs.core.namespace.create import create
from superfs.core.namespace.getattr import getattr as getattr_
from superfs.core.namespace.getxattr import getxattr
from superfs.core.namespace.link import link
from superfs.core.namespace.listxattr import listxattr
from superfs.core.namespace.lookup import lookup
from superfs.core.namespace.mkdir import mkdir
from superfs.core.namespace.new_data import new_data
from superfs.core.namespace.open_inode import open_inode
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.publish import publish
from superfs.core.namespace.read_inline import read_inline
from superfs.core.namespace.remove_tree import remove_tree
from superfs.core.namespace.removexattr import removexattr
from superfs.core.namespace.rename import rename
from superfs.core.namespace.reserve import reserve
from superfs.core.namespace.rmdir import rmdir
from superfs.core.namespace.setattr import setattr as setattr_
from superfs.core.namespace.setxattr import setxattr
from superfs.core.namespace.touch import touch
from superfs.core.namespace.txn import Caller, Ref
from superfs.core.namespace.unlink import unlink
from superfs.meta.caches import usage
from superfs.meta.columns import decode_layout, decode_touch
from superfs.meta.creation import create_many
from superfs.meta.listings import get_many, read_dir
from superfs.meta.replay import Delegation, replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.core.namespace.txn import Txn
    from superfs.core.tokens import Grant
    from superfs.meta.store import LmdbTxn
    from superfs.v1 import common_pb2, meta_pb2


class Rule(Protocol):
    def __call__(self, txn: LmdbTxn, caller: Caller, m: Any, /) -> Outcome: ...  # noqa: ANN401


@dataclass(frozen=True, slots=True)
class Verb:
    rule: Rule
    place: Callable[[Any], int]
    """Whose slot decides who runs it, and where its reply is filed."""
    mutates: bool = False


def ref(m: common_pb2.InodeRef) -> Ref:
    return Ref(m.ino, m.generation, m.place)


def caller_of(grant: Grant, m: meta_pb2.Caller) -> Caller:
    """What a client says of its user counts for a host's session only."""
    if grant.kind == "user":
        return Caller(
            grant.uid, grant.gid, frozenset(grant.groups), m.umask, grant.session_id, False
        )
    if len(m.groups) > GROUPS_MAX:
        raise FsError(Code.TOO_LARGE, f"at most {GROUPS_MAX} groups")
    return Caller(m.uid, m.gid, frozenset(m.groups), m.umask & 0o777, grant.session_id, True)


def _at_most(value: int, limit: int, what: str) -> int:
    if value > limit:
        raise FsError(Code.TOO_LARGE, f"{what}: {value}, at most {limit}")
    return value


# ---- reads ---------------------------------------------------------------------------------------


def _lookup(txn: Txn, caller: Caller, m: meta_pb2.Lookup) -> Outcome:
    return lookup(txn, caller, ref(m.dir), m.name, want_inline=m.want_inline)


def _getattr(txn: Txn, caller: Caller, m: meta_pb2.Getattr) -> Outcome:
    return getattr_(txn, caller, ref(m.inode))


def _read_inline(txn: Txn, caller: Caller, m: meta_pb2.ReadInline) -> Outcome:
    return read_inline(txn, caller, ref(m.inode))


def _getxattr(txn: LmdbTxn, caller: Caller, m: meta_pb2.Getxattr) -> Outcome:
    if m.name == USAGE_XATTR:
        return Outcome(getattr_(txn, caller, ref(m.inode)).attr, data=usage(txn, ref(m.inode)))
    return getxattr(txn, caller, ref(m.inode), m.name)


def _listxattr(txn: Txn, caller: Caller, m: meta_pb2.Listxattr) -> Outcome:
    return listxattr(txn, caller, ref(m.inode))


def _open(txn: Txn, caller: Caller, m: meta_pb2.Open) -> Outcome:
    return open_inode(txn, caller, ref(m.inode), write=m.write, want_inline=m.want_inline)


# ---- mutations -----------------------------------------------------------------------------------


def _create(txn: Txn, caller: Caller, m: meta_pb2.Create) -> Outcome:
    return create(
        txn,
        caller,
        ref(m.dir),
        m.name,
        m.mode,
        rdev=m.rdev,
        target=m.target,
        exclusive=m.exclusive,
        ino=m.ino,
        open=m.open,
        inline=m.inline,
        layout=_layout(txn, m),
    )


def _layout(txn: Txn, m: meta_pb2.Create) -> tuple[int, ...]:
    """Chains that a client asks for by name are in the cluster map, or it is told."""
    if not m.HasField("layout"):
        return ()
    chains = decode_layout(m.layout)
    return tuple(txn.choose_chains(0, chains)) if chains else ()


def _mkdir(txn: Txn, caller: Caller, m: meta_pb2.Mkdir) -> Outcome:
    return mkdir(txn, caller, ref(m.dir), m.name, m.mode, version_min=m.version_min)


def _unlink(txn: Txn, caller: Caller, m: meta_pb2.Unlink) -> Outcome:
    return unlink(txn, caller, ref(m.dir), m.name, keep=m.keep)


def _rmdir(txn: Txn, caller: Caller, m: meta_pb2.Rmdir) -> Outcome:
    return rmdir(txn, caller, ref(m.dir), m.name)


def _rename(txn: Txn, caller: Caller, m: meta_pb2.Rename) -> Outcome:
    return rename(
        txn,
        caller,
        ref(m.old_dir),
        m.old_name,
        ref(m.new_dir),
        m.new_name,
        flags=m.flags,
        keep=m.keep,
    )


def _link(txn: Txn, caller: Caller, m: meta_pb2.Link) -> Outcome:
    return link(txn, caller, ref(m.inode), ref(m.dir), m.name)


def _setattr(txn: Txn, caller: Caller, m: meta_pb2.Setattr) -> Outcome:
    return setattr_(
        txn,
        caller,
        ref(m.inode),
        m.mask,
        mode=m.mode,
        uid=m.uid,
        gid=m.gid,
        size=m.size,
        atime_ns=m.atime_ns,
        mtime_ns=m.mtime_ns,
    )


def _publish(txn: Txn, caller: Caller, m: meta_pb2.Publish) -> Outcome:
    return publish(
        txn,
        caller,
        ref(m.inode),
        m.data_generation,
        size=m.size,
        mtime_ns=m.mtime_ns,
        writes=[(w.offset, w.data) for w in m.writes],
        kill_priv=m.kill_priv,
        spill=m.spill,
        inline_change=m.inline_change,
        atime_ns=m.atime_ns,
    )


def _append(txn: Txn, caller: Caller, m: meta_pb2.Append) -> Outcome:
    return append(txn, caller, ref(m.inode), m.length, data=m.data)


def _new_data(txn: Txn, caller: Caller, m: meta_pb2.NewData) -> Outcome:
    return new_data(txn, caller, ref(m.inode))


def _setxattr(txn: Txn, caller: Caller, m: meta_pb2.Setxattr) -> Outcome:
    if len(m.value) > XATTR_VALUE_BYTES_MAX:
        raise FsError(Code.XATTR_TOO_BIG, f"{len(m.value)} bytes")
    return setxattr(txn, caller, ref(m.inode), m.name, m.value, flags=m.flags)


def _removexattr(txn: Txn, caller: Caller, m: meta_pb2.Removexattr) -> Outcome:
    return removexattr(txn, caller, ref(m.inode), m.name)


def _reserve(txn: LmdbTxn, caller: Caller, m: meta_pb2.Reserve) -> Outcome:
    if m.generations:
        count = _at_most(m.generations, RESERVE_GENERATIONS_MAX, "generations")
        return reserve_generations(txn, caller, count)
    return reserve(txn, caller, ref(m.dir), _at_most(m.count, RESERVE_COUNT_MAX, "numbers"))


def _touch(txn: Txn, caller: Caller, m: meta_pb2.Touch) -> Outcome:
    return touch(txn, caller, decode_touch(m))


def _remove_tree(txn: Txn, caller: Caller, m: meta_pb2.RemoveTree) -> Outcome:
    limit = min(m.limit or REMOVE_TREE_ENTRIES_MAX, REMOVE_TREE_ENTRIES_MAX)
    return remove_tree(txn, caller, ref(m.dir), m.name, limit)


def reserve_generations(txn: LmdbTxn, caller: Caller, count: int) -> Outcome:
    """For directories that a log will make; `number` is the first."""
    delegation = Delegation(txn, caller)
    first = txn.reserve_generations(count)
    delegation.add_generations(first, count)
    delegation.save()
    return Outcome(number=first)


def _log(txn: LmdbTxn, caller: Caller, m: meta_pb2.Log) -> Outcome:
    return replay(txn, caller, m, lambda verb, *what: VERBS[verb].rule(txn, *what))


# ---- the table -----------------------------------------------------------------------------------


def _dir(m: Any) -> int:  # noqa: ANN401
    return int(m.dir.ino)


def _inode(m: Any) -> int:  # noqa: ANN401
    return int(m.inode.place or m.inode.ino)


def _place(m: Any) -> int:  # noqa: ANN401
    return int(m.place)


def _old_dir(m: Any) -> int:  # noqa: ANN401
    return int(m.old_dir.ino)


def _log_place(m: meta_pb2.Log) -> int:
    """Of its first entry."""
    for entry in m.entries:
        body = getattr(entry, entry.WhichOneof("verb") or "files")
        for field in ("dir", "old_dir", "inode"):
            if field in body.DESCRIPTOR.fields_by_name:
                found = getattr(body, field)
                return int(found.place or found.ino)
    return ROOT


VERBS: dict[str, Verb] = {
    "lookup": Verb(_lookup, _dir),
    "getattr": Verb(_getattr, _inode),
    "read_dir": Verb(read_dir, _dir),
    "read_inline": Verb(_read_inline, _inode),
    "getxattr": Verb(_getxattr, _inode),
    "listxattr": Verb(_listxattr, _inode),
    "get_many": Verb(get_many, _dir),
    "open": Verb(_open, _inode),
    "create": Verb(_create, _dir, mutates=True),
    "mkdir": Verb(_mkdir, _dir, mutates=True),
    "unlink": Verb(_unlink, _dir, mutates=True),
    "rmdir": Verb(_rmdir, _dir, mutates=True),
    "rename": Verb(_rename, _old_dir, mutates=True),
    "link": Verb(_link, _dir, mutates=True),
    "setattr": Verb(_setattr, _inode, mutates=True),
    "publish": Verb(_publish, _inode, mutates=True),
    "touch": Verb(_touch, _place, mutates=True),
    "append": Verb(_append, _inode, mutates=True),
    "new_data": Verb(_new_data, _inode, mutates=True),
    "setxattr": Verb(_setxattr, _inode, mutates=True),
    "removexattr": Verb(_removexattr, _inode, mutates=True),
    "reserve": Verb(_reserve, _dir, mutates=True),
    "create_many": Verb(create_many, _dir, mutates=True),
    "remove_tree": Verb(_remove_tree, _dir, mutates=True),
    "log": Verb(_log, _log_place, mutates=True),
}
"""All but statfs and release, which touch no inode (batch.py)."""
