"""Chains in parts that fit in one message, and what came of the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.limits import KV_KEYS_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.rpc.kvbytes import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.v1 import kvcache_pb2 as pb


def cut(started: pb.KvPlaces, mine: list[int], views: list[memoryview]) -> Iterator[Piece]:
    for n in mine:
        yield from pieces(started.puts[n], 0, views[n])


def pieces(put: int, offset: int, data: memoryview) -> Iterator[Piece]:
    for at in range(0, len(data), MESSAGE_DATA_BYTES_MAX):
        yield Piece(put, 0, offset + at, data[at : at + MESSAGE_DATA_BYTES_MAX])


def parts_of(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for at in range(0, len(keys), KV_KEYS_MAX):
        yield keys[at : at + KV_KEYS_MAX]


def prefix_of(good: Sequence[bool]) -> int:
    return good.index(False) if False in good else len(good)


def bad_of(good: Sequence[bool]) -> list[int]:
    return [n for n, right in enumerate(good) if not right]
