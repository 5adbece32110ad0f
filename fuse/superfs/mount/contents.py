"""Contents of small files, whole, kept so that reading them again, or for the first time after they
were fetched with others, asks nobody.

What is kept says of which version of the inode it is. It is good exactly as long as the attributes
of the inode are: while their lease stands and they are of that version
(docs/decisions/0015-contents-fetched-ahead.md). So a recall has nothing to do here.

Bounded in bytes. First goes what was read longest ago: the kernel has that in its page cache. What
was fetched and not read yet goes only when there is nothing else.

Pure but for the callback of a reader who gets near the end of what was fetched.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.mount.ahead import Run
    from superfs.mount.nodes import Node

ENTRY_BYTES = 512
"""What one entry takes besides the contents."""


@dataclass(slots=True, eq=False)
class Whole:
    """The contents of one file in one version (Attr.change)."""

    node: Node
    generation: int
    change: int
    data: bytes
    run: Run | None = None  # for which it was fetched, as long as nobody has read it
    position: int = 0  # its file in the order of that directory

    @property
    def cost(self) -> int:
        return ENTRY_BYTES + len(self.data)


class SmallContents:
    """`bytes_max` 0: nothing is kept. `clock` moves with every change of contents that this mount
    makes without having the file open: what was asked for before is not kept."""

    def __init__(self, bytes_max: int, now: Callable[[], float]) -> None:
        self.bytes_max = bytes_max
        self.clock = 0
        self.hits = self.wasted = 0
        self.on_read: Callable[[Whole, Run], None] = _nobody
        """Told of the first read of what was fetched ahead."""
        self._now = now
        self._used: dict[Whole, None] = {}  # in the order of their last reads
        self._fresh: dict[Whole, None] = {}  # in the order they came
        self._used_bytes = self._fresh_bytes = 0
        self._changing = 0

    def __len__(self) -> int:
        return len(self._used) + len(self._fresh)

    @property
    def bytes_kept(self) -> int:
        return self._used_bytes + self._fresh_bytes

    @property
    def room(self) -> int:
        """For what is fetched ahead: bytes that nobody waits for."""
        return self.bytes_max - self._fresh_bytes

    def peek(self, node: Node, offset: int, size: int) -> bytes | None:
        """What a read answers; None: not known here."""
        whole = node.whole
        if whole is None or self._now() >= node.lease.until or node.gone:
            return None
        if node.file is not None and node.file.contents is not None:
            return None  # that knows what was written here
        attr = node.attr
        assert attr is not None, "a lease of attributes"
        if attr.change != whole.change or attr.generation != whole.generation:
            self.drop(node)
            return None
        self.hits += 1
        run = whole.run
        if run is None:
            del self._used[whole]
            self._used[whole] = None
        else:
            self._unlist(whole)
            whole.run = None
            self._used[whole] = None
            self._used_bytes += whole.cost
            self.on_read(whole, run)
        return whole.data[offset : offset + size]

    def keep(
        self,
        node: Node,
        change: int,
        data: bytes,
        asked: int,
        run: Run | None = None,
        position: int = 0,
    ) -> bool:
        """The contents of one version of it. `asked`: the clock when they were asked for. `run`:
        nobody has read them yet."""
        attr = node.attr
        if asked != self.clock or self._changing or attr is None or attr.change != change:
            return False
        if len(data) != attr.size:
            return False
        whole = Whole(node, attr.generation, change, data, run, position)
        if whole.cost > self.bytes_max:
            return False
        self.drop(node)
        node.whole = whole
        if run is None:
            self._used[whole] = None
            self._used_bytes += whole.cost
        else:
            self._fresh[whole] = None
            self._fresh_bytes += whole.cost
        while self.bytes_kept > self.bytes_max:
            self.drop(next(iter(self._used or self._fresh)).node)
        return node.whole is whole

    def oldest_unread(self) -> Whole | None:
        return next(iter(self._fresh), None)

    def has(self, node: Node) -> bool:
        """Whether there is no use in fetching it."""
        whole = node.whole
        return whole is not None and node.attr is not None and node.attr.change == whole.change

    def drop(self, node: Node) -> None:
        whole, node.whole = node.whole, None
        if whole is not None:
            self._unlist(whole)
            if whole.run is not None:
                self.wasted += 1
                whole.run.wasted += 1

    @contextmanager
    def changing(self, node: Node) -> Iterator[None]:
        """Around a change of the contents that does not go through the open file: others may see
        it before we have the answer."""
        self.drop(node)
        self._changing += 1
        try:
            yield
        finally:
            self._changing -= 1
            self.clock += 1

    def _unlist(self, whole: Whole) -> None:
        if whole in self._fresh:
            del self._fresh[whole]
            self._fresh_bytes -= whole.cost
        elif whole in self._used:
            del self._used[whole]
            self._used_bytes -= whole.cost


def _nobody(_whole: Whole, _run: Run) -> None:
    pass
