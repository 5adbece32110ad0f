"""The R-part: keys and values of the sequences of one S-worker, in pages, and attention over them.

A sequence has a slot, which the S-worker chooses, and pages that are taken as it grows. Memory is a
mapping of its own whose pages the kernel of the operating system gives when they are first written.
"""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.kvcache.fastdecode.form import (
    PAGE_TOKENS,
    SLOTS_MAX,
    TABLES_BYTES_MAX,
    TOKENS_MAX,
    Form,
    Indices,
    Memory,
)
from superfs.kvcache.fastdecode.kernel import Kernel, Rows, kernel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


MEMINFO = Path("/proc/meminfo")
ALONE_BYTES = MIB
"""So little is attended sooner than other threads have woken up."""


class Cache:
    def __init__(
        self, form: Form, memory_bytes: int, slots: int, tokens_max: int, *,
        threads: int = 1, kernel: Kernel | None = None,
    ) -> None:  # fmt: skip
        """`tokens_max`: of one sequence. NO_SPACE: the machine has not so much memory."""
        form.check()
        if not 1 <= slots <= SLOTS_MAX or not 1 <= tokens_max <= TOKENS_MAX:
            raise FsError(
                Code.INVALID, f"{slots} sequences of {tokens_max} tokens: up to {SLOTS_MAX} of up "
                f"to {TOKENS_MAX}",
            )  # fmt: skip
        columns = -(-tokens_max // PAGE_TOKENS)
        if slots * columns * 4 > TABLES_BYTES_MAX:
            raise FsError(Code.INVALID, f"{slots} sequences of {tokens_max} tokens are too many")
        self.form = form
        self.tokens_max = tokens_max
        self.pages = memory_bytes // form.page_bytes_total
        if not self.pages:
            raise FsError(Code.NO_SPACE, f"{memory_bytes} bytes have no room for one page")
        _check_memory(self.pages * form.page_bytes_total)
        self._kernel = kernel or kernel_of(form)
        self._map = mmap.mmap(-1, self.pages * form.page_bytes_total)
        self._map.madvise(mmap.MADV_HUGEPAGE)
        self._pool = np.frombuffer(self._map, np.uint8).reshape(form.layers, -1)
        self._tables: Indices = np.zeros((slots, columns), np.int32)
        self._lengths: Indices = np.zeros(slots, np.int64)
        self._owned: list[list[int]] = [[] for _ in range(slots)]
        self._free = list(range(self.pages - 1, -1, -1))
        self._threads = threads
        self._workers = ThreadPoolExecutor(threads - 1, "attend") if threads > 1 else None

    def close(self) -> None:
        if self._workers is not None:
            self._workers.shutdown()
        del self._pool
        self._map.close()

    @property
    def kernel_name(self) -> str:
        return self._kernel.name

    @property
    def capacity_tokens(self) -> int:
        return self.pages * PAGE_TOKENS

    @property
    def pages_free(self) -> int:
        return len(self._free)

    def tokens(self, slot: int) -> int:
        return int(self._lengths[slot])

    # ---- what is kept

    def fill(self, slot: int, layer: int, first: int, count: int, k: Memory, v: Memory) -> None:
        """Tokens `first` to `first + count` of a sequence, of one layer; they are there when the
        last layer is. NO_SPACE: then nothing has changed."""
        self._known(slot, layer)
        if first < 0 or count < 1 or first + count > self.tokens_max:
            raise FsError(
                Code.INVALID, f"tokens {first} to {first + count} of at most {self.tokens_max}"
            )
        if first > self.tokens(slot):
            raise FsError(Code.INVALID, f"a gap before token {first}")
        self._reserve(slot, first + count)
        self._kernel.fill(self._pool, layer, self._tables[slot], first, count, k, v)
        if layer == self.form.layers - 1:
            self._lengths[slot] = first + count

    def restore(
        self, slot: int, first: int, count: int, block: Memory, right: Callable[[], bool]
    ) -> bool:
        """The next `count` tokens of a sequence, from a block of the KVCache pool, which for each
        layer has keys, then values, [kv_heads, count, head_dim] of the wire's type. They are there
        if it is `right`, which is asked when all of it was copied. NO_SPACE: nothing has
        changed."""
        self._known(slot, 0)
        if first != self.tokens(slot) or count < 1 or first + count > self.tokens_max:
            raise FsError(
                Code.INVALID, f"tokens {first} to {first + count} behind {self.tokens(slot)}, of "
                f"at most {self.tokens_max}",
            )  # fmt: skip
        self._reserve(slot, first + count)
        parts = block.reshape(self.form.layers, -1)
        layers = count_from()

        def copy() -> None:
            while (layer := next(layers)) < self.form.layers:
                table = self._tables[slot]
                self._kernel.restore(self._pool, layer, table, first, count, parts[layer])

        self._together(copy, alone=block.nbytes < ALONE_BYTES)
        if not right():
            return False
        self._lengths[slot] = first + count
        return True

    def free(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self._known(slot, 0)
            self._free += reversed(self._owned[slot])
            self._owned[slot] = []
            self._lengths[slot] = 0

    def _known(self, slot: int, layer: int) -> None:
        if not 0 <= slot < len(self._owned) or not 0 <= layer < self.form.layers:
            raise FsError(Code.INVALID, f"there is no slot {slot}, or no layer {layer}")

    def _reserve(self, slot: int, tokens: int) -> None:
        owned = self._owned[slot]
        more = -(-tokens // PAGE_TOKENS) - len(owned)
        if more > len(self._free):
            raise FsError(
                Code.NO_SPACE, f"{more} pages of {PAGE_TOKENS} tokens, and {len(self._free)} are "
                f"free of {self.pages}",
            )  # fmt: skip
        for _ in range(more):
            page = self._free.pop()
            self._tables[slot, len(owned)] = page
            owned.append(page)

    # ---- one step

    def step(self, slots: Indices) -> tuple[Rows, list[int]]:
        """A mini-batch: each of these sequences gets one token more. The rows that found no room
        for it are named; they are as before, and attend nothing."""
        if len(slots) and (slots.min() < 0 or slots.max() >= len(self._owned)):
            raise FsError(Code.INVALID, f"there is no slot {slots.max()}")
        if len(np.unique(slots)) != len(slots):
            raise FsError(Code.INVALID, "a sequence twice in one mini-batch")
        lengths: Indices = self._lengths[slots] + 1
        refused = []
        for row in np.flatnonzero(lengths % PAGE_TOKENS == 1).tolist():
            try:
                if lengths[row] > self.tokens_max:
                    raise FsError(Code.NO_SPACE, "the longest")
                self._reserve(int(slots[row]), int(lengths[row]))
            except FsError:
                refused.append(row)
        lengths[refused] = 0
        self._lengths[slots] = np.where(lengths > 0, lengths, self._lengths[slots])
        return Rows(slots, lengths), refused

    def attend(self, rows: Rows, layer: int, q: Memory, k: Memory, v: Memory, o: Memory) -> None:
        """Of one layer. q, k, v and o: [rows, bytes] of the wire's type."""
        self._known(0, layer)
        turns = self._kernel.turns()

        def work() -> None:
            self._kernel.rows(self._pool, layer, self._tables, rows, q, k, v, o, turns)

        token_bytes = self.form.page_bytes // PAGE_TOKENS
        self._together(work, alone=int(rows.lengths.sum()) * token_bytes < ALONE_BYTES)

    def _together(self, work: Callable[[], None], *, alone: bool) -> None:
        """By all threads, who take what is left one after the other."""
        if self._workers is None or alone:
            work()
            return
        others = [self._workers.submit(work) for _ in range(self._threads - 1)]
        try:
            work()
        finally:
            for other in others:
                if not other.cancel():
                    other.result()


def _check_memory(wanted: int) -> None:
    """Refusing is better than being killed when the pages are written."""
    for line in MEMINFO.read_text("ascii").splitlines():
        name, value = line.split(":")
        if name == "MemAvailable" and int(value.split()[0]) * 1024 < wanted:
            raise FsError(
                Code.NO_SPACE,
                f"{wanted // MIB} MiB for keys and values, and {value.strip()} are available",
            )
