"""What a mount says of files that it has open for writing in a bounded cache directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from superfs.mount.nodes import Node
from superfs.mount.opens import OPEN_DELAY_S, Opens

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Ref

RELEASE_DELAY_S = 5.0


class Meta:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.counted = 0

    async def open(self, ref: Ref, *, write: bool = False) -> None:
        self.counted += 1
        self.said.append(f"open {ref.ino}{' to write' if write else ''}")

    async def release(self, refs: list[Ref]) -> None:
        self.counted -= len(refs)
        if not self.counted:
            self.said.append(f"release {refs[0].ino}")


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.meta = Meta()
        meta: Any = self.meta
        self.opens = Opens(meta, RELEASE_DELAY_S, lambda: self.now)
        self.node = Node(7, 7, 1, 3)

    def after(self, seconds: float) -> list[str]:
        self.now += seconds
        trio.run(self.opens.settle)
        said, self.meta.said = self.meta.said, []
        return said


def test_a_writer_is_told_as_one_and_let_go_at_once() -> None:
    world = World()
    world.opens.opened(world.node)
    world.opens.writing(world.node)
    assert world.after(OPEN_DELAY_S) == ["open 7 to write"]
    world.opens.closed(world.node)
    assert world.after(0.0) == ["release 7"]


def test_a_reader_that_writes_later_is_told_of_again_and_counted_once() -> None:
    world = World()
    world.opens.opened(world.node)
    assert world.after(OPEN_DELAY_S) == ["open 7"]
    world.opens.writing(world.node)
    world.opens.writing(world.node)
    assert world.after(OPEN_DELAY_S) == ["open 7 to write"]
    assert world.meta.counted == 1
    world.opens.closed(world.node)
    assert world.after(0.0) == ["release 7"]


def test_a_file_that_is_written_and_closed_quickly_is_not_told_of() -> None:
    world = World()
    world.opens.opened(world.node)
    world.opens.writing(world.node)
    world.opens.closed(world.node)
    assert world.after(10.0) == []


def test_readers_linger_as_ever() -> None:
    world = World()
    world.opens.opened(world.node)
    assert world.after(OPEN_DELAY_S) == ["open 7"]
    world.opens.closed(world.node)
    assert world.after(RELEASE_DELAY_S / 2) == []
    assert world.after(RELEASE_DELAY_S) == ["release 7"]
