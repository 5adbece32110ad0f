"""Asking the daemon, and doing things here instead where directories are held exclusively.

What changes something, or is about something that the log is about, waits until the log is
shipped so far. While a directory that is held is asked about nothing is done in it here.
"""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING, TypeVar

from superfs.client import ops
from superfs.client.delegation import journal
from superfs.client.delegation.overlay import Away, Group
from superfs.client.dispatch import ASK_AGAIN
from superfs.client.meta import MetaClient
from superfs.core.errors import Code, FsError
from superfs.core.limits import LISTING_ENTRIES_MAX
from superfs.core.namespace.bits import ACL_FLAGS, MULTI
from superfs.core.namespace.txn import Dentry, Directory, Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from superfs.client.delegation.shipping import Shipping
    from superfs.client.delegation.state import Delegations
    from superfs.client.dispatch import Router
    from superfs.client.ops import Call
    from superfs.client.session import Session
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller
    from superfs.v1 import meta_pb2

T = TypeVar("T")
LOAD_AFTER = 2
"""An exclusive directory that was not made here is learned when so many changes could not be made
here."""
LOAD_ENTRIES_MAX = 20_000
GENERATIONS = 1024
_ALONE = frozenset(("reserve", "statfs"))
"""Verbs that neither change nor tell anything that a log is about."""
_UNORDERED = frozenset(("touch",))
"""Changes that nobody minds to see before earlier ones."""
_TAKE_NAMES = frozenset(("rmdir", "rename", "remove_tree"))
_ONE_NAME = frozenset(("create", "mkdir", "unlink", "rmdir"))
_ATTR_ONLY = frozenset(("setattr", "publish", "append", "new_data", "setxattr", "removexattr"))


