"""From a path to its inode, in one round trip at any depth where the guess is right.

The number of a directory follows from its birth: parent, name, version 0 nearly always. So all
directories of a path are predicted, and every component is looked up in its predicted directory,
in one batch. An answer counts only while every directory before it was what was predicted; at the
first that was not (it was renamed, or collided) the guessing starts again from the true one.

`..` goes to the directory from which we came down, which is what the kernel does, also behind a
symlink. Symlinks are followed up to 40 times.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from superfs.client import ops
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT, ROOT_GENERATION, directory_id
from superfs.core.limits import NAME_BYTES_MAX
from superfs.core.namespace.txn import Ref

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.client.ops import Call
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller

SYMLINKS_MAX = 40
GUESSES_MAX = 64
"""Components looked up at once."""
PATH_BYTES_MAX = 64 * 1024

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

ROOT_REF = Ref(ROOT, ROOT_GENERATION, ROOT)


class Meta(Protocol):
    async def run_many(
        self, calls: Sequence[Call], caller: Caller | None = None
    ) -> list[Outcome | FsError]: ...

    async def getattr(self, inode: Ref, *, caller: Caller | None = None) -> Outcome: ...
    async def read_inline(self, inode: Ref, *, caller: Caller | None = None) -> Outcome: ...


def encode_path(path: AnyPath) -> bytes:
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise FsError(Code.INVALID, "NUL in a path")
    if len(raw) > PATH_BYTES_MAX:
        raise FsError(Code.NAME_TOO_LONG, f"a path of {len(raw)} bytes")
    return raw


def split(path: bytes) -> list[bytes]:
    """Components; a slash at the end demands a directory and becomes a last `.`."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if parts and path.endswith((b"/", b"/.")):
        parts.append(b".")
    for part in parts:
        if len(part) > NAME_BYTES_MAX:
            raise FsError(Code.NAME_TOO_LONG, f"{len(part)} bytes")
    return parts


def ref_of(attr: Attr) -> Ref:
    return Ref(attr.ino, attr.generation, attr.place)


@dataclass(slots=True)
class Target:
    """What a path leads to. `parent` and `name` say where its last component lies (name b"": the
    path ends in the root, `.` or `..`); `attr` is None where nothing is there."""

    parent: Ref
    name: bytes
    attr: Attr | None
    data: bytes = b""  # inline contents, where they were wanted

    @property
    def ref(self) -> Ref:
        assert self.attr is not None
        return ref_of(self.attr)


async def resolve(
    meta: Meta,
    path: AnyPath,
    *,
    follow: bool = True,
    missing_ok: bool = False,
    want_inline: bool = False,
    caller: Caller | None = None,
) -> Target:
    """`missing_ok`: the last component need not exist. `follow`: a symlink in last place is
    followed (a slash behind it always does)."""
    walk = _Walk(meta, follow, missing_ok, want_inline, caller)
    walk.todo = split(encode_path(path))
    return await walk.run()


async def resolve_parent(
    meta: Meta, path: AnyPath, *, directory: bool = False, caller: Caller | None = None
) -> tuple[Ref, bytes]:
    """Where a name is made or removed: (directory, name). The name itself is not looked up.
    `directory`: it is a directory's, which may have a slash behind it."""
    parts = split(encode_path(path))
    if parts and parts[-1] == b".":
        if not directory:
            raise FsError(Code.NOT_DIRECTORY, os.fsdecode(path))
        parts.pop()
    if not parts:
        raise FsError(Code.BUSY_DIRECTORY, "the root directory")
    name = parts.pop()
    if name == b"..":
        raise FsError(Code.NOT_EMPTY if directory else Code.INVALID, "..")
    if not parts:
        return ROOT_REF, name
    walk = _Walk(meta, True, False, False, caller)
    walk.todo = [*parts, b"."]
    target = await walk.run()
    return target.ref, name


async def resolve_deepest(
    meta: Meta, path: AnyPath, *, caller: Caller | None = None
) -> tuple[Attr | None, Ref, list[bytes]] | None:
    """How far a path leads: (what is there if all of it is, the last directory on the way, the
    names that are missing in it). None: its `..` or its symlinks leave that open."""
    walk = _Walk(meta, True, False, False, caller)
    walk.todo = split(encode_path(path))
    if b".." in walk.todo:
        return None
    try:
        target = await walk.run()
    except FsError as error:
        if error.code is not Code.NOT_FOUND or walk.links:
            if error.code is Code.NOT_FOUND:
                return None
            raise
        return None, walk.stack[-1][0], [name for name in walk.todo if name != b"."]
    return target.attr, target.parent, []


@dataclass(slots=True)
class _Walk:
    meta: Meta
    follow: bool
    missing_ok: bool
    want_inline: bool
    caller: Caller | None
    todo: list[bytes] = field(default_factory=list)
    stack: list[tuple[Ref, Attr | None]] = field(default_factory=lambda: [(ROOT_REF, None)])
    links: int = 0

    async def run(self) -> Target:
        while True:
            self._go_up()
            if not self.todo:
                return await self._here()
            names = self._guessable()
            found = await self._step(names, await self._look(names))
            if found is not None:
                return found

    def _go_up(self) -> None:
        while self.todo and self.todo[0] in (b"..", b"."):
            if self.todo.pop(0) == b".." and len(self.stack) > 1:
                self.stack.pop()

    async def _here(self) -> Target:
        ref, attr = self.stack[-1]
        if attr is None:
            attr = (await self.meta.getattr(ref, caller=self.caller)).attr
        return Target(ref, b"", attr)

    def _guessable(self) -> list[bytes]:
        names = []
        for name in self.todo[:GUESSES_MAX]:
            if name in (b"..", b"."):
                break
            names.append(name)
        return names

    async def _look(self, names: list[bytes]) -> list[Outcome | FsError]:
        directory, _ = self.stack[-1]
        calls = []
        for index, name in enumerate(names):
            last = index == len(names) - 1
            # Cheap for directories, which have no contents; it brings the target of a symlink.
            inline = not last or self.want_inline or self.follow
            calls.append(ops.lookup(directory, name, want_inline=inline))
            guess = directory_id(directory.ino, name)
            directory = Ref(guess, 0, guess)
        return await self.meta.run_many(calls, self.caller)

    async def _step(self, names: list[bytes], outcomes: list[Outcome | FsError]) -> Target | None:
        """Takes over the answers as far as they count. None: look again, from where we are."""
        for name, outcome in zip(names, outcomes, strict=True):
            directory, _ = self.stack[-1]
            rest = self.todo[1:]
            if isinstance(outcome, FsError):
                missing = outcome.code is Code.NOT_FOUND and not rest
                if missing and self.missing_ok:
                    return Target(directory, name, None)
                raise outcome
            attr = outcome.attr
            assert attr is not None
            if attr.is_symlink and (rest or self.follow):
                self._enter_link(outcome.data, rest)
                return None
            if not rest:
                return Target(directory, name, attr, outcome.data)
            if not attr.is_dir:
                raise FsError(Code.NOT_DIRECTORY, os.fsdecode(name))
            self.todo = rest
            self.stack.append((ref_of(attr), attr))
            if attr.ino != directory_id(directory.ino, name):
                return None
        return None

    def _enter_link(self, target: bytes, rest: list[bytes]) -> None:
        self.links += 1
        if self.links > SYMLINKS_MAX:
            raise FsError(Code.LOOP, f"more than {SYMLINKS_MAX} symlinks")
        if not target:
            raise FsError(Code.NOT_FOUND, "an empty symlink")
        self.todo = split(target) + rest
        if target.startswith(b"/"):
            del self.stack[1:]
