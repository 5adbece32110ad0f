"""Locate: says where the bytes of chunks lie, to clients that read the segments themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core import extents
from superfs.core.errors import Code, FsError
from superfs.core.extents import Extent
from superfs.core.limits import CHUNKS_MAX, LOCATE_CHUNKS_MAX, LOCATE_EXTENTS_MAX
from superfs.data.keys import ChunkKey, FileKey
from superfs.data.store import check_place
from superfs.v1.data_pb2 import Locate, Located

if TYPE_CHECKING:
    from superfs.data.access import Access
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
        places, crcs = extents.pack(
            Extent(p.offset, p.length, p.segment, p.blob, p.blob_length, p.skip, p.crcs)
            for p in pieces
        )
        located.chunks.add(extents=places, crcs=crcs)
    return located
