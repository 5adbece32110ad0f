"""A write whose bytes lie where the daemon has them too: a request that decides at the last moment
how it goes.

When it is about to be sent, and each time it is sent again, it names the place of its bytes if the
daemon of that moment has the memory or has lent the segment, and else carries them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from superfs.client.wire import encode_write
from superfs.core.errors import FsError
from superfs.core.limits import MESSAGE_DATA_BYTES_MAX
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from superfs.client.data import Where
    from superfs.client.lent import Placed


log = logging.getLogger("superfs.client")


class Shares(Protocol):
    def shared_place(self, data: memoryview) -> tuple[int, int] | None:
        """(buffer, offset in it) by which the daemon knows these bytes; None: it does not."""

    def lends(self, placed: Placed) -> bool:
        """Whether the daemon knows the segment that they lie in."""


class Payload:
    __slots__ = (
        "_chunk", "_drop_behind", "_offset", "_promised", "_shares", "_tag", "_where", "data",
        "way",
    )  # fmt: skip

    def __init__(
        self,
        shares: Shares,
        tag: int,
        where: Where,
        chunk: int,
        offset: int,
        data: memoryview,
        *,
        promised: bool = False,
        drop_behind: bool = False,
    ) -> None:
        """`data` lies in shared memory, and does not change any more. `promised`: into room that
        was promised. `drop_behind`: it need not stay in the daemon's page cache."""
        self._promised = promised
        self._drop_behind = drop_behind
        self._shares = shares
        self._tag = tag
        self._where = where
        self._chunk = chunk
        self._offset = offset
        self.data = data
        self.way = "grpc"  # when it was sent last

    @property
    def has_place(self) -> bool:
        """Whether it would name the place now."""
        return self._shares.shared_place(self.data) is not None

    def encode(self) -> bytes:
        """A whole DataRequest."""
        where, place = self._where, self._shares.shared_place(self.data)
        self.way = "grpc" if place is None else "memfd"
        if place is None:
            carried = encode_write(
                self._tag, where.ino, where.data_generation, self._chunk, self._offset, self.data
            )
            # Messages one behind the other are one message.
            more = data_pb2.DataRequest(promised=self._promised).SerializeToString()
            return carried + more
        shared = data_pb2.Shared(
            buffer=place[0], offset=place[1], length=len(self.data), drop_behind=self._drop_behind
        )
        write = data_pb2.Write(
            ino=where.ino,
            data_generation=where.data_generation,
            chunk=self._chunk,
            offset=self._offset,
            shared=shared,
        )
        return data_pb2.DataRequest(
            tag=self._tag, write=write, promised=self._promised
        ).SerializeToString()


class PlacedPayload(Payload):
    """Of bytes that lie in a segment that was lent. One write of them names the place, once."""

    __slots__ = ("_named", "_placed")

    def __init__(
        self, shares: Shares, tag: int, where: Where, chunk: int, offset: int, placed: Placed
    ) -> None:
        super().__init__(shares, tag, where, chunk, offset, memoryview(b""))
        self._placed = placed
        self._named = placed.claim()

    @property
    def has_place(self) -> bool:
        return self._named and self._shares.lends(self._placed)

    def encode(self) -> bytes:
        where, placed = self._where, self._placed
        self.way = "descriptor" if self.has_place else "grpc"
        if self.way == "grpc":
            return self._carried()
        write = data_pb2.Write(
            ino=where.ino,
            data_generation=where.data_generation,
            chunk=self._chunk,
            offset=self._offset,
            placed=data_pb2.Placed(
                segment=placed.segment.number,
                place=placed.place,
                length=placed.length,
                crcs=placed.crcs,
            ),
        )
        return data_pb2.DataRequest(tag=self._tag, write=write).SerializeToString()

    def _carried(self) -> bytes:
        where = self._where
        try:
            data = bytes(self._placed)
        except FsError as error:  # it is refused for having no body, and whoever waits is told
            log.error("inode %x: %s", where.ino, error)
            return data_pb2.DataRequest(tag=self._tag).SerializeToString()
        writes = [
            data_pb2.Write(
                ino=where.ino,
                data_generation=where.data_generation,
                chunk=self._chunk,
                offset=self._offset + at,
                data=data[at : at + MESSAGE_DATA_BYTES_MAX],
            )
            for at in range(0, len(data), MESSAGE_DATA_BYTES_MAX)
        ]
        many = data_pb2.WriteMany(writes=writes)
        return data_pb2.DataRequest(tag=self._tag, write_many=many).SerializeToString()
