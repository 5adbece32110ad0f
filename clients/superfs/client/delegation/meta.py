"""The verbs of the namespace where this client may hold directories exclusively.

What concerns such directories alone is done here, by the rules, and told later in a log
(docs/decisions/0019-exclusive-leases.md). Everything else is asked of the daemon as ever.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.client import ops
from superfs.client.delegation.names import Names
from superfs.client.delegation.overlay import Group
from superfs.core.namespace.rename import NOREPLACE
from superfs.core.namespace.txn import Directory, Ref

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller

GENERATIONS = 1024
_BORN_TYPES = (stat.S_IFREG, stat.S_IFLNK)


class DelegatedMeta(Names):
    @property
    def here(self) -> DelegatedMeta:
        return self

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
        if stat.S_IFMT(mode) in _BORN_TYPES and not (ino or layout or open):
            await self.room()
            outcome = self.create_here(
                dir, name, mode, target=target, exclusive=exclusive, inline=inline, caller=caller
            )
            if outcome is not None:
                return outcome
            await self._maybe_load(dir)
        return await super().create(
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
            caller=caller,
        )

    async def mkdir(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        mode: int,
        *,
        version_min: int = 0,
        caller: Caller | None = None,
    ) -> Outcome:
        await self.room()
        await self._maybe_reserve(dir.ino)
        outcome = self.mkdir_here(dir, name, mode, version_min=version_min, caller=caller)
        if outcome is not None:
            return outcome
        outcome = await super().mkdir(dir, name, mode, version_min=version_min, caller=caller)
        attr = outcome.attr
        assert attr is not None
        with self._state.lock:
            self._state.adopt(attr.ino, Group(Directory(attr.copy(), dir.ino, name), born=True))
        return outcome

    async def _maybe_reserve(self, directory: int) -> None:
        overlay, state = self._overlay, self._state
        with state.lock:
            group = overlay.groups.get(directory)
            if overlay.generations or group is None or not group.born or not state.is_good:
                return
        first = (await self.run(ops.reserve_generations(GENERATIONS))).number
        with state.lock:
            overlay.generations.extend(range(first + GENERATIONS - 1, first - 1, -1))

    async def unlink(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        keep: bool = False,
        caller: Caller | None = None,
    ) -> Outcome:
        if not keep:
            await self.room()
            outcome = self.unlink_here(dir, name, caller=caller)
            if outcome is not None:
                return outcome
            await self._maybe_load(dir)
        return await super().unlink(dir, name, keep=keep, caller=caller)

    async def rmdir(
        self,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        caller: Caller | None = None,
    ) -> Outcome:
        await self.room()
        outcome = self.rmdir_here(dir, name, caller=caller)
        return outcome or await super().rmdir(dir, name, caller=caller)

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
        if not flags & ~NOREPLACE:
            await self.room()
            outcome = self.rename_here(
                old_dir, old_name, new_dir, new_name, flags=flags, keep=keep, caller=caller
            )
            if outcome is not None:
                return outcome
            await self._maybe_load(old_dir)
            if new_dir.ino != old_dir.ino:
                await self._maybe_load(new_dir)
        return await super().rename(
            old_dir, old_name, new_dir, new_name, flags=flags, keep=keep, caller=caller
        )

    async def link(
        self,
        inode: Ref,
        dir: Ref,  # noqa: A002
        name: bytes,
        *,
        caller: Caller | None = None,
    ) -> Outcome:
        await self.room()
        outcome = self.link_here(inode, dir, name, caller=caller)
        if outcome is not None:
            return outcome
        await self._maybe_load(dir)
        return await super().link(inode, dir, name, caller=caller)
