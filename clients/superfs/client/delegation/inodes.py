"""Verbs about one inode, done here where its place is held exclusively."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    from contextlib import AbstractContextManager

    from superfs.client.session import Session
    from superfs.core.namespace.txn import Caller, Ref


class Inodes(Learning):
    async def setattr(
        self, inode: Ref, mask: int, *, caller: Caller | None = None, **values: int
    ) -> Outcome:
        await self.room()
        outcome = self.setattr_here(inode, mask, caller=caller, **values)
        return outcome or await super().setattr(inode, mask, caller=caller, **values)

    def setattr_here(
        self, inode: Ref, mask: int, *, caller: Caller | None = None, **values: int
    ) -> Outcome | None:
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

        return self._here(do, place)

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
        caller: Caller | None = None,
        session: Session | None = None,
        **values: Any,  # noqa: ANN401  # as MetaClient.publish has them
    ) -> Outcome:
        await self.room()
        outcome = self.publish_here(
            inode, data_generation, caller=caller, session=session, **values
        )
        return outcome or await super().publish(
            inode, data_generation, caller=caller, session=session, **values
        )

    def publish_here(
        self,
        inode: Ref,
        data_generation: int,
        *,
        spill: bool = False,
        caller: Caller | None = None,
        session: Session | None = None,
        **values: Any,  # noqa: ANN401
    ) -> Outcome | None:
        def do() -> Outcome:
            overlay, part = self._overlay, self._state.part
            absorbed = part.is_ours(inode.ino)
            if (spill and not absorbed) or session not in (None, self._router.session):
                raise Away
            outcome = overlay.run(
                publish, self._caller(caller), inode, data_generation, spill=spill, **values
            )
            if absorbed:
                part.grew(len(overlay.inline.get(inode.ino, b"")))
            else:
                body = ops.publish(inode, data_generation, spill=spill, **values).body
                entry = meta_pb2.LogEntry(publish=body)
                self._step(caller, (), [inode.ino], [inode.place], entry)
            return outcome

        return self._here(do, inode.place) if inode.place else None

    async def new_data(self, inode: Ref, *, caller: Caller | None = None) -> Outcome:
        return self.new_data_here(inode) or await super().new_data(inode, caller=caller)

    def new_data_here(self, inode: Ref) -> Outcome | None:
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

        return self._here(do, inode.place) if inode.place else None

    # ---- contents that go with the log

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Whoever has it loses nothing that is held meanwhile."""
        return self._state.lock

    def is_born_here(self, inode: Ref) -> bool:
        """Whether only this client has ever heard of the file, and may still say what it is."""
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
        """So many bytes of such a file have to be at data daemons before anybody hears of it."""
        self._state.part.keeps(ino, size)
        assert self.shipping is not None
        self.shipping.noted()

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
