"""Many files at once: what POSIX has no calls for. Raises FsError.

Paths are grouped by directory, each directory's share goes in few columnar operations, and many
operations are on their way at once; what waits together travels in one message.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.client.creating import FileSpec, create_files, new_attr
from superfs.client.data import Where
from superfs.client.opening import read_bytes
from superfs.client.resolve import AnyPath, resolve_parent
from superfs.core.errors import Code, FsError
from superfs.core.layout import chain_of
from superfs.core.limits import CHUNK_BYTES, INLINE_BYTES_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.core.limits import REMOVE_TREE_ENTRIES_MAX as REMOVE_ENTRIES
from superfs.rpc.pending import gather, run_bounded

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from superfs.client.paths import Paths
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Entry
    from superfs.core.namespace.txn import Ref

# A mapping's key type is invariant: each kind of path is named.
Files = (
    Mapping[str, bytes]
    | Mapping[bytes, bytes]
    | Mapping[os.PathLike[str], bytes]
    | Iterable[tuple[AnyPath, bytes]]
)

WIDTH = 16
"""Directories worked on at once."""
WALK_WIDTH = 32
NAMES_A_CALL = 512
CONTENTS_A_CALL = 256
"""Names asked for in one operation, without and with their contents: a message each."""


@dataclass(frozen=True, slots=True)
class Location:
    """One contiguous range of a file and who has it: a data daemon, or, for small contents, a
    metadata daemon (chain 0)."""

    offset: int
    length: int
    chain: int
    node_id: int
    addresses: tuple[str, ...]
    host_id: str


@dataclass(slots=True)
class _Group:
    """Names of one directory and where they stand in the caller's list."""

    names: list[bytes]
    places: list[int]


async def _by_directory(
    paths: Paths, wanted: Sequence[AnyPath]
) -> tuple[dict[Ref, _Group], dict[int, FsError]]:
    """Each parent is resolved once, all of them side by side. Also what failed, by place."""
    failed: dict[int, FsError] = {}
    folders: dict[bytes, list[tuple[int, bytes]]] = {}
    for place, path in enumerate(wanted):
        raw = os.fsencode(path)
        head, _, name = raw.rpartition(b"/")
        folders.setdefault(head, []).append((place, name))
    groups: dict[Ref, _Group] = {}

    async def find(head: bytes, members: list[tuple[int, bytes]]) -> None:
        try:
            # The name is a stand-in: only its directory is looked for.
            parent, _ = await resolve_parent(paths.meta, head + b"/x")
        except FsError as error:
            failed.update((place, error) for place, _ in members)
            return
        group = groups.setdefault(parent, _Group([], []))
        group.names += [name for _, name in members]
        group.places += [place for place, _ in members]

    await run_bounded((find(head, members) for head, members in folders.items()), WALK_WIDTH)
    return groups, failed


async def put_many(
    paths: Paths,
    files: Files,
    mode: int,
) -> None:
    pairs = list(files.items()) if isinstance(files, Mapping) else list(files)
    groups, failed = await _by_directory(paths, [path for path, _ in pairs])
    for place, error in sorted(failed.items()):
        raise FsError(error.code, os.fsdecode(pairs[place][0]))
    caller = paths.connection.caller
    attr = new_attr(stat.S_IFREG | mode & 0o7777 & ~caller.umask, caller.uid, caller.gid)

    async def put(parent: Ref, group: _Group) -> None:
        specs = []
        for name, place in zip(group.names, group.places, strict=True):
            mine = attr.copy()
            mine.size = len(pairs[place][1])
            specs.append(FileSpec(name, mine, pairs[place][1]))
        for entry in await create_files(paths.connection, parent, specs, replace=True):
            if entry.code is not Code.OK:
                raise FsError(entry.code, os.fsdecode(entry.name))

    await run_bounded((put(parent, group) for parent, group in groups.items()), WIDTH)