class Asking(MetaClient):
    delegates = True

    def __init__(self, router: Router, state: Delegations) -> None:
        super().__init__(router)
        self._state = state
        self._overlay = state.overlay
        self.shipping: Shipping | None = None  # set by the connection
        reads: dict[str, Callable[[], float]] = {
            "exclusive": lambda: len(state.exclusive),
            "log_entries": lambda: state.entries,
            "log_bytes": lambda: state.bytes,
            "log_age_seconds": lambda: state.age_s,
            "log_shipped": lambda: state.shipped,
            "local_changes": lambda: state.local_operations,
            "exclusive_recalls": lambda: state.recalls,
            "lost_files": lambda: state.lost_files,
        }
        self.figures = {  # type: ignore[misc]
            name: (MetaClient.figures[name][0], read) for name, read in reads.items()
        }

    async def sync(self) -> None:
        """What was done so far survives the loss of power."""
        assert self.shipping is not None
        await self.shipping.ship()

    @property
    def is_synced(self) -> bool:
        return self._state.is_synced

    @property
    def is_here_only(self) -> bool:
        return self._state.here_only

    @contextlib.contextmanager
    def here_only(self) -> Iterator[bool]:
        state = self._state
        with state.lock:
            if not (state.is_good and state.overlay.groups):
                yield False
                return
            state.here_only = True
            try:
                yield True
            finally:
                state.here_only = False

    # ---- asking the daemon

    async def ask(
        self,
        call: Call,
        decode: Callable[[meta_pb2.Result, frozenset[int]], T],
        caller: Caller | None = None,
        *,
        ask_again: frozenset[Code] = ASK_AGAIN,
        session: Session | None = None,
    ) -> T:
        if self._state.here_only:
            raise Away
        asking = super().ask(call, decode, caller, ask_again=ask_again, session=session)
        if call.verb in _ALONE:
            return await asking
        with self._asking(call) as groups, contextlib.closing(asking):
            await self._ship_before(call, groups)
            return await asking

    async def run(
        self,
        call: Call,
        caller: Caller | None = None,
        *,
        ask_again: frozenset[Code] = ASK_AGAIN,
        absent_ok: bool = False,
        session: Session | None = None,
    ) -> Outcome:
        running = super().run(
            call, caller, ask_again=ask_again, absent_ok=absent_ok, session=session
        )
        if call.verb in _ALONE:
            return await running
        with self._asking(call) as groups:
            try:
                outcome = await running
            except BaseException as error:
                if call.mutates and groups and not _is_refusal(error):
                    self._forget(groups)  # nobody knows what was done
                raise
            if call.mutates and call.verb not in _UNORDERED:
                with self._state.lock:
                    self._moved(call, outcome)
                    if groups:
                        self._absorb(call, outcome, groups)
            return outcome

    async def run_many(
        self, calls: Sequence[Call], caller: Caller | None = None
    ) -> list[Outcome | FsError]:
        with contextlib.ExitStack() as stack:
            for call in calls:
                groups = stack.enter_context(self._asking(call))
                await self._ship_before(call, groups)
                if call.mutates:
                    self._forget(groups)
            return await super().run_many(calls, caller)

    @contextlib.contextmanager
    def _asking(self, call: Call) -> Iterator[list[int]]:
        """Directories that we hold and that the operation is about: meanwhile nothing is done in
        them here."""
        state = self._state
        with state.lock:
            groups = [d for d in self._concerned(call) if d in state.overlay.groups]
            for directory in groups:
                state.busy[directory] = state.busy.get(directory, 0) + 1
        try:
            yield groups
        finally:
            with state.lock:
                for directory in groups:
                    state.busy[directory] -= 1
                    if not state.busy[directory]:
                        del state.busy[directory]

    def _concerned(self, call: Call) -> set[int]:
        """Also directories that may lose their name: nobody makes a file in one meanwhile."""
        places = _places(call)
        if call.verb in _TAKE_NAMES:
            names = _names(call)
            for ino, group in self._overlay.groups.items():
                record = group.directory
                if not record.name or (record.parent, record.name) in names:
                    places.add(ino)
        return places

    async def _ship_before(self, call: Call, groups: list[int]) -> None:
        state = self._state
        with state.lock:
            ordered = call.mutates and call.verb not in _UNORDERED
            wait = not state.is_synced and (
                ordered or any(state.concerns(place) for place in _places(call))
            )
        if wait:
            assert self.shipping is not None
            try:
                await self.shipping.ship()
            except FsError as error:
                # Who only asks is told what is so. A change was to come after what is lost.
                if call.mutates or error.code is not Code.IO:
                    raise

    def _forget(self, groups: Iterable[int]) -> None:
        with self._state.lock:
            self._state.forget(groups)

    def _moved(self, call: Call, outcome: Outcome) -> None:
        """Directories that were moved or removed by the daemon."""
        verb, body, held = call.verb, call.body, self._overlay.groups
        if verb == "remove_tree":
            self._state.forget(list(held))
        elif verb in ("rename", "rmdir"):
            if outcome.other is not None:
                self._state.forget((outcome.other.ino,))
            group = None if outcome.attr is None else held.get(outcome.attr.ino)
            if group is not None:
                group.directory.parent = body.new_dir.ino
                group.directory.name = body.new_name

    def _absorb(self, call: Call, outcome: Outcome, groups: list[int]) -> None:
        """What the daemon has changed in a directory that we hold."""
        held = self._overlay.groups
        verb, body = call.verb, call.body
        for above in outcome.dirs:
            group = held.get(above.ino)
            if group is not None:
                group.directory.attr = above.copy()
        attr = outcome.attr
        if verb in _ATTR_ONLY:
            if attr is not None:
                self._put(attr)
            return
        group = held.get(body.dir.ino) if verb in _ONE_NAME else None
        if verb not in _ONE_NAME:
            self._state.forget(_places(call))
        elif group is not None and verb in ("create", "mkdir"):
            if attr is not None:
                self._put(attr)
                group.entries[body.name] = _dentry(attr)
        elif group is not None:
            entry = group.entries.pop(body.name, None)
            if entry is not None:
                group.inodes.pop(entry.ino, None)

    def _put(self, attr: Attr) -> None:
        group = self._overlay.groups.get(attr.place)
        if group is None:
            return
        if attr.ino == attr.place:
            group.directory.attr = attr.copy()
        else:
            group.inodes[attr.ino] = attr.copy()
            self._overlay.inline.pop(attr.ino, None)

    # ---- doing it here

    async def _room(self) -> None:
        if self._state.is_full:
            if self._state.here_only:
                raise Away
            assert self.shipping is not None
            await self.shipping.room()

    def _here(self, do: Callable[[], Outcome], *directories: int) -> Outcome | None:
        """The outcome of what is done here; None: it cannot be. Whatever the rule refuses is
        refused."""
        state = self._state
        with state.lock:
            if not state.is_good or not state.is_open(*directories):
                return None
            try:
                outcome = do()
            except Away:
                return None
            outcome.leases = frozenset(directories)
            state.local_operations += 1
            for place, ino in self._overlay.touched:
                state.part.touched[place, ino] = None
            state.touch(directories[0])
            assert self.shipping is not None
            self.shipping.noted()
            return outcome

    def _caller(self, caller: Caller | None) -> Caller:
        return caller or self._router.caller

    def _step(
        self,
        caller: Caller | None,
        names: Iterable[tuple[int, bytes]],
        inos: Iterable[int],
        directories: Iterable[int],
        entry: meta_pb2.LogEntry,
    ) -> None:
        overlay = self._overlay
        entry.now_ns = overlay.now_ns
        step = journal.Step(entry, self._encode_caller(self._caller(caller)))
        self._state.part.did(step, names, inos, directories, self._state.now())

    def return_leases(self, leases: Iterable[int]) -> None:
        state = self._state
        with state.lock:
            going = [lease for lease in leases if not state.concerns(lease)]
            state.exclusive.difference_update(going)
            state.forget(going)
        super().return_leases(going)

    # ---- learning a directory that was not made here

    async def _maybe_load(self, directory: Ref) -> None:
        state = self._state
        with state.lock:
            ino = directory.ino
            if ino not in state.exclusive or ino in self._overlay.groups or not state.is_good:
                return
            wanted = state.wanted[ino] = state.wanted.get(ino, 0) + 1
            if wanted != LOAD_AFTER:
                return
        group = await self._load(directory)
        if group is not None:
            with state.lock:
                state.adopt(ino, group)

    async def _load(self, directory: Ref) -> Group | None:
        """Nobody else changes it meanwhile: it is ours. But we may, and lose it."""
        outcome = await super().getattr(directory)
        attr = outcome.attr
        if attr is None or attr.size > LOAD_ENTRIES_MAX:
            return None
        group = Group(Directory(attr.copy(), 0, b""), born=False)
        after = b""
        while True:
            page = await self.run(ops.read_dir(directory, after=after, limit=LISTING_ENTRIES_MAX))
            for entry in page.entries:
                assert entry.attr is not None
                group.entries[entry.name] = _dentry(entry.attr)
                if entry.attr.place == directory.ino:
                    group.inodes[entry.attr.ino] = entry.attr
                after = entry.name
            if not page.more:
                break
        again = (await super().getattr(directory)).attr
        if again is None or again.change != attr.change or len(group.entries) != attr.size:
            return None
        return group


