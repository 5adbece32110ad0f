"""The namespaces of a pool, and their file: what each was made with, once and for ever.

    {"next": 2, "namespaces": [{"number": 1, "name": "…", "layout": "…", "quota_bytes": 65536,
                                "policy": "lru", "disk_bytes": -1}], "crc32": "…"}

in `kvcache.json` of the state directory, replaced as a whole and synced. Numbers are never reused:
a record in the slab's map whose number is not here is nobody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.policy import make_policy
from superfs.core.kvcache.table import BlockTable
from superfs.data.kvcache.places import Place, Places

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.core.kvcache.table import Block

FILE = "kvcache.json"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Made:
    number: int
    name: str
    layout: str  # hexadecimal
    quota_bytes: int
    policy: str
    disk_bytes: int = -1  # on disk; -1: as much as the disk tier has


class Shelf:
    """What a namespace has on disk: the same rules as in memory, in another table."""

    def __init__(self, policy: str, quota_bytes: int, granule: int) -> None:
        made = make_policy(policy, quota_bytes, unit=granule)
        self.table = BlockTable(made, quota_bytes)
        self.places = Places(self.table)
        self.evicted = 0


class Namespace:
    def __init__(self, made: Made, granule: int) -> None:
        self.made = made
        policy = make_policy(made.policy, made.quota_bytes, unit=granule)
        self.table = BlockTable(policy, made.quota_bytes)
        self.places = Places(self.table)
        self.shelf: Shelf | None = None  # None: nothing of it goes to disk
        self.promoting = asyncio.Lock()
        self.pins: dict[bytes, tuple[Block, float]] = {}  # until when
        self.pinned_bytes = 0
        self.evicted = self.asked = self.found = self.dropped = self.promoted = 0

    def on_disk(self, key: bytes) -> Place | None:
        return self.shelf.places[key] if self.shelved(key) and self.shelf is not None else None

    def shelved(self, key: bytes) -> bool:
        return self.shelf is not None and self.shelf.places.committed(key)

    def count(self) -> int:
        """Blocks that are in memory, on disk or in both."""
        if self.shelf is None:
            return len(self.table)
        return len(self.table) + sum(1 for key in self.shelf.places if key not in self.places)

    def stored(self, keys: list[bytes]) -> int:
        """How many of them, from the first on, can be read from memory or from disk. Of a chain
        that is a prefix, so its end is found by halving; what is before it is compared with the
        chain that the table knows, for nobody says that these are one."""
        low, high = 0, len(keys)
        if keys and self._readable(keys[-1]):
            low = high
        while low < high:
            middle = (low + high) // 2
            if self._readable(keys[middle]):
                low = middle + 1
            else:
                high = middle
        if low and not (self.table.ends(keys, low) or self._shelf_ends(keys, low)):
            low = 0
            while low < len(keys) and self._readable(keys[low]):
                low += 1
        return low

    def _readable(self, key: bytes) -> bool:
        return self.places.committed(key) or self.shelved(key)

    def _shelf_ends(self, keys: list[bytes], count: int) -> bool:
        return self.shelf is not None and self.shelf.table.ends(keys, count)

    def committed(self, keys: list[bytes]) -> list[bytes]:
        """The longest prefix of them that is in memory."""
        count, committed = 0, self.places.committed
        while count < len(keys) and committed(keys[count]):
            count += 1
        return keys[:count]


def load(state: Path) -> tuple[int, list[Made]]:
    """The next number, and what there is: nothing where there is no such file, or one that is
    damaged. Then what is cached is lost."""
    try:
        raw = json.loads((state / FILE).read_bytes())
        checksum = raw.pop("crc32")
        if checksum != _crc(raw):
            return 1, []
        return int(raw["next"]), [Made(**one) for one in raw["namespaces"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 1, []


def save(state: Path, following: int, made: list[Made]) -> None:
    raw: dict[str, object] = {"next": following, "namespaces": [asdict(one) for one in made]}
    body = json.dumps({**raw, "crc32": _crc(raw)}, indent=1).encode()
    new = state / f"{FILE}.new"
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        new.replace(state / FILE)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise FsError(Code.IO, f"{new}: {error.strerror}") from None


def check(name: str, layout: bytes) -> None:
    if NAME.fullmatch(name) is None:
        raise FsError(Code.INVALID, "a namespace has 1 to 64 of a-z 0-9 . _ -")
    if len(layout) != 16:
        raise FsError(Code.INVALID, "a layout has 16 bytes")


def _crc(raw: object) -> str:
    return f"{zlib.crc32(json.dumps(raw, sort_keys=True).encode()):08x}"
