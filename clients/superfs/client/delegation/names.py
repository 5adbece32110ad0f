"""Names, made, moved and removed here, at once, in directories that are held exclusively.

A verb that ends in `_here` is None where it cannot be done here; then nothing was done. It raises
what the rules refuse.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.client.codec import encode_ref
from superfs.client.delegation.inodes import Inodes
from superfs.client.delegation.overlay import Away
from superfs.core.namespace.bits import HAS_DEFAULT_ACL
from superfs.core.namespace.create import create
from superfs.core.namespace.link import link
from superfs.core.namespace.mkdir import mkdir
from superfs.core.namespace.rename import NOREPLACE, rename
from superfs.core.namespace.rmdir import rmdir
from superfs.core.namespace.txn import Ref
from superfs.core.namespace.unlink import unlink
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller


class Names(Inodes):
    def create_here(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        mode: int,
        *,
        target: bytes = b"",
        exclusive: bool = True,
        inline: bytes = b"",
        caller: Caller | None = None,
    ) -> Outcome | None:
        """A regular file or a symbolic link."""

        def do() -> Outcome:
            overlay, state = self._overlay, self._state
            if overlay.groups[dir.ino].directory.attr.flags & HAS_DEFAULT_ACL:
                raise Away  # what it is to inherit is not known here
            outcome = overlay.run(
                create,
                self._caller(caller),
                dir,
                name,
                mode,
                target=target,
                exclusive=exclusive,
                inline=inline,
            )
            if outcome.number:
                assert outcome.attr is not None
                state.part.born(overlay.ref_of(dir.ino), name, outcome.attr, state.now())
            return outcome

        return self._here(do, dir.ino)

    def mkdir_here(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        mode: int,
        *,
        version_min: int = 0,
        caller: Caller | None = None,
    ) -> Outcome | None:
        def do() -> Outcome:
            overlay, state = self._overlay, self._state
            if not overlay.groups[dir.ino].predicts(name):
                raise Away
            outcome = overlay.run_mkdir(
                mkdir, self._caller(caller), dir, name, mode, version_min=version_min
            )
            attr = outcome.attr
            assert attr is not None
            state.exclusive.add(attr.ino)
            state.provisional.add(attr.ino)
            entry = meta_pb2.LogEntry(
                ino=attr.ino, generation=attr.generation,
                mkdir=meta_pb2.Mkdir(
                    dir=encode_ref(dir), name=name, mode=mode, version_min=version_min
                ),
            )  # fmt: skip
            self._step(caller, [(dir.ino, name)], [attr.ino], [dir.ino, attr.ino], entry)
            return outcome

        outcome = self._here(do, dir.ino)
        if outcome is not None:
            assert outcome.attr is not None
            outcome.leases |= {outcome.attr.ino}
        return outcome

    def unlink_here(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        caller: Caller | None = None,
    ) -> Outcome | None:
        """Of a file that nobody has open here."""
        return self._here(lambda: self._unlink(dir, name, caller), dir.ino)

    def _unlink(self, dir: Ref, name: bytes, caller: Caller | None) -> Outcome:  # noqa: A002
        overlay, part = self._overlay, self._state.part
        before, data = self._before(dir.ino, name)
        outcome = overlay.run_reaping(unlink, self._caller(caller), dir, name)
        self._note_loss(outcome)
        if before is None or self._is_elsewhere(before) or not part.unborn(before.ino):
            if before is not None:
                part.buried(before.ino, before, data)
            part.removed(overlay.ref_of(dir.ino), name, self._state.now())
        return outcome

    def _note_loss(self, outcome: Outcome) -> None:
        left = outcome.other
        if left is not None and not left.is_dir and not left.nlink:
            self._state.nameless(left.ino)

    def _is_elsewhere(self, attr: Attr) -> bool:
        """Whether data daemons may have some of its contents."""
        if not attr.data_generation:
            return False
        return attr.ino not in self._state.part.contents or not self._state.contents.drop(attr.ino)

    def _before(self, directory: int, name: bytes) -> tuple[Attr | None, bytes]:
        """The file of this name, and its contents as far as they are here."""
        group = self._overlay.groups[directory]
        entry = group.entries.get(name)
        attr = group.inodes.get(entry.ino) if entry is not None else None
        if attr is None:
            return None, b""
        return attr, self._overlay.inline.get(attr.ino, b"")

    def rmdir_here(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        caller: Caller | None = None,
    ) -> Outcome | None:
        def do() -> Outcome:
            overlay, state = self._overlay, self._state
            entry = overlay.groups[dir.ino].entries.get(name)
            if entry is not None and stat.S_ISDIR(entry.mode) and not state.is_open(entry.ino):
                raise Away
            child = overlay.groups.get(entry.ino) if entry is not None else None
            outcome = overlay.run_reaping(rmdir, self._caller(caller), dir, name)
            assert entry is not None
            if child is not None and not child.born:  # somebody may have it open
                overlay.groups[dir.ino].take(name)
            overlay.learned.discard(entry.ino)
            state.exclusive.discard(entry.ino)
            state.provisional.discard(entry.ino)
            step = meta_pb2.LogEntry(rmdir=meta_pb2.Rmdir(dir=encode_ref(dir), name=name))
            self._step(caller, [(dir.ino, name)], [entry.ino], [dir.ino, entry.ino], step)
            return outcome

        return self._here(do, dir.ino)

    def rename_here(
        self,
        old_dir: Ref,
        old_name: bytes,
        new_dir: Ref,
        new_name: bytes,
        *,
        flags: int = 0,
        keep: bool = False,
        caller: Caller | None = None,
    ) -> Outcome | None:
        if flags & ~NOREPLACE:
            return None
        return self._here(
            lambda: self._rename(old_dir, old_name, new_dir, new_name, flags, keep, caller),
            *dict.fromkeys((old_dir.ino, new_dir.ino)),
        )

    def _rename(
        self,
        old_dir: Ref,
        old: bytes,
        new_dir: Ref,
        new: bytes,
        flags: int,
        keep: bool,
        caller: Caller | None,
    ) -> Outcome:
        overlay, part = self._overlay, self._state.part
        entry = overlay.groups[old_dir.ino].entries.get(old)
        if entry is not None and stat.S_ISDIR(entry.mode):
            raise Away  # where a directory is, others have to know at once
        moves = old_dir.ino != new_dir.ino
        source, source_data = self._to_move(old_dir.ino, old) if moves else (None, b"")
        target, data = self._before(new_dir.ino, new)
        there = moves or new in overlay.groups[new_dir.ino].entries
        outcome = overlay.run_reaping(
            rename, self._caller(caller), old_dir, old, new_dir, new, flags=flags, keep=keep
        )
        self._note_loss(outcome)
        assert entry is not None
        if there or not part.renamed(entry.ino, old_dir.ino, new):
            inos, places = [entry.ino], [old_dir.ino, new_dir.ino]
            if source is not None:
                part.buried(entry.ino, source, source_data)
                overlay.learned.add(new_dir.ino)
            if target is not None and target.ino != entry.ino:
                part.buried(target.ino, target, data)
                inos.append(target.ino)
                places.append(target.ino)  # where it lies without a name
            body = meta_pb2.Rename(
                old_dir=encode_ref(old_dir), old_name=old,
                new_dir=encode_ref(new_dir), new_name=new, flags=flags, keep=keep,
            )  # fmt: skip
            step = meta_pb2.LogEntry(rename=body)
            self._step(caller, [(old_dir.ino, old), (new_dir.ino, new)], inos, places, step)
        return outcome

    def _to_move(self, directory: int, name: bytes) -> tuple[Attr | None, bytes]:
        """As `_before`, of a file that is going to be filed elsewhere. One whose contents have yet
        to be sent has to be told first."""
        attr, data = self._before(directory, name)
        if attr is not None and attr.ino in self._state.part.contents:
            raise Away
        return attr, data

    def link_here(
        self,
        inode: Ref,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        caller: Caller | None = None,
    ) -> Outcome | None:
        with self._state.lock:
            place = self._overlay.place_of(inode.ino, inode.place)
            source = Ref(inode.ino, inode.generation, place)
            outcome = self._here(lambda: self._link(source, dir, name, caller), dir.ino, place)
        if outcome is not None:
            outcome.leases |= {inode.ino}
        return outcome

    def _link(
        self,
        inode: Ref,
        dir: Ref,  # noqa: A002
        name: bytes,
        caller: Caller | None,
    ) -> Outcome:
        overlay, state = self._overlay, self._state
        ino, place = inode.ino, inode.place
        before = overlay.attr_of(place, ino)
        if before is None or ino in state.part.contents:
            raise Away
        data = overlay.inline.get(ino, b"")
        outcome = overlay.run_reaping(link, self._caller(caller), inode, dir, name)
        if place != ino:
            state.part.buried(ino, before, data)
            state.exclusive.add(ino)
            state.provisional.add(ino)
        body = meta_pb2.Link(inode=encode_ref(inode), dir=encode_ref(dir), name=name)
        step = meta_pb2.LogEntry(link=body)
        self._step(caller, [(dir.ino, name)], [ino], [dir.ino, place, ino], step)
        return outcome
