"""Builds operations: one function a verb, its arguments named as in meta.proto and the rules.

A `Call` says what to send, by which id it is routed, and whether it mutates. No IO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.client.codec import encode_create_many, encode_ref, encode_touch, pack_names
from superfs.core.ids import ROOT
from superfs.core.limits import LISTING_ENTRIES_MAX
from superfs.core.namespace.txn import Ref
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.core.namespace.outcome import Entry


ENTRY_BYTES = 192
"""About what one entry takes in an answer, without contents."""
TIME_NS_MIN, TIME_NS_MAX = -(1 << 63) + 1, (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Call:
    verb: str
    body: Any  # the message of that verb
    key: int  # the id whose slot decides who runs it
    mutates: bool = False
    answer_bytes: int = 0
    """About what a long answer will have: such operations do not share a message (session.py)."""


def _group(ref: Ref) -> int:
    return ref.place or ref.ino


def lookup(dir: Ref, name: bytes, *, want_inline: bool = False) -> Call:  # noqa: A002
    body = meta_pb2.Lookup(dir=encode_ref(dir), name=name, want_inline=want_inline)
    return Call("lookup", body, dir.ino)


def getattr(inode: Ref) -> Call:  # noqa: A001 - the verb's name
    return Call("getattr", meta_pb2.Getattr(inode=encode_ref(inode)), _group(inode))


def read_dir(
    dir: Ref,  # noqa: A002
    *,
    after: bytes = b"",
    limit: int = LISTING_ENTRIES_MAX,
    plus: bool = True,
    inline_max: int = 0,
) -> Call:
    body = meta_pb2.ReadDir(
        dir=encode_ref(dir), after=after, limit=limit, plus=plus, inline_max=inline_max
    )
    return Call("read_dir", body, dir.ino)


def read_inline(inode: Ref) -> Call:
    return Call("read_inline", meta_pb2.ReadInline(inode=encode_ref(inode)), _group(inode))


def getxattr(inode: Ref, name: bytes) -> Call:
    return Call("getxattr", meta_pb2.Getxattr(inode=encode_ref(inode), name=name), _group(inode))


def listxattr(inode: Ref) -> Call:
    return Call("listxattr", meta_pb2.Listxattr(inode=encode_ref(inode)), _group(inode))


def statfs(key: int) -> Call:
    return Call("statfs", meta_pb2.Statfs(), key)


def open(inode: Ref, *, write: bool = False, want_inline: bool = False) -> Call:  # noqa: A001
    body = meta_pb2.Open(inode=encode_ref(inode), write=write, want_inline=want_inline)
    return Call("open", body, _group(inode))


def release(inodes: Sequence[Ref]) -> Call:
    """All of one metadata daemon."""
    body = meta_pb2.Release(inodes=[encode_ref(ref) for ref in inodes])
    return Call("release", body, _group(inodes[0]))


def get_many(
    dir: Ref,  # noqa: A002
    names: Iterable[bytes],
    *,
    inline_max: int = 0,
    bare: bool = False,
) -> Call:
    column = list(names)
    body = meta_pb2.GetMany(
        dir=encode_ref(dir), names=pack_names(column), inline_max=inline_max, bare=bare
    )
    answer_bytes = len(column) * (ENTRY_BYTES + inline_max)
    return Call("get_many", body, dir.ino, answer_bytes=answer_bytes)


def create(
    dir: Ref,  # noqa: A002
    name: bytes,
    mode: int,
    *,
    rdev: int = 0,
    target: bytes = b"",
    exclusive: bool = True,
    ino: int = 0,
    open: bool = False,  # noqa: A002
    inline: bytes = b"",
    layout: Sequence[int] = (),
) -> Call:
    body = meta_pb2.Create(
        dir=encode_ref(dir),
        name=name,
        mode=mode,
        rdev=rdev,
        target=target,
        exclusive=exclusive,
        ino=ino,
        open=open,
        inline=inline,
        layout=meta_pb2.Layout(chains=layout) if layout else None,
    )
    return Call("create", body, dir.ino, mutates=True)


def mkdir(dir: Ref, name: bytes, mode: int, *, version_min: int = 0) -> Call:  # noqa: A002
    body = meta_pb2.Mkdir(dir=encode_ref(dir), name=name, mode=mode, version_min=version_min)
    return Call("mkdir", body, dir.ino, mutates=True)


def unlink(dir: Ref, name: bytes, *, keep: bool = False) -> Call:  # noqa: A002
    body = meta_pb2.Unlink(dir=encode_ref(dir), name=name, keep=keep)
    return Call("unlink", body, dir.ino, mutates=True)


def rmdir(dir: Ref, name: bytes) -> Call:  # noqa: A002
    return Call("rmdir", meta_pb2.Rmdir(dir=encode_ref(dir), name=name), dir.ino, mutates=True)


def rename(
    old_dir: Ref,
    old_name: bytes,
    new_dir: Ref,
    new_name: bytes,
    *,
    flags: int = 0,
    keep: bool = False,
) -> Call:
    body = meta_pb2.Rename(
        old_dir=encode_ref(old_dir),
        old_name=old_name,
        new_dir=encode_ref(new_dir),
        new_name=new_name,
        flags=flags,
        keep=keep,
    )
    return Call("rename", body, old_dir.ino, mutates=True)


def link(inode: Ref, dir: Ref, name: bytes) -> Call:  # noqa: A002
    body = meta_pb2.Link(inode=encode_ref(inode), dir=encode_ref(dir), name=name)
    return Call("link", body, dir.ino, mutates=True)


def _within(time_ns: int) -> int:
    """Nanoseconds in 64 bits reach from 1677 to 2262. A time beyond is set to the end, as every
    file system of Linux does with times that it cannot hold."""
    return max(TIME_NS_MIN, min(time_ns, TIME_NS_MAX))


def setattr(  # noqa: A001 - the verb's name
    inode: Ref,
    mask: int,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    atime_ns: int = 0,
    mtime_ns: int = 0,
) -> Call:
    body = meta_pb2.Setattr(
        inode=encode_ref(inode),
        mask=mask,
        mode=mode,
        uid=uid,
        gid=gid,
        size=size,
        atime_ns=_within(atime_ns),
        mtime_ns=_within(mtime_ns),
    )
    return Call("setattr", body, _group(inode), mutates=True)


def publish(
    inode: Ref,
    data_generation: int,
    *,
    size: int = 0,
    mtime_ns: int = 0,
    writes: Sequence[tuple[int, bytes]] = (),
    kill_priv: bool = False,
    spill: bool = False,
    inline_change: int = 0,
    atime_ns: int = 0,
) -> Call:
    body = meta_pb2.Publish(
        inode=encode_ref(inode),
        data_generation=data_generation,
        size=size,
        mtime_ns=mtime_ns,
        writes=[meta_pb2.InlineWrite(offset=o, data=bytes(d)) for o, d in writes],
        kill_priv=kill_priv,
        spill=spill,
        inline_change=inline_change,
        atime_ns=atime_ns,
    )
    return Call("publish", body, _group(inode), mutates=True)


def touch(inodes: Sequence[tuple[Ref, int]]) -> Call:
    body = encode_touch(inodes)
    return Call("touch", body, body.place, mutates=True)


def append(inode: Ref, length: int, *, data: bytes = b"") -> Call:
    body = meta_pb2.Append(inode=encode_ref(inode), length=length, data=data)
    return Call("append", body, _group(inode), mutates=True)


def new_data(inode: Ref) -> Call:
    body = meta_pb2.NewData(inode=encode_ref(inode))
    return Call("new_data", body, _group(inode), mutates=True)


def setxattr(inode: Ref, name: bytes, value: bytes, *, flags: int = 0) -> Call:
    body = meta_pb2.Setxattr(inode=encode_ref(inode), name=name, value=value, flags=flags)
    return Call("setxattr", body, _group(inode), mutates=True)


def removexattr(inode: Ref, name: bytes) -> Call:
    body = meta_pb2.Removexattr(inode=encode_ref(inode), name=name)
    return Call("removexattr", body, _group(inode), mutates=True)


def reserve(dir: Ref, count: int) -> Call:  # noqa: A002
    body = meta_pb2.Reserve(dir=encode_ref(dir), count=count)
    return Call("reserve", body, dir.ino, mutates=True)


def reserve_generations(count: int) -> Call:
    """For directories that a log will make."""
    root = Ref(ROOT, 0, ROOT)
    body = meta_pb2.Reserve(dir=encode_ref(root), generations=count)
    return Call("reserve", body, ROOT, mutates=True)


def create_many(dir: Ref, entries: Sequence[Entry], *, replace: bool = False) -> Call:  # noqa: A002
    body = encode_create_many(dir, entries, replace=replace)
    return Call("create_many", body, dir.ino, mutates=True)


def remove_tree(dir: Ref, name: bytes, limit: int) -> Call:  # noqa: A002
    body = meta_pb2.RemoveTree(dir=encode_ref(dir), name=name, limit=limit)
    return Call("remove_tree", body, dir.ino, mutates=True)
