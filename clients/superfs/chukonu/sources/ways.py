"""The ways by which bytes came: descriptors that a data daemon of this host has passed, streams
from data daemons, answers of metadata daemons (small files lie there), a mount, another directory.

The client counts the first two for the whole process, so of two runs at a time each sees both's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.chukonu.sources.store import PAST_THE_MOUNT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from superfs.chukonu.sources.store import Store


class Ways:
    def __init__(self, stores: Iterable[Store]) -> None:
        self._stores = {store.identity: store for store in stores}
        self._before = {key: store.moved() for key, store in self._stores.items()}

    def split(self, ways: dict[str, int]) -> dict[str, int]:
        """What came past the mount, by its several ways."""
        found = dict(ways)
        rest = found.pop(PAST_THE_MOUNT, 0)
        for key, store in self._stores.items():
            before = self._before[key]
            for way, size in store.moved().items():
                part = min(rest, size - before[way])
                found[way] = found.get(way, 0) + part
                rest -= part
        if rest:
            found["metadata"] = rest
        return {way: size for way, size in found.items() if size}
