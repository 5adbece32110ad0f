"""Many files at once: what POSIX has no calls for. Raises FsError.

Paths are grouped by directory, each directory's share goes in few columnar operations, and many
operations are on their way at once; what waits together travels in one message.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from superfs.client import columns, ops
from superfs.client.creating import FileSpec, create_files, new_attr
from superfs.client.data import Where
from superfs.client.opening import read_bytes
from superfs.client.ops import Call
from superfs.client.resolve import AnyPath, resolve_parent
from superfs.core.errors import Code, FsError, known_code
from superfs.core.layout import chain_of
from superfs.core.limits import CHUNK_BYTES, INLINE_BYTES_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.core.limits import REMOVE_TREE_ENTRIES_MAX as REMOVE_ENTRIES
from superfs.rpc.pending import gather, run_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from superfs.client.paths import Paths
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Entry
    from superfs.core.namespace.txn import Ref
    from superfs.v1 import meta_pb2

T = TypeVar("T")

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
PORTIONS = 4
"""Of new files of one directory on their way at once."""
_UNASKED = FsError(Code.INTERNAL, "no answer")


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
    small: list[Coroutine[Any, Any, None]] = []
    larger: list[Coroutine[Any, Any, None]] = []
    for parent, group in groups.items():
        contents = [pairs[place][1] for place in group.places]
        if max(map(len, contents)) > INLINE_BYTES_MAX:
            larger.append(_put_any(paths, parent, group.names, contents, attr))
        else:
            portions = columns.new_files(parent, attr, group.names, contents)
            small.append(_put_portions(paths, portions))
    await run_bounded(iter(small + larger), WIDTH)
    if larger:
        await paths.connection.data.commit()


async def _put_portions(
    paths: Paths, portions: Iterable[tuple[Sequence[bytes], meta_pb2.CreateMany]]
) -> None:
    async def put(names: Sequence[bytes], message: meta_pb2.CreateMany) -> None:
        call = Call("create_many", message, message.dir.ino, mutates=True)
        listing = await paths.meta.ask(call, columns.listing_of)
        for name, code in zip(names, listing.codes, strict=False):
            if code:
                raise FsError(known_code(code), os.fsdecode(name))

    await run_bounded((put(*portion) for portion in portions), PORTIONS)


async def _put_any(
    paths: Paths, parent: Ref, names: list[bytes], contents: list[bytes], attr: Attr
) -> None:
    specs = []
    for name, data in zip(names, contents, strict=True):
        mine = attr.copy()
        mine.size = len(data)
        specs.append(FileSpec(name, mine, data))
    for entry in await create_files(paths.connection, parent, specs, replace=True):
        if entry.code is not Code.OK:
            raise FsError(entry.code, os.fsdecode(entry.name))


async def _look(
    paths: Paths,
    wanted: Sequence[AnyPath],
    inline_max: int,
    take: Callable[[list[int], meta_pb2.Listing], None],
) -> dict[int, FsError]:
    """`take` gets places in `wanted` and the answer for them, last components not followed.
    Returned is what failed before it could be asked, by place."""
    groups, failed = await _by_directory(paths, wanted)
    names_a_call = CONTENTS_A_CALL if inline_max else NAMES_A_CALL

    async def ask(parent: Ref, names: list[bytes], places: list[int]) -> None:
        call = ops.get_many(parent, names, inline_max=inline_max, bare=True)
        take(places, await paths.meta.ask(call, columns.listing_of))

    def calls() -> Iterable[Coroutine[Any, Any, None]]:
        for parent, group in groups.items():
            for start in range(0, len(group.names), names_a_call):
                part = slice(start, start + names_a_call)
                yield ask(parent, group.names[part], group.places[part])

    await run_bounded(calls(), WIDTH)
    return failed


async def stat_many(
    paths: Paths, wanted: Sequence[AnyPath], make: Callable[[Attr], T], *, follow: bool
) -> list[T | FsError]:
    """`make` is applied to each while the next answers are on their way."""
    found: list[T | FsError] = [_UNASKED] * len(wanted)
    again: list[int] = []

    def take(places: list[int], listing: meta_pb2.Listing) -> None:
        for place, attr in zip(places, columns.attrs_in(listing, len(places)), strict=True):
            if isinstance(attr, FsError):
                found[place] = attr
                # A name that a directory cannot hold ("", "..", a slash at the end) is still a
                # path.
                if attr.code is Code.INVALID:
                    again.append(place)
            elif follow and attr.is_symlink:
                again.append(place)
            else:
                found[place] = make(paths.files.view(attr))

    for place, error in (await _look(paths, wanted, 0, take)).items():
        found[place] = error
    for place in again:
        try:
            found[place] = make(await paths.stat(wanted[place], follow=follow))
        except FsError as error:
            found[place] = error
    return found


async def get_many(
    paths: Paths, wanted: Sequence[AnyPath], known: Sequence[Attr | None] = ()
) -> list[bytes | FsError]:
    """`known`: attributes that a listing gave, which are not asked for again."""
    found: list[bytes | FsError] = [_UNASKED] * len(wanted)
    others: list[tuple[int, Attr]] = []
    asked: Sequence[int] = range(len(wanted))
    if known:
        listed = list(zip(asked, known, strict=True))
        others = [(place, attr) for place, attr in listed if attr and not attr.is_inline]
        asked = [place for place, attr in listed if attr is None or attr.is_inline]

    def take(places: list[int], listing: meta_pb2.Listing) -> None:
        is_open = paths.files.is_open
        rows = columns.contents_in(listing, len(places))
        for index, (at, (error, seen, data)) in enumerate(zip(places, rows, strict=True)):
            place = asked[at]
            ino, generation, mode, size = seen
            if error is not None:
                found[place] = error
            elif data is not None and stat.S_ISREG(mode) and not is_open(ino, generation):
                found[place] = data if len(data) == size else data.ljust(size, b"\0")
            else:
                others.append((place, columns.packed_attr(listing, index)))

    named = [wanted[place] for place in asked]
    for at, error in (await _look(paths, named, INLINE_BYTES_MAX, take)).items():
        found[asked[at]] = error
    small: list[tuple[int, Attr]] = []
    alone: list[int] = []
    for place, attr in others:
        plain = attr.is_regular and paths.files.find(attr) is None and not attr.is_inline
        if plain and attr.size <= MESSAGE_DATA_BYTES_MAX and paths.connection.capability:
            small.append((place, attr))
        else:
            alone.append(place)
    wheres = [(Where.of(attr), attr.size) for _, attr in small]
    contents = await paths.connection.data.read_many(wheres)
    for (place, _), data in zip(small, contents, strict=True):
        found[place] = data
        if isinstance(data, FsError) and data.code is Code.STALE_DATA:
            alone.append(place)  # replaced or emptied since it was found

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