def _dentry(attr: Attr) -> Dentry:
    if attr.is_dir:
        return Dentry(
            attr.ino, attr.generation, attr.mode, attr.uid, attr.gid, attr.flags & ACL_FLAGS
        )
    multi = MULTI if attr.place == attr.ino else 0
    return Dentry(attr.ino, attr.generation, stat.S_IFMT(attr.mode), flags=multi)


def _places(call: Call) -> set[int]:
    """What an operation is about, as far as one can tell before."""
    places = {call.key}
    if call.verb == "rename":
        places.add(call.body.new_dir.ino)
    elif call.verb == "release":
        places.update(inode.place or inode.ino for inode in call.body.inodes)
    elif call.verb == "link":
        places.update((call.body.dir.ino, call.body.inode.place, call.body.inode.ino))
    return places


def _names(call: Call) -> set[tuple[int, bytes]]:
    """What loses its name, or may."""
    body = call.body
    if call.verb == "rename":
        return {(body.old_dir.ino, body.old_name), (body.new_dir.ino, body.new_name)}
    return {(body.dir.ino, body.name)}


def _is_refusal(error: BaseException) -> bool:
    """Nothing was done, and that is sure."""
    if isinstance(error, Away):
        return True
    return isinstance(error, FsError) and error.code not in (
        Code.UNAVAILABLE, Code.DEADLINE, Code.IO, Code.INTERNAL, Code.SESSION_EXPIRED
    )  # fmt: skip
