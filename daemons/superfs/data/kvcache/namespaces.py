"""The namespaces of a pool, and their file: what each was made with, once and for ever.

    {"next": 2, "namespaces": [{"number": 1, "name": "…", "layout": "…", "quota_bytes": 65536,
                                "policy": "lru"}], "crc32": "…"}

in `kvcache.json` of the state directory, replaced as a whole and synced. Numbers are never reused:
a record in the slab's map whose number is not here is nobody's.
"""

from __future__ import annotations

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


@dataclass(slots=True, eq=False)
class Place:
    """Where a block lies. Its room goes back when it is gone and nobody reads it any more."""

    at: int  # first granule
    granules: int
    length: int
    checksum: int = 0
    committed: bool = False
    readers: int = 0
    gone: bool = False


class Namespace:
    def __init__(self, made: Made, granule: int) -> None:
        self.made = made
        policy = make_policy(made.policy, made.quota_bytes, unit=granule)
        self.table: BlockTable[bytes] = BlockTable(policy, made.quota_bytes)
        self.places: dict[bytes, Place] = {}
        self.pins: dict[bytes, tuple[Block, float]] = {}  # until when
        self.pinned_bytes = 0
        self.evicted = self.asked = self.found = self.dropped = 0

    def committed(self, keys: list[bytes]) -> list[bytes]:
        """The longest prefix of them that can be read."""
        count = 0
        for key in keys:
            place = self.places.get(key)
            if place is None or not place.committed:
                break
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
