"""The logical plan: what is wanted, with every column resolved and every expression typed.

A node's `output` are the columns that it gives, each known by its number. Narrow nodes look at
one partition at a time; `WIDE` ones need rows of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superfs.chukonu.expressions import Aggregate, Explode, Expr, Order, Over, Ref
    from superfs.chukonu.types import StructType


@dataclass(frozen=True)
class Node:
    @property
    def children(self) -> tuple[Node, ...]:
        child = getattr(self, "child", None)
        return () if child is None else (child,)

    @property
    def output(self) -> tuple[Ref, ...]:
        return self.children[0].output

    def over(self, *children: Node) -> Node:
        """The same on other children."""
        return replace(self, child=children[0]) if children else self  # type: ignore[call-arg]


@dataclass(frozen=True)
class Scan(Node):
    """Files. `source` (sources/) knows the format, the files and the options."""

    source: Any
    schema: StructType
    columns: tuple[Ref, ...]

    @property
    def output(self) -> tuple[Ref, ...]:
        return self.columns


@dataclass(frozen=True)
class Local(Node):
    """Rows that the program gave: a frame whose columns are the keys of `columns`."""

    frame: Any
    columns: tuple[Ref, ...]

    @property
    def output(self) -> tuple[Ref, ...]:
        return self.columns


@dataclass(frozen=True)
class Project(Node):
    child: Node
    columns: tuple[tuple[Ref, Expr], ...]

    @property
    def output(self) -> tuple[Ref, ...]:
        return tuple(ref for ref, _ in self.columns)


@dataclass(frozen=True)
class Filter(Node):
    """`reason`: what the rows that it drops are counted as."""

    child: Node
    condition: Expr
    reason: str = ""


@dataclass(frozen=True)
class Generate(Node):
    """A row for each element of an array, beside the columns of the child that are kept: of what
    nobody needs, the array first, no row gets a copy."""

    child: Node
    explode: Explode
    column: Ref
    kept: tuple[Ref, ...]

    @property
    def output(self) -> tuple[Ref, ...]:
        return (*self.kept, self.column)


@dataclass(frozen=True)
class MapBatches(Node):
    """mapInArrow: `run` takes an iterator of record batches and gives one."""

    child: Node
    run: Any
    columns: tuple[Ref, ...]

    @property
    def output(self) -> tuple[Ref, ...]:
        return self.columns


@dataclass(frozen=True)
class Sample(Node):
    child: Node
    fraction: float
    seed: int


@dataclass(frozen=True)
class Group(Node):
    child: Node
    keys: tuple[tuple[Ref, Expr], ...]
    values: tuple[tuple[Ref, Aggregate], ...]

    @property
    def output(self) -> tuple[Ref, ...]:
        return tuple(ref for ref, _ in (*self.keys, *self.values))


@dataclass(frozen=True)
class Distinct(Node):
    """One row for each value of `keys`: the first, in the order of files and of rows in them."""

    child: Node
    keys: tuple[Ref, ...]


@dataclass(frozen=True)
class Join(Node):
    left: Node
    right: Node
    how: str
    left_keys: tuple[Expr, ...]
    right_keys: tuple[Expr, ...]
    condition: Expr | None
    hint: str = ""

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    def over(self, *children: Node) -> Node:
        return replace(self, left=children[0], right=children[1])

    @property
    def output(self) -> tuple[Ref, ...]:
        if self.how in ("semi", "anti"):
            return self.left.output
        return (*self.left.output, *self.right.output)


@dataclass(frozen=True)
class Sort(Node):
    child: Node
    orders: tuple[Order, ...]


@dataclass(frozen=True)
class Limit(Node):
    child: Node
    count: int


@dataclass(frozen=True)
class Union(Node):
    inputs: tuple[Node, ...]
    columns: tuple[Ref, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        return self.inputs

    def over(self, *children: Node) -> Node:
        return replace(self, inputs=children)

    @property
    def output(self) -> tuple[Ref, ...]:
        return self.columns


@dataclass(frozen=True)
class Windowed(Node):
    child: Node
    columns: tuple[tuple[Ref, Over], ...]

    @property
    def output(self) -> tuple[Ref, ...]:
        return (*self.child.output, *(ref for ref, _ in self.columns))


@dataclass(frozen=True)
class Repartition(Node):
    child: Node
    count: int
    keys: tuple[Expr, ...] = ()


WIDE = (Group, Distinct, Join, Sort, Limit, Union, Windowed, Repartition)
