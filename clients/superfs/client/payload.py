"""A write whose bytes lie in shared memory: a request that decides at the last moment how it goes.

When it is about to be sent, and each time it is sent again, it names the place of its bytes if the
daemon of that moment has the memory, and else carries them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from superfs.client.wire import encode_write
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from superfs.client.data import Where


class Shares(Protocol):
    def shared_place(self, data: memoryview) -> tuple[int, int] | None:
        """(buffer, offset in it) by which the daemon knows these bytes; None: it does not."""


class Payload:
    __slots__ = (
        "_chunk", "_offset", "_promised", "_shares", "_tag", "_where", "by_place", "data",
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
    ) -> None:
        """`data` lies in shared memory, and does not change any more. `promised`: into room that
        was promised."""
        self._promised = promised
        self._shares = shares
        self._tag = tag
        self._where = where
        self._chunk = chunk
        self._offset = offset
        self.data = data
        self.by_place = False  # when it was sent last

    @property
    def has_place(self) -> bool:
        """Whether it would name the place now."""
        return self._shares.shared_place(self.data) is not None

    def encode(self) -> bytes:
        """A whole DataRequest."""
        where, place = self._where, self._shares.shared_place(self.data)
        self.by_place = place is not None
        if place is None:
            carried = encode_write(
                self._tag, where.ino, where.data_generation, self._chunk, self._offset, self.data
            )
            # Messages one behind the other are one message.
            more = data_pb2.DataRequest(promised=self._promised).SerializeToString()
            return carried + more
        shared = data_pb2.Shared(buffer=place[0], offset=place[1], length=len(self.data))
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