async def _entries(
    paths: Paths, wanted: Sequence[AnyPath], inline_max: int
) -> list[Entry | FsError]:
    """One entry for each path, its last component not followed."""
    groups, failed = await _by_directory(paths, wanted)
    found: list[Entry | FsError] = [FsError(Code.NOT_FOUND)] * len(wanted)
    for place, error in failed.items():
        found[place] = error

    async def ask(parent: Ref, names: list[bytes], places: list[int]) -> None:
        outcome = await paths.meta.get_many(parent, names, inline_max=inline_max)
        for place, entry in zip(places, outcome.entries, strict=True):
            found[place] = entry if entry.code is Code.OK else FsError(entry.code)

    names_a_call = CONTENTS_A_CALL if inline_max else NAMES_A_CALL

    def calls() -> Iterable[Coroutine[Any, Any, None]]:
        for parent, group in groups.items():
            for start in range(0, len(group.names), names_a_call):
                part = slice(start, start + names_a_call)
                yield ask(parent, group.names[part], group.places[part])

    await run_bounded(calls(), WIDTH)
    return found


async def stat_many(
    paths: Paths, wanted: Sequence[AnyPath], *, follow: bool
) -> list[Attr | FsError]:
    found: list[Attr | FsError] = []
    entries = await _entries(paths, wanted, 0)
    for path, entry in zip(wanted, entries, strict=True):
        if isinstance(entry, FsError):
            # A name that a directory cannot hold ("", "..", a slash at the end) is still a path.
            special = entry.code is Code.INVALID
            found.append(await _or_error(paths.stat(path, follow=follow)) if special else entry)
            continue
        assert entry.attr is not None
        if follow and entry.attr.is_symlink:
            found.append(await _or_error(paths.stat(path)))
        else:
            found.append(paths.files.view(entry.attr))
    return found


async def _or_error(coro: Coroutine[Any, Any, Attr]) -> Attr | FsError:
    try:
        return await coro
    except FsError as error:
        return error


async def get_many(paths: Paths, wanted: Sequence[AnyPath]) -> list[bytes | FsError]:
    entries = await _entries(paths, wanted, INLINE_BYTES_MAX)
    found: list[bytes | FsError] = [b""] * len(wanted)
    small: list[tuple[int, Attr]] = []
    alone: list[int] = []
    for place, entry in enumerate(entries):
        if isinstance(entry, FsError):
            found[place] = entry
            continue
        attr = entry.attr
        assert attr is not None
        plain = attr.is_regular and paths.files.find(attr) is None
        if plain and entry.inline is not None:
            found[place] = entry.inline.ljust(attr.size, b"\0")
        elif (
            plain
            and not attr.is_inline
            and attr.size <= MESSAGE_DATA_BYTES_MAX
            and paths.connection.capability
        ):
            small.append((place, attr))
        else:
            alone.append(place)
    wheres = [(Where.of(attr), attr.size) for _, attr in small]
    contents = await paths.connection.data.read_many(wheres)
    for (place, _), data in zip(small, contents, strict=True):
        found[place] = data

    async def read(place: int) -> None:
        try:
            found[place] = await read_bytes(paths, wanted[place])
        except FsError as error:
            found[place] = error

    await run_bounded((read(place) for place in alone), WIDTH)
    return found


async def list_many(paths: Paths, folders: Sequence[AnyPath]) -> list[list[Entry]]:
    """With attributes, in order."""
    return await gather([paths.entries(folder, plus=True) for folder in folders])


async def remove_tree(paths: Paths, path: AnyPath) -> int:
    parent, name = await resolve_parent(paths.meta, path, directory=True)
    removed = 0
    while True:
        outcome = await paths.meta.remove_tree(parent, name, REMOVE_ENTRIES)
        removed += outcome.number
        if not outcome.more:
            return removed


async def locate(
    paths: Paths, path: AnyPath, offset: int = 0, length: int | None = None
) -> list[Location]:
    attr = await paths.stat(path)
    if not attr.is_regular:
        raise FsError(Code.IS_DIRECTORY if attr.is_dir else Code.INVALID)
    found = paths.connection.map
    end = attr.size if length is None else min(attr.size, offset + length)
    locations: list[Location] = []
    while offset < end:
        if attr.is_inline:
            chain, node_id, stop = 0, found.meta_node(attr.place), end
        else:
            chain = chain_of(attr.chains, offset // CHUNK_BYTES)
            node_id = found.data_node(chain)
            stop = min(end, (offset // CHUNK_BYTES + 1) * CHUNK_BYTES)
        addresses, host_id = found.addresses(node_id), found.nodes[node_id].host_id
        locations.append(Location(offset, stop - offset, chain, node_id, addresses, host_id))
        offset = stop
    return locations
