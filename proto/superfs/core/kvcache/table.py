"""Which blocks are resident, and which of them goes when there is no room: pure bookkeeping.

A block's parent is the block before it in its prefix. A policy only ranks; this table says what may
be evicted at all:

* `leaf_first` (the pool): blocks without children, that nobody pins. So no resident block is
  without its parent, and what is resident of a chain is always a prefix of it.
* `reference` (the simulations of the literature): every block that nobody pins, parents or not.

Time is logical: every insert and every touch is one tick. The table knows no bytes, only sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from superfs.core.kvcache.policy import Policy

K = TypeVar("K", bound="Hashable")

_NONE: set[Block] = set()  # of every leaf; never added to


class Block:
    """`stamp`, `order`, `heat` and `queue` are the policy's and its rankings'."""

    __slots__ = (
        "born", "children", "depth", "evictable", "heat", "key", "last", "order", "parent", "pins",
        "queue", "size", "stamp", "turn", "uses",
    )  # fmt: skip

    def __init__(self, key: object, parent: Block | None, depth: int, size: int, now: int) -> None:
        self.key = key
        self.parent = parent
        self.children = _NONE
        self.depth = depth
        self.size = size
        self.born = now
        self.last = now
        self.uses = 1
        self.turn = 0
        self.pins = 0
        self.evictable = False
        self.stamp = 0
        self.order = 0
        self.heat = 0
        self.queue = 0


class BlockTable(Generic[K]):
    def __init__(self, policy: Policy, capacity: int, *, leaf_first: bool = True) -> None:
        self.policy = policy
        self.capacity = capacity
        self.leaf_first = leaf_first
        self.used = 0
        self.blocks: dict[K, Block] = {}
        self.now = 0

    def __len__(self) -> int:
        return len(self.blocks)

    def match(self, keys: Iterable[K]) -> int:
        """How many of them, from the first on, are resident. Changes nothing."""
        found = 0
        for key in keys:
            if key not in self.blocks:
                break
            found += 1
        return found

    def touch(self, block: Block) -> None:
        """It was used."""
        self.now += 1
        block.last = self.now
        block.uses += 1
        self.policy.touched(block)
        if block.evictable:
            self.policy.offer(block)

    def make_room(self, size: int) -> Iterator[Block]:
        """Evicts until so much fits, or nothing more may go; yields what has left the table. Pin
        the parent of what is to come: it may be a leaf until then."""
        while self.used + size > self.capacity:
            block = self.evict()
            if block is None:
                return
            yield block

    def fits(self, size: int) -> bool:
        return self.used + size <= self.capacity

    def evict(self) -> Block | None:
        """The one that the policy would have go first."""
        block = self.policy.victim()
        if block is not None:
            assert block.evictable
            self._leave(block, evicted=True)
        return block

    def insert(self, key: K, parent: Block | None, size: int, *, depth: int | None = None) -> Block:
        """A new block, pinned once: `unpin` it when it is complete. There is room for it."""
        assert key not in self.blocks
        assert self.fits(size)
        self.now += 1
        if depth is None:
            depth = parent.depth + 1 if parent is not None else 0
        block = Block(key, parent, depth, size, self.now)
        block.pins = 1
        self.blocks[key] = block
        self.used += size
        if parent is not None:
            if parent.children is _NONE:
                parent.children = set()
            parent.children.add(block)
            self._review(parent)
        self.policy.inserted(block)
        return block

    def pin(self, block: Block) -> None:
        block.pins += 1
        self._review(block)

    def unpin(self, block: Block) -> None:
        assert block.pins > 0
        block.pins -= 1
        self._review(block)

    def remove(self, block: Block) -> list[Block]:
        """It and everything behind it, children first; pinned or not."""
        gone: list[Block] = []
        waiting = [block]
        while waiting:
            one = waiting.pop()
            gone.append(one)
            waiting.extend(one.children)
        gone.reverse()
        for one in gone:
            self._leave(one, evicted=False)
        return gone

    def chain(self, block: Block) -> list[Block]:
        """From the first block of its prefix to itself."""
        found = [block]
        while (parent := found[-1].parent) is not None:
            found.append(parent)
        found.reverse()
        return found

    def resident(self, keys: Sequence[K]) -> list[Block]:
        """The blocks of the longest resident prefix."""
        return [self.blocks[key] for key in keys[: self.match(keys)]]

    def _leave(self, block: Block, *, evicted: bool) -> None:
        del self.blocks[block.key]  # type: ignore[arg-type]
        self.used -= block.size
        block.evictable = False
        self.policy.removed(block, evicted=evicted)
        parent = block.parent
        if parent is not None:
            parent.children.discard(block)
            if not parent.children:
                parent.children = _NONE
            self._review(parent)

    def _review(self, block: Block) -> None:
        """Whether it may be evicted now."""
        may = not block.pins and not (self.leaf_first and block.children)
        if may != block.evictable:
            block.evictable = may
            if may:
                self.policy.offer(block)
