"""Which blocks are resident, and which of them goes when there is no room: pure bookkeeping.

A block's parent is the block before it in its prefix. A policy only ranks; this table says what may
be evicted at all:

* `leaf_first` (the pool): blocks without children, that nobody pins. So no resident block is
  without its parent, and what is resident of a chain is always a prefix of it.
* `reference` (the simulations of the literature): every block that nobody pins, parents or not.

Time is logical: every insert and every touch is one tick. The table knows no bytes, only sizes.

There may be tens of millions of blocks, so what is known of them is in columns, a row for each; a
`Block` is a row's number in disguise, made when somebody asks. What has left the table can be
looked at until the next insert, which may take its row.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING

from superfs.core.kvcache.digests import NONE, DigestIndex, grow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from superfs.core.kvcache.policy import Policy

FREE, KEPT, EVICTABLE = 0, 1, 2


class Block:
    """A row of a table, as long as it is resident."""

    __slots__ = ("row", "table")

    def __init__(self, table: BlockTable, row: int) -> None:
        self.table = table
        self.row = row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and (self.row, self.table) == (other.row, other.table)

    def __hash__(self) -> int:
        return hash((id(self.table), self.row))

    @property
    def key(self) -> bytes:
        return self.table.index.key(self.row)

    @property
    def parent(self) -> Block | None:
        row = self.table.parent[self.row]
        return Block(self.table, row) if row != NONE else None

    @property
    def depth(self) -> int:
        return self.table.depth[self.row]

    @property
    def size(self) -> int:
        return self.table.size[self.row]

    @property
    def born(self) -> int:
        return self.table.born[self.row]

    @property
    def last(self) -> int:
        return self.table.last[self.row]

    @property
    def uses(self) -> int:
        return self.table.uses[self.row]

    @property
    def evictable(self) -> bool:
        return self.table.state[self.row] == EVICTABLE


class Blocks(Mapping[bytes, Block]):
    """The resident ones by key."""

    def __init__(self, table: BlockTable) -> None:
        self._table = table

    def __getitem__(self, key: bytes) -> Block:
        row = self._table.index.find(key)
        if row < 0:
            raise KeyError(key)
        return Block(self._table, row)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self._table.index.find(key) >= 0

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[bytes]:
        return (self._table.index.key(row) for row in self._table.rows())


class BlockTable:
    """Columns are for policies, which may change `uses`, and for those who keep columns beside."""

    def __init__(self, policy: Policy, capacity: int, *, leaf_first: bool = True) -> None:
        self.policy = policy
        self.capacity = capacity
        self.leaf_first = leaf_first
        self.used = 0
        self.now = 0
        self.index = DigestIndex()
        self.blocks = Blocks(self)
        self.state = array("B")
        self.parent = array("i")
        self.child = array("i")  # the newest one; the others behind it
        self.older = array("i")  # siblings
        self.newer = array("i")
        self.depth = array("I")
        self.size = array("I")
        self.pins = array("I")
        self.uses = array("I")
        self.born = array("Q")
        self.last = array("Q")
        policy.use(self)

    def __len__(self) -> int:
        return len(self.index)

    def rows(self) -> Iterator[int]:
        state = self.state
        return (row for row in range(self.index.rows) if state[row] != FREE)

    def match(self, keys: Iterable[bytes]) -> int:
        """How many of them, from the first on, are resident. Changes nothing."""
        found, find = 0, self.index.find
        for key in keys:
            if find(key) < 0:
                break
            found += 1
        return found

    def ends(self, keys: Sequence[bytes], count: int) -> bool:
        """Whether the first `count` of these are resident, each right behind the one before it."""
        row, key, parent = self.index.find(keys[count - 1]), self.index.key, self.parent
        first = row - count + 1
        if (
            first >= 0
            and self.index.keys(first, count) == b"".join(keys[:count])
            and parent[first + 1 : row + 1] == array("i", range(first, row))
        ):
            return True  # stored in one go: as most are
        for n in range(count - 1, -1, -1):
            if row == NONE or key(row) != keys[n]:
                return False
            row = parent[row]
        return True

    def touch(self, block: Block) -> None:
        """It was used."""
        row = block.row
        self.now += 1
        self.last[row] = self.now
        self.uses[row] += 1
        self.policy.touched(row)
        if self.state[row] == EVICTABLE:
            self.policy.offer(row)

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
        row = self.policy.victim()
        if row == NONE:
            return None
        assert self.state[row] == EVICTABLE
        self._leave(row, evicted=True)
        return Block(self, row)

    def insert(
        self, key: bytes, parent: Block | None, size: int, *, depth: int | None = None
    ) -> Block:
        """A new block, pinned once: `unpin` it when it is complete. There is room for it."""
        assert self.index.find(key) < 0
        assert self.fits(size)
        self.now += 1
        row = self.index.add(key)
        grow(
            self.index.rows, self.state, self.parent, self.child, self.older, self.newer,
            self.depth, self.size, self.pins, self.uses, self.born, self.last,
        )  # fmt: skip
        self.state[row] = KEPT
        self.child[row] = self.older[row] = self.newer[row] = NONE
        self.size[row] = size
        self.pins[row] = self.uses[row] = 1
        self.born[row] = self.last[row] = self.now
        self.used += size
        if parent is None:
            self.parent[row], self.depth[row] = NONE, depth or 0
        else:
            self._behind(row, parent.row)
            self.depth[row] = self.depth[parent.row] + 1 if depth is None else depth
            self._review(parent.row)
        self.policy.inserted(row)
        return Block(self, row)

    def restore(self, block: Block, born: int, last: int, uses: int) -> None:
        """What is known of a block that was inserted just now, from before a start."""
        row = block.row
        self.born[row], self.last[row], self.uses[row] = born, last, uses

    def pin(self, block: Block) -> None:
        self.pins[block.row] += 1
        self._review(block.row)

    def unpin(self, block: Block) -> None:
        assert self.pins[block.row] > 0
        self.pins[block.row] -= 1
        self._review(block.row)

    def remove(self, block: Block) -> list[Block]:
        """It and everything behind it, children first; pinned or not."""
        gone: list[int] = []
        waiting = [block.row]
        while waiting:
            row = waiting.pop()
            gone.append(row)
            waiting.extend(self.children(row))
        gone.reverse()
        for row in gone:
            self._leave(row, evicted=False)
        return [Block(self, row) for row in gone]

    def chain(self, block: Block) -> list[Block]:
        """From the first block of its prefix to itself."""
        found = [block]
        while (parent := found[-1].parent) is not None:
            found.append(parent)
        found.reverse()
        return found

    def resident(self, keys: Sequence[bytes]) -> list[Block]:
        """The blocks of the longest resident prefix."""
        return [self.blocks[key] for key in keys[: self.match(keys)]]

    def roots(self) -> list[Block]:
        """Those that have none before them."""
        return [Block(self, row) for row in self.rows() if self.parent[row] == NONE]

    def children(self, row: int) -> Iterator[int]:
        row = self.child[row]
        while row != NONE:
            yield row
            row = self.older[row]

    # ---- inside

    def _behind(self, row: int, parent: int) -> None:
        self.parent[row] = parent
        first = self.child[parent]
        if first != NONE:
            self.older[row] = first
            self.newer[first] = row
        self.child[parent] = row

    def _leave(self, row: int, *, evicted: bool) -> None:
        self.used -= self.size[row]
        if self.state[row] == EVICTABLE:
            self.policy.withdraw(row)
        self.state[row] = FREE
        self.policy.removed(row, evicted=evicted)
        parent, older, newer = self.parent[row], self.older[row], self.newer[row]
        if older != NONE:
            self.newer[older] = newer
        if newer != NONE:
            self.older[newer] = older
        elif parent != NONE:
            self.child[parent] = older
        self.index.remove(row)
        if parent != NONE:
            self._review(parent)

    def _review(self, row: int) -> None:
        """Whether it may be evicted now."""
        may = not self.pins[row] and not (self.leaf_first and self.child[row] != NONE)
        if may != (self.state[row] == EVICTABLE):
            self.state[row] = EVICTABLE if may else KEPT
            if may:
                self.policy.offer(row)
            else:
                self.policy.withdraw(row)
