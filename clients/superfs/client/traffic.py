"""Messages and bytes between this process and each daemon, as they go over the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

M = TypeVar("M")


class Traffic:
    """Of one stream after the other to one daemon. Each direction is one thread's."""

    __slots__ = ("received", "received_bytes", "sent", "sent_bytes")

    def __init__(self) -> None:
        self.sent = self.sent_bytes = self.received = self.received_bytes = 0

    def sending(self, encode: Callable[[M], bytes]) -> Callable[[M], bytes]:
        def counted(message: M) -> bytes:
            data = encode(message)
            self.sent += 1
            self.sent_bytes += len(data)
            return data

        return counted

    def receiving(self, decode: Callable[[bytes], M]) -> Callable[[bytes], M]:
        def counted(data: bytes) -> M:
            self.received += 1
            self.received_bytes += len(data)
            return decode(data)

        return counted
