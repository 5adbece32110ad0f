"""Locate and LocateMany: say where the bytes of chunks and of small files lie, to clients that read
the segments themselves."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from superfs.core import extents
from superfs.core.errors import Code, FsError
from superfs.core.extents import Extent
from superfs.core.limits import (
    CHUNKS_MAX,
    LOCATE_CHUNKS_MAX,
    LOCATE_EXTENTS_MAX,
    LOCATE_FILES_MAX,
)
from superfs.data.keys import ChunkKey, FileKey
from superfs.data.store import check_place
from superfs.v1.data_pb2 import Locate, Located, LocatedMany, LocateMany

if TYPE_CHECKING:
    from superfs.data.access import Access
    from superfs.data.extentmap import Piece, Pieces
    from superfs.data.store import DataStore


def locate(store: DataStore, asked: Locate, access: Access) -> Located:
    """As of now, in the order of requests. The first chunks of those asked for: more of them, the
    fewer extents they have."""
    access.may_hold()
    if not 0 < len(asked.chunks) <= LOCATE_CHUNKS_MAX:
        raise FsError(Code.INVALID, f"from 1 to {LOCATE_CHUNKS_MAX} chunks in one request")
    check_place(asked.ino, asked.data_generation, 0, 0)
    file = FileKey(asked.ino, asked.data_generation)
    store.cuts.refuse_reaped(file)
    mark, value = store.marks.of(file)
    located = Located(mark=mark, value=value)
    count = 0
    for chunk in asked.chunks:
        assert chunk < CHUNKS_MAX, "32 bits on the wire"
        pieces = store.chunks.get(ChunkKey(*file, chunk))
        count += len(pieces)
        if count > LOCATE_EXTENTS_MAX and located.chunks:
            break
        if count > LOCATE_EXTENTS_MAX:
            located.chunks.add(scattered=True)
            break
        places, crcs = extents.pack(map(_extent, pieces))
        located.chunks.add(extents=places, crcs=crcs)
    return located


def locate_many(store: DataStore, asked: LocateMany, access: Access) -> LocatedMany:
    """As of now, in the order of requests."""
    access.may_hold()
    count, odd = divmod(len(asked.inos), _INO.size)
    if odd or len(asked.generations) != count * _GENERATION.size or count > LOCATE_FILES_MAX:
        raise FsError(Code.INVALID, f"at most {LOCATE_FILES_MAX} files, a data generation of each")
    counts: list[int] = []
    found: list[Extent] = []
    inos, generations = _INO.iter_unpack(asked.inos), _GENERATION.iter_unpack(asked.generations)
    for (ino,), (generation,) in zip(inos, generations, strict=True):
        pieces = _pieces(store, FileKey(ino, generation))
        if pieces is None or len(found) + len(pieces) > LOCATE_EXTENTS_MAX:
            counts.append(extents.NOT_SAID)
        else:
            counts.append(len(pieces))
            found += map(_extent, pieces)
    places, crcs = extents.pack(found)
    return LocatedMany(counts=struct.pack(f"<{count}I", *counts), extents=places, crcs=crcs)


_INO, _GENERATION = struct.Struct("<Q"), struct.Struct("<I")


def _pieces(store: DataStore, file: FileKey) -> Pieces | None:
    try:
        check_place(file.ino, file.generation, 0, 0)
        store.cuts.refuse_reaped(file)
    except FsError:
        return None
    return store.chunks.get(ChunkKey(*file, 0))


def _extent(piece: Piece) -> Extent:
    p = piece
    return Extent(p.offset, p.length, p.segment, p.blob, p.blob_length, p.skip, p.crcs)
