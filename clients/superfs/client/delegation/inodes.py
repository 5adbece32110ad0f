"""Verbs about one inode, done here where its place is held exclusively."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.client import ops
from superfs.client.codec import encode_ref
from superfs.client.delegation.concerns import ACCESS
from superfs.client.delegation.learning import Learning
from superfs.client.delegation.overlay import Away
from superfs.core.errors import Code, FsError
from superfs.core.ids import FIRST_DATA_GENERATION, is_directory_id
from superfs.core.namespace.lookup import lookup
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.publish import publish
from superfs.core.namespace.setattr import setattr as setattr_
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.client.session import Session
    from superfs.core.namespace.txn import Caller, Ref


class Inodes(Learning):
    async def setattr(
        self, inode: Ref, mask: int, *, caller: Caller | None = None, **values: int
    ) -> Outcome:
        await self.room()
        place = inode.place or inode.ino

        def do() -> Outcome:
            overlay, part = self._overlay, self._state.part
            places = [place]
            if is_directory_id(inode.ino) and mask & ACCESS:
                places.append(self._parent_of(inode.ino))
            absorbed = part.is_ours(inode.ino)
            run = overlay.run if absorbed else overlay.run_reaping
            outcome = run(setattr_, self._caller(caller), inode, mask, **values)
            if not absorbed:
                body = meta_pb2.Setattr(inode=encode_ref(inode), mask=mask, **values)
                self._step(caller, (), [inode.ino], places, meta_pb2.LogEntry(setattr=body))
            return outcome

        outcome = self._here(do, place)
        return outcome or await super().setattr(inode, mask, caller=caller, **values)

    def _parent_of(self, ino: int) -> int:
        """Access metadata of a directory lie with its name, too."""
        record = self._overlay.groups[ino].directory
        if not (record.name and self._state.is_open(record.parent)):
            raise Away
        return record.parent

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
        await self.room()
        values = {
            "size": size, "mtime_ns": mtime_ns, "writes": writes, "kill_priv": kill_priv,
            "spill": spill, "inline_change": inline_change, "atime_ns": atime_ns,
        }  # fmt: skip

        def do() -> Outcome:
            overlay, part = self._overlay, self._state.part
            absorbed = part.is_ours(inode.ino)
            if (spill and not absorbed) or session not in (None, self._router.session):
                raise Away
            outcome = overlay.run(
                publish,
                self._caller(caller),
                inode,
                data_generation,
                **values,  # type: ignore[arg-type]
            )
            assert outcome.attr is not None
            if absorbed:
                part.grew(len(overlay.inline.get(inode.ino, b"")))
            else:
                body = ops.publish(inode, data_generation, **values).body  # type: ignore[arg-type]
                entry = meta_pb2.LogEntry(publish=body)
                self._step(caller, (), [inode.ino], [inode.place], entry)
            return outcome

        outcome = self._here(do, inode.place) if inode.place else None
        if outcome is not None:
            return outcome
        return await super().publish(
            inode,
            data_generation,
            caller=caller,
            session=session,
            **values,  # type: ignore[arg-type]
        )

    async def new_data(self, inode: Ref, *, caller: Caller | None = None) -> Outcome:
        def do() -> Outcome:
            overlay = self._overlay
            attr = overlay.get_inode(inode.place, inode.ino)
            ours = self._state.part.is_ours(inode.ino)
            if attr is None or not ours or not attr.is_inline or attr.data_generation:
                raise Away
            data = overlay.inline.get(inode.ino, b"")
            attr.data_generation = FIRST_DATA_GENERATION
            attr.chains = tuple(overlay.choose_chains(attr.ino, attr.chains))
            if not attr.chains:
                raise Away
            overlay.touched = set()
            overlay.put_inode(attr)
            return Outcome(attr, number=FIRST_DATA_GENERATION, data=data)

        outcome = self._here(do, inode.place) if inode.place else None
        return outcome or await super().new_data(inode, caller=caller)

    # ---- contents that go with the log

    def is_born_here(self, inode: Ref) -> bool:
        state = self._state
        with state.lock:
            place = inode.place
            return (
                bool(place)
                and state.is_good
                and state.is_open(place)
                and (state.part.is_ours(inode.ino))
            )

    def kept(self, ino: int, size: int) -> None:
        self._state.part.keeps(ino, size)

    # ---- what is known here

    async def getattr(self, inode: Ref, *, caller: Caller | None = None) -> Outcome:
        place = inode.place or inode.ino
        with self._state.lock:
            if self._state.is_good and self._state.is_open(place):
                attr = self._overlay.attr_of(place, inode.ino)
                if attr is not None and inode.generation in (0, attr.generation):
                    return Outcome(attr.copy(), leases=frozenset((place,)))
        return await super().getattr(inode, caller=caller)

    async def find_name(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        caller: Caller | None = None,
    ) -> Outcome:
        with self._state.lock:
            found = self._find_here(dir, name, self._caller(caller))
        return found or await super().find_name(dir, name, caller=caller)

    def _find_here(self, directory: Ref, name: bytes, caller: Caller) -> Outcome | None:
        """None: it is not known here."""
        state = self._state
        if not (state.is_good and state.is_open(directory.ino)):
            return None
        try:
            attr = self._overlay.run(lookup, caller, directory, name).attr
        except Away:
            return None
        except FsError as error:
            if error.code is not Code.NOT_FOUND:
                return None
            return Outcome(leases=frozenset((directory.ino,)))
        assert attr is not None
        if not state.is_open(attr.place):
            return None
        return Outcome(attr.copy(), leases=frozenset((directory.ino, attr.place)))

    async def read_inline(self, inode: Ref, *, caller: Caller | None = None) -> Outcome:
        place = inode.place
        with self._state.lock:
            group = self._overlay.groups.get(place)
            if group is not None and self._state.is_good and self._state.is_open(place):
                attr, data = group.inodes.get(inode.ino), self._overlay.inline.get(inode.ino)
                if attr is None or not attr.is_inline or attr.generation != inode.generation:
                    pass
                elif data is not None or not attr.size:
                    return Outcome(attr.copy(), data=data or b"", leases=frozenset((place,)))
        return await super().read_inline(inode, caller=caller)
