"""MetaClient: the verbs of the namespace, one coroutine each.

Arguments are named as in the rules (core/namespace) and meta.proto. Every verb returns an
`Outcome` or raises `FsError`. Only `publish` and `append` hand BUSY to their caller, who has to
write the data again before asking again; every other verb asks again by itself (dispatch.py).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from superfs.client import ops
from superfs.client.columns import listing_of, small_files_in
from superfs.client.dispatch import ASK_AGAIN, Dispatch, Router
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.core.limits import INLINE_BYTES_MAX, LISTING_ENTRIES_MAX
from superfs.core.namespace.txn import Ref
from superfs.rpc.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.client.columns import SmallFiles
    from superfs.client.session import MetaStream, Session
    from superfs.core.namespace.outcome import Entry, Outcome
    from superfs.core.namespace.txn import Caller
    from superfs.v1 import meta_pb2


class MetaClient(Dispatch):
    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self._open: dict[int, tuple[Ref, int]] = {}
        self._leaving: dict[int, Pending[None]] = {}  # whose last release is on its way
        self._opens = threading.Lock()  # of both

    # ---- reading

    async def lookup(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        want_inline: bool = False,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.lookup(dir, name, want_inline=want_inline), caller)

    async def find_name(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        caller: Caller | None = None,
    ) -> Outcome:
        """As `lookup`; a name that is not there is an answer without `attr`, which may be good for
        some time, too."""
        return await self.run(ops.lookup(dir, name), caller, absent_ok=True)

    async def getattr(self, inode: Ref, *, caller: Caller | None = None) -> Outcome:
        return await self.run(ops.getattr(inode), caller)

    async def read_dir(
        self,
        dir: Ref,  # noqa: A002
        *,
        after: bytes = b"",
        limit: int = LISTING_ENTRIES_MAX,
        plus: bool = True,
        inline_max: int = 0,
        caller: Caller | None = None,
    ) -> Outcome:
        call = ops.read_dir(dir, after=after, limit=limit, plus=plus, inline_max=inline_max)
        return await self.run(call, caller)

    async def read_inline(self, inode: Ref, *, caller: Caller | None = None) -> Outcome:
        return await self.run(ops.read_inline(inode), caller)

    async def getxattr(self, inode: Ref, name: bytes, *, caller: Caller | None = None) -> Outcome:
        return await self.run(ops.getxattr(inode, name), caller)

    async def listxattr(self, inode: Ref, *, caller: Caller | None = None) -> Outcome:
        return await self.run(ops.listxattr(inode), caller)

    async def statfs(self, *, caller: Caller | None = None) -> Outcome:
        return await self.run(ops.statfs(ROOT), caller)

    async def get_many(
        self,
        dir: Ref,  # noqa: A002
        names: Iterable[bytes],
        *,
        inline_max: int = 0,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.get_many(dir, names, inline_max=inline_max), caller)

    async def get_small(
        self,
        dir: Ref,  # noqa: A002
        names: Sequence[bytes],
        *,
        caller: Caller | None = None,
    ) -> SmallFiles:
        """As `get_many`, with the contents of files up to the inline limit, and no object for a
        file."""
        call = ops.get_many(dir, names, inline_max=INLINE_BYTES_MAX, bare=True)

        def decode(result: meta_pb2.Result, leases: frozenset[int]) -> SmallFiles:
            return small_files_in(listing_of(result, leases), len(names), leases)

        return await self.ask(call, decode, caller)

    def return_leases(self, leases: Iterable[int]) -> None:
        """Nothing is repeated under them any more. Does not wait: what is asked for from now on
        is asked after it."""
        by_stream: dict[MetaStream, list[int]] = {}
        for lease in leases:
            by_stream.setdefault(self._router.meta_stream(lease), []).append(lease)
        for stream, portion in by_stream.items():
            stream.give_back(portion)

    # ---- open files: said again to a daemon after a reconnect

    async def open(
        self,
        inode: Ref,
        *,
        write: bool = False,
        want_inline: bool = False,
        caller: Caller | None = None,
    ) -> Outcome:
        """Counted: as many `release`s end it. One that was cancelled counts: nobody knows what
        the server has done. A release that is on its way is waited for: it would end this too."""
        while True:
            with self._opens:
                leaving = self._leaving.get(inode.ino)
                if leaving is None:
                    self._count_open(inode)
                    break
            await leaving
        try:
            return await self.run(ops.open(inode, write=write, want_inline=want_inline), caller)
        except FsError:
            with self._opens:
                self._drop_open(inode)
            raise

    def note_open(self, inode: Ref) -> None:
        """Of an inode that a `create(open=True)` has opened."""
        with self._opens:
            self._count_open(inode)

    def _count_open(self, inode: Ref) -> None:
        _, count = self._open.get(inode.ino, (inode, 0))
        self._open[inode.ino] = (inode, count + 1)

    def _drop_open(self, inode: Ref) -> bool:
        """Whether this was the last. Called with the lock."""
        ref, count = self._open.get(inode.ino, (inode, 0))
        if count > 1:
            self._open[inode.ino] = (ref, count - 1)
            return False
        return self._open.pop(inode.ino, None) is not None

    @property
    def open_refs(self) -> list[Ref]:
        return [ref for ref, _ in self._open.copy().values()]

    async def release(self, inodes: Sequence[Ref], *, caller: Caller | None = None) -> None:
        gone: Pending[None] = Pending()
        with self._opens:
            last = [ref for ref in inodes if self._drop_open(ref)]
            self._leaving.update((ref.ino, gone) for ref in last)
        try:
            groups: dict[MetaStream, list[Ref]] = {}
            for ref in last:
                groups.setdefault(self._router.meta_stream(ref.place or ref.ino), []).append(ref)
            for group in groups.values():
                await self.run(ops.release(group), caller)
        finally:
            with self._opens:
                for ref in last:
                    if self._leaving.get(ref.ino) is gone:
                        del self._leaving[ref.ino]
            gone.complete(None)

    # ---- changing

    async def create(
        self,
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
        caller: Caller | None = None,
    ) -> Outcome:
        """With `open`, the inode counts as opened once."""
        call = ops.create(
            dir,
            name,
            mode,
            rdev=rdev,
            target=target,
            exclusive=exclusive,
            ino=ino,
            open=open,
            inline=inline,
            layout=layout,
        )
        outcome = await self.run(call, caller)
        if open and outcome.attr is not None:
            a = outcome.attr
            self.note_open(Ref(a.ino, a.generation, a.place))
        return outcome

    async def mkdir(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        mode: int,
        *,
        version_min: int = 0,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.mkdir(dir, name, mode, version_min=version_min), caller)

    async def unlink(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        keep: bool = False,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.unlink(dir, name, keep=keep), caller)

    async def rmdir(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.rmdir(dir, name), caller)

    async def rename(
        self,
        old_dir: Ref,
        old_name: bytes,
        new_dir: Ref,
        new_name: bytes,
        *,
        flags: int = 0,
        keep: bool = False,
        caller: Caller | None = None,
    ) -> Outcome:
        call = ops.rename(old_dir, old_name, new_dir, new_name, flags=flags, keep=keep)
        return await self.run(call, caller)

    async def link(
        self,
        inode: Ref,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.link(inode, dir, name), caller)

    async def setattr(
        self,
        inode: Ref,
        mask: int,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        atime_ns: int = 0,
        mtime_ns: int = 0,
        caller: Caller | None = None,
    ) -> Outcome:
        call = ops.setattr(
            inode,
            mask,
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            atime_ns=atime_ns,
            mtime_ns=mtime_ns,
        )
        return await self.run(call, caller)

    async def publish(
        self,
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
        caller: Caller | None = None,
        session: Session | None = None,
    ) -> Outcome:
        """`session`: it is published in that one or not at all (SESSION_EXPIRED)."""
        call = ops.publish(
            inode,
            data_generation,
            size=size,
            mtime_ns=mtime_ns,
            writes=writes,
            kill_priv=kill_priv,
            spill=spill,
            inline_change=inline_change,
            atime_ns=atime_ns,
        )
        once = ASK_AGAIN - {Code.BUSY}
        return await self.run(call, caller, ask_again=once, session=session)

    async def touch(self, inodes: Sequence[tuple[Ref, int]]) -> Outcome:
        """Access times, in nanoseconds, of up to TOUCH_INODES_MAX inodes in one place."""
        return await self.run(ops.touch(inodes))

    async def append(
        self, inode: Ref, length: int, *, data: bytes = b"", caller: Caller | None = None
    ) -> Outcome:
        call = ops.append(inode, length, data=data)
        return await self.run(call, caller, ask_again=ASK_AGAIN - {Code.BUSY})

    async def new_data(self, inode: Ref, *, caller: Caller | None = None) -> Outcome:
        return await self.run(ops.new_data(inode), caller)

    async def setxattr(
        self,
        inode: Ref,
        name: bytes,
        value: bytes,
        *,
        flags: int = 0,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.setxattr(inode, name, value, flags=flags), caller)

    async def removexattr(
        self, inode: Ref, name: bytes, *, caller: Caller | None = None
    ) -> Outcome:
        return await self.run(ops.removexattr(inode, name), caller)

    async def reserve(
        self,
        dir: Ref,  # noqa: A002
        count: int,
        *,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.reserve(dir, count), caller)

    async def create_many(
        self,
        dir: Ref,  # noqa: A002
        entries: Sequence[Entry],
        *,
        replace: bool = False,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.create_many(dir, entries, replace=replace), caller)

    async def remove_tree(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        limit: int,
        *,
        caller: Caller | None = None,
    ) -> Outcome:
        return await self.run(ops.remove_tree(dir, name, limit), caller)
