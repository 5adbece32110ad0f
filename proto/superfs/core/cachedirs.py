"""Bounded cache directories: what can be set on a directory, and which files never go. Pure.

The settings are the value of an extended attribute of the directory, as words in ASCII:

    superfs.cache         bytes=N policy=lru|lfu|s3-fifo ttl=SECONDS     (ttl=0: none)
    superfs.cache.usage   what the daemon answers about it; nobody sets that

Neither is listed, so that no copy of a tree becomes a cache by accident.
"""

from __future__ import annotations

from dataclasses import dataclass

from superfs.core.errors import Code, FsError
from superfs.core.limits import CACHE_BYTES_MAX, CACHE_TTL_S_MAX

CACHE_XATTR = b"superfs.cache"
USAGE_XATTR = b"superfs.cache.usage"
XATTRS = (CACHE_XATTR, USAGE_XATTR)
POLICIES = ("lru", "lfu", "s3-fifo")
_TEMPORARY_ENDS = (b".tmp", b".part")
_TEMPORARY_INFIX = b".tmp."


@dataclass(frozen=True, slots=True)
class CacheSettings:
    bytes_max: int
    policy: str = "lru"
    ttl_s: int = 0
    """After its last use; 0: for ever."""

    def __post_init__(self) -> None:
        if not 0 < self.bytes_max <= CACHE_BYTES_MAX:
            raise FsError(Code.INVALID, f"a cache of {self.bytes_max} bytes")
        if self.policy not in POLICIES:
            words = ", ".join(POLICIES)
            raise FsError(Code.INVALID, f"no policy {self.policy!r}; there are: {words}")
        if not 0 <= self.ttl_s <= CACHE_TTL_S_MAX:
            raise FsError(Code.INVALID, f"a ttl of {self.ttl_s} s")

    def pack(self) -> bytes:
        return b"bytes=%d policy=%s ttl=%d" % (self.bytes_max, self.policy.encode(), self.ttl_s)


def parse_settings(value: bytes) -> CacheSettings:
    """FsError INVALID for anything that `pack` would not write."""
    words = parse_words(value)
    if words.keys() != {"bytes", "policy", "ttl"}:
        raise FsError(Code.INVALID, f"not the settings of a cache: {value[:100]!r}")
    return CacheSettings(_number(words["bytes"]), words["policy"], _number(words["ttl"]))


def parse_words(value: bytes) -> dict[str, str]:
    pairs = [word.partition("=") for word in value.decode("ascii", "replace").split()]
    return {name: text for name, _, text in pairs}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise FsError(Code.INVALID, f"not a number: {text[:100]!r}")
    return int(text)


def is_temporary(name: bytes) -> bool:
    """Still being written, as programs do before they rename. It counts, and is never evicted."""
    return name.startswith(b".") or name.endswith(_TEMPORARY_ENDS) or _TEMPORARY_INFIX in name
