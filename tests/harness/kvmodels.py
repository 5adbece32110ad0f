"""The table and its policies once more, slowly and plainly: everything is looked for in lists."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Plain:
    key: int
    parent: int | None
    depth: int
    born: int
    last: int
    uses: int = 1
    pinned: bool = False
    heat: int = 0


@dataclass
class PlainTable:
    policy: str
    capacity: int
    leaf_first: bool
    blocks: dict[int, Plain] = field(default_factory=dict)
    now: int = 0
    small: list[int] = field(default_factory=list)
    main: list[int] = field(default_factory=list)
    ghost: list[int] = field(default_factory=list)

    def may_go(self, block: Plain) -> bool:
        leaf = not any(other.parent == block.key for other in self.blocks.values())
        return not block.pinned and (leaf or not self.leaf_first)

    def touch(self, key: int) -> None:
        self.now += 1
        block = self.blocks[key]
        block.last, block.uses, block.heat = self.now, block.uses + 1, min(3, block.heat + 1)

    def insert(self, key: int, parent: int | None, depth: int) -> None:
        self.now += 1
        self.blocks[key] = Plain(key, parent, depth, self.now, self.now)
        if key in self.ghost:
            self.ghost.remove(key)
            self.main.append(key)
        else:
            self.small.append(key)

    def evict(self) -> int | None:
        free = [block for block in self.blocks.values() if self.may_go(block)]
        if not free:
            return None
        if self.policy == "s3-fifo":
            key = self._s3_victim()
        else:
            rank = {
                "lru": lambda b: (b.last,),
                "lfu": lambda b: (b.uses, b.last),
                "length-aware": lambda b: (b.uses, -b.depth, b.last),
                "fifo": lambda b: (b.born,),
            }[self.policy]
            key = min(free, key=rank).key
        if key in self.small:
            self.ghost = [*self.ghost, key][-max(2, self.capacity) :]
        self.drop(key)
        return key

    def drop(self, key: int) -> None:
        del self.blocks[key]
        for line in (self.small, self.main):
            if key in line:
                line.remove(key)

    def _s3_victim(self) -> int:
        size = max(2, self.capacity)
        small_max = max(1, size // 10)
        tries = [self._small, self._main]
        if len(self.small) < small_max and self.main:
            tries = [self._main, self._small, self._main]
        for one in tries:
            key = one(size - small_max)
            if key is not None:
                return key
        raise AssertionError("something may go, and was not found")

    def _last_behind(self, key: int) -> int | None:
        """In whose stead what goes: down, as long as there is one way and nothing was used."""
        while not self.blocks[key].heat:
            if self.may_go(self.blocks[key]):
                return key
            behind = [b.key for b in self.blocks.values() if b.parent == key and self.leaf_first]
            if len(behind) != 1:
                return None
            (key,) = behind
        return None

    def _small(self, main_max: int) -> int | None:
        for key in list(self.small):
            leaf = self._last_behind(key)
            if leaf is not None:
                return leaf
            block = self.blocks[key]
            self.small.remove(key)
            has_children = any(b.parent == key for b in self.blocks.values()) and self.leaf_first
            if not block.heat and not has_children:
                self.small.append(key)
                continue
            block.heat = 0
            self.main.append(key)
            found = self._main(main_max) if len(self.main) > main_max else None
            if found is not None:
                return found
        return None

    def _main(self, main_max: int) -> int | None:
        for _ in range(4):
            for key in list(self.main):
                leaf = self._last_behind(key)
                if leaf is not None:
                    return leaf
                self.blocks[key].heat = max(0, self.blocks[key].heat - 1)
                self.main.remove(key)
                self.main.append(key)
        return None
