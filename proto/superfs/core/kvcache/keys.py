"""Keys of KVCache blocks: a chained hash of everything that a block's bytes depend on.

    seed        blake2b-128, person "superfs-kv-model", of the fingerprint's canonical form
                (behind it: the tenant's salt, hashed on its own)
    key of      blake2b-128, person "superfs-kv-block", of
    block i       key of block i - 1 (of block 0: the seed), 16 bytes
                  its tokens, 4 bytes each, little-endian
                  where it holds more than tokens: blake2b-128 of the extra (an image's hash)

Equal keys mean equal prefixes, whoever has made them: nothing here depends on the process, its
hash seed, the order of a dictionary, or the machine. Only full blocks have keys. Golden vectors:
tests/kvcache/test_keys.py; whoever changes a byte here makes every stored block useless.
"""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b

from superfs.core.errors import Code, FsError

KEY_BYTES = 16
BLOCK_TOKENS_MAX = 4096
EXTRA_BYTES_MAX = 4096
SALT_BYTES_MAX = 256
FINGERPRINT_BYTES_MAX = 64 * 1024

_MODEL = b"superfs-kv-model"
_BLOCK = b"superfs-kv-block"

Plain = None | bool | int | float | str | Sequence["Plain"] | Mapping[str, "Plain"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What must be equal for one process to use what another has computed."""

    weights: str  # hash of the weights, or whatever names them for ever
    dtype: str  # of the cache: "bfloat16"
    layers: int
    kv_heads: int
    head_dim: int
    block_tokens: int
    rope: Mapping[str, Plain] = field(default_factory=dict)
    shard: tuple[int, int, int, int] = (0, 1, 0, 1)  # tensor rank, of; pipeline rank, of
    lora: str = ""
    extra: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.block_tokens <= BLOCK_TOKENS_MAX:
            raise FsError(Code.INVALID, f"a block has from 1 to {BLOCK_TOKENS_MAX} tokens")
        if min(self.layers, self.kv_heads, self.head_dim) < 1:
            raise FsError(Code.INVALID, "layers, kv_heads and head_dim must be at least 1")

    def canonical(self) -> bytes:
        """INVALID for what has no one form: NaN, keys that are not text, unknown types."""
        plain = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
        if len(text) > FINGERPRINT_BYTES_MAX:
            raise FsError(
                Code.TOO_LARGE, f"a fingerprint has at most {FINGERPRINT_BYTES_MAX} bytes"
            )
        return text.encode("ascii")

    def digest(self) -> bytes:
        """Of the fingerprint alone: what the blocks of a namespace have in common."""
        return _hash(_MODEL, self.canonical())


def _plain(value: object) -> object:
    """The one form of a value: 10000.0 is 10000, a tuple is a list."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FsError(Code.INVALID, "a fingerprint has finite numbers only")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise FsError(Code.INVALID, "keys in a fingerprint are text")
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(inner) for inner in value]
    raise FsError(Code.INVALID, f"a fingerprint cannot hold a {type(value).__name__}")


class KeyChain:
    """Makes the keys of one model and one tenant."""

    def __init__(self, model: Fingerprint, salt: bytes = b"") -> None:
        if len(salt) > SALT_BYTES_MAX:
            raise FsError(Code.TOO_LARGE, f"a salt has at most {SALT_BYTES_MAX} bytes")
        self.model = model
        self.block_tokens = model.block_tokens
        self.layout = model.digest()
        self.seed = _hash(_MODEL, model.canonical() + _hash(_MODEL, salt)) if salt else self.layout

    def next(self, previous: bytes, tokens: Sequence[int], extra: bytes = b"") -> bytes:
        """Of one full block. `extra`: what it holds beside tokens, the same for the same input."""
        if len(tokens) != self.block_tokens or len(previous) != KEY_BYTES:
            raise FsError(Code.INVALID, f"a full block has {self.block_tokens} tokens")
        if len(extra) > EXTRA_BYTES_MAX:
            raise FsError(Code.TOO_LARGE, f"extras of a block have at most {EXTRA_BYTES_MAX} bytes")
        body = previous + token_bytes(tokens)
        return _hash(_BLOCK, body + _hash(_BLOCK, extra) if extra else body)

    def keys(self, tokens: Sequence[int], extras: Mapping[int, bytes] | None = None) -> list[bytes]:
        """Of all full blocks of a prompt; `extras` by block."""
        size, found, key = self.block_tokens, [], self.seed
        for number in range(len(tokens) // size):
            extra = extras.get(number, b"") if extras else b""
            key = self.next(key, tokens[number * size : (number + 1) * size], extra)
            found.append(key)
        return found


def token_bytes(tokens: Sequence[int]) -> bytes:
    try:
        numbers = array("I", tokens)
    except (OverflowError, TypeError):
        raise FsError(Code.INVALID, "tokens are integers of 32 bits, without sign") from None
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _hash(person: bytes, data: bytes) -> bytes:
    return blake2b(data, digest_size=KEY_BYTES, person=person).digest()


assert array("I").itemsize == 4
assert len(_MODEL) <= blake2b.PERSON_SIZE
assert len(_BLOCK) <= blake2b.PERSON_SIZE
