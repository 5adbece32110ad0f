"""What an S-worker and an R-worker agree on when they meet: the shape of the attention, and the
memory that they share.

    area    for each mini-batch: q [rows, heads * dim], k and v [rows, kv_heads * dim],
            o [rows, heads * dim], of the wire's type, each at a multiple of 64 bytes; then
            FILL_BYTES for keys and values of prompts, keys first
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB

Memory = Any
"""Of numpy: bytes, rows of bytes."""
Indices = Any
"""Of numpy: whole numbers."""

PAGE_TOKENS = 32
"""The same in kernel.c."""
ROWS_MAX = 4096
MINIS_MAX = 2
LAYERS_MAX = 1024
HEADS_MAX = 1024
HEAD_DIM_MAX = 512
LANES = 16
SLOTS_MAX = 65_536
TOKENS_MAX = 1 << 22
"""Of one sequence."""
TABLES_BYTES_MAX = 256 * MIB
FILL_BYTES = 4 * MIB
ALIGNED = 64

WIRES = {"float32": 4, "bfloat16": 2, "float16": 2}
STORAGES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
"""With their sizes; in the order of kernel.c."""


@dataclass(frozen=True, slots=True)
class Form:
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    wire: str  # type of q, k, v and o
    storage: str  # of what is kept

    def check(self) -> None:
        """INVALID: what an R-worker cannot hold, with the field."""
        limits = {"layers": LAYERS_MAX, "heads": HEADS_MAX, "kv_heads": HEADS_MAX}
        for name, most in limits.items():
            if not 1 <= getattr(self, name) <= most:
                raise FsError(Code.INVALID, f"{name} must be from 1 to {most}")
        if not LANES <= self.head_dim <= HEAD_DIM_MAX or self.head_dim % LANES:
            raise FsError(
                Code.NOT_SUPPORTED,
                f"heads of {self.head_dim}: a multiple of {LANES} up to {HEAD_DIM_MAX} is needed",
            )
        if self.heads % self.kv_heads:
            raise FsError(Code.INVALID, "heads must be a multiple of kv_heads")
        if self.wire not in WIRES or self.storage not in STORAGES:
            raise FsError(
                Code.NOT_SUPPORTED,
                f"wire {self.wire!r}, storage {self.storage!r}: there are {', '.join(WIRES)}, and "
                "int8 for storage",
            )
        if not 0 < self.scale < 1e6:
            raise FsError(Code.INVALID, f"a scale of {self.scale}")

    @property
    def wire_bytes(self) -> int:
        return WIRES[self.wire]

    @property
    def query_bytes(self) -> int:
        """Of one row of q, or of o."""
        return self.heads * self.head_dim * self.wire_bytes

    @property
    def key_bytes(self) -> int:
        """Of one row of k, or of v."""
        return self.kv_heads * self.head_dim * self.wire_bytes

    @property
    def head_bytes(self) -> int:
        """Of one head in one page: keys, values, scales."""
        scales = 2 * 4 * PAGE_TOKENS if self.storage == "int8" else 0
        return 2 * self.head_dim * PAGE_TOKENS * STORAGES[self.storage] + scales

    @property
    def page_bytes(self) -> int:
        """Of one page in one layer."""
        return self.kv_heads * self.head_bytes

    @property
    def page_bytes_total(self) -> int:
        """In all layers."""
        return self.layers * self.page_bytes


@dataclass(frozen=True, slots=True)
class Area:
    """Where everything lies in the memory that both share."""

    form: Form
    rows: int  # of a mini-batch, at most
    minis: int

    def check(self) -> None:
        if not 1 <= self.rows <= ROWS_MAX or not 1 <= self.minis <= MINIS_MAX:
            raise FsError(
                Code.INVALID, f"{self.rows} rows in {self.minis} mini-batches: up to {ROWS_MAX} in "
                f"up to {MINIS_MAX}",
            )  # fmt: skip

    @property
    def _widths(self) -> tuple[int, int, int, int]:
        form = self.form
        return form.query_bytes, form.key_bytes, form.key_bytes, form.query_bytes

    def offsets(self, mini: int) -> tuple[int, int, int, int]:
        """Of q, k, v and o."""
        sizes = [_aligned(self.rows * width) for width in self._widths]
        start = mini * sum(sizes)
        return start, start + sizes[0], start + sum(sizes[:2]), start + sum(sizes[:3])

    def views(self, memory: Memory, mini: int, count: int) -> list[Memory]:
        """q, k, v and o of its first `count` rows, as [rows, bytes]."""
        return [
            memory[at : at + count * width].reshape(count, width)
            for at, width in zip(self.offsets(mini), self._widths, strict=True)
        ]

    @property
    def fill_offset(self) -> int:
        return self.offsets(self.minis)[0]

    @property
    def fill_tokens(self) -> int:
        """That fit at a time."""
        return FILL_BYTES // (2 * self.form.key_bytes)

    @property
    def size(self) -> int:
        return self.fill_offset + FILL_BYTES


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


assert MINIS_MAX * ROWS_MAX * 4 <= FILL_BYTES
assert 2 * HEADS_MAX * HEAD_DIM_MAX * 4 <= FILL_BYTES, "one token of a prompt fits"
