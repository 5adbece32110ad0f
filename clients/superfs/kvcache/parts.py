"""Chains in parts that fit in one message, and what came of the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.limits import KV_KEYS_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.v1 import kvcache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def cut(started: pb.KvPlaces, mine: list[int], views: list[memoryview]) -> Iterator[pb.KvBytes]:
    for n in mine:
        for at in range(0, len(views[n]), MESSAGE_DATA_BYTES_MAX):
            data = bytes(views[n][at : at + MESSAGE_DATA_BYTES_MAX])
            yield pb.KvBytes(put=started.puts[n], offset=at, data=data)


def parts_of(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for at in range(0, len(keys), KV_KEYS_MAX):
        yield keys[at : at + KV_KEYS_MAX]


def prefix_of(good: Sequence[bool]) -> int:
    return good.index(False) if False in good else len(good)


def bad_of(good: Sequence[bool]) -> list[int]:
    return [n for n, right in enumerate(good) if not right]
