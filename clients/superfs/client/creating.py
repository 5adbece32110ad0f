"""New files of one directory, made many at a time with their contents.

Small contents travel with the names (CreateMany). For larger ones numbers are reserved, the bytes
are written to the data daemons under them first, and the names come last: a file is seen whole or
not at all.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.client.data import Where
from superfs.client.file import OpenInode
from superfs.client.started import check
from superfs.core.attrs import PACKED_ATTR_BYTES, Attr, Set
from superfs.core.errors import Code, FsError
from superfs.core.ids import FIRST_DATA_GENERATION
from superfs.core.layout import assign_chains
from superfs.core.limits import (
    CHAINS_PER_FILE_MAX,
    CHUNK_BYTES,
    INLINE_BYTES_MAX,
    MESSAGE_DATA_BYTES_MAX,
)
from superfs.core.namespace.outcome import Entry
from superfs.core.namespace.txn import Ref
from superfs.rpc.pending import gather

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from superfs.client.connection import Connection

ENTRIES_A_CALL = 512

Contents = bytes | bytearray | memoryview


@dataclass(slots=True)
class FileSpec:
    """`attr`: mode, owner, times and size as they are to be (ino 0). `data`: contents, or the
    target of a symlink. `written`: the data lies at the data daemons already, where attr says."""

    name: bytes
    attr: Attr
    data: Contents = b""
    written: bool = False


def new_attr(mode: int, uid: int, gid: int) -> Attr:
    """Times 0 are the server's now."""
    return Attr(0, 0, 0, mode, 1, uid, gid)


def is_small(spec: FileSpec) -> bool:
    return not spec.written and (not spec.attr.is_regular or len(spec.data) <= INLINE_BYTES_MAX)


async def create_files(
    connection: Connection, parent: Ref, specs: Sequence[FileSpec], *, replace: bool
) -> list[Entry]:
    """In the order of `specs`; each entry says what became of it."""
    larger = [s for s in specs if not (s.written or is_small(s))]
    if not connection.capability and larger:
        return await _create_empty(connection, parent, specs, replace=replace)
    await _write_larger(connection, parent, larger)
    answers = await gather(
        [_create(connection, parent, batch, replace) for batch in _batches(specs)]
    )
    return [entry for answer in answers for entry in answer]


async def _create_empty(
    connection: Connection, parent: Ref, specs: Sequence[FileSpec], *, replace: bool
) -> list[Entry]:
    made = [spec if is_small(spec) else _emptied(spec.name, spec.attr) for spec in specs]
    entries = await create_files(connection, parent, made, replace=replace)
    for spec, entry in zip(specs, entries, strict=True):
        if not is_small(spec) and entry.code is Code.OK:
            try:
                await fill(connection, entry, spec.attr, [(0, spec.data)])
            except FsError as error:
                entry.code = error.code
    return entries


def _emptied(name: bytes, attr: Attr) -> FileSpec:
    """The same file without contents, which its owner may write."""
    empty = attr.copy()
    empty.size = 0
    empty.mode |= stat.S_IWUSR
    return FileSpec(name, empty)


async def fill(
    connection: Connection, entry: Entry, wanted: Attr, pieces: Iterable[tuple[int, Contents]]
) -> None:
    """Writes a new, empty file and gives it size, mode and times of `wanted`."""
    attr = entry.attr
    assert attr is not None
    ref = Ref(attr.ino, attr.generation, attr.place)
    opened = await connection.meta.open(ref, write=True)
    assert opened.attr is not None
    inode = OpenInode(connection, opened.attr, capability=opened.capability)
    try:
        for offset, data in pieces:
            await inode.write(offset, data)
        await inode.truncate(wanted.size)
        entry.attr = await inode.setattr(
            Set.MODE | Set.ATIME | Set.MTIME,
            mode=stat.S_IMODE(wanted.mode),
            atime_ns=wanted.atime_ns or opened.attr.atime_ns,
            mtime_ns=wanted.mtime_ns or inode.attr.mtime_ns,
        )
    except (FsError, OSError):
        await inode.abandon(lambda: True)
        await connection.meta.release([ref])
        raise
    await connection.meta.release([ref])


async def _write_larger(connection: Connection, parent: Ref, specs: Sequence[FileSpec]) -> None:
    if not specs:
        return
    await place_data(connection, parent, specs)
    answers = await connection.data.start_write_many(
        (Where.of(spec.attr), 0, spec.data) for spec in specs
    )
    for answer in answers:
        check(await answer)


async def place_data(connection: Connection, parent: Ref, specs: Sequence[FileSpec]) -> None:
    """Gives each file a number, a data generation and chains, under which it can be written."""
    first = (await connection.meta.reserve(parent, len(specs))).number
    available = connection.map.chain_ids
    for number, spec in enumerate(specs, first):
        attr = spec.attr
        width = 1 if attr.size <= CHUNK_BYTES else CHAINS_PER_FILE_MAX
        attr.ino = number
        attr.data_generation = FIRST_DATA_GENERATION
        attr.chains = assign_chains(available, number, width)
        spec.written = True


async def _create(
    connection: Connection, parent: Ref, specs: Sequence[FileSpec], replace: bool
) -> list[Entry]:
    entries = [
        Entry(
            spec.name,
            ino=spec.attr.ino,
            attr=spec.attr,
            inline=None if spec.written else bytes(spec.data),
        )
        for spec in specs
    ]
    return (await connection.meta.create_many(parent, entries, replace=replace)).entries


def _batches(specs: Sequence[FileSpec]) -> Iterator[list[FileSpec]]:
    batch: list[FileSpec] = []
    size = 0
    for spec in specs:
        needs = PACKED_ATTR_BYTES + len(spec.name) + (0 if spec.written else len(spec.data))
        if batch and (len(batch) >= ENTRIES_A_CALL or size + needs > MESSAGE_DATA_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(spec)
        size += needs
    if batch:
        yield batch
