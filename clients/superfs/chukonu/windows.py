"""Window and WindowSpec: which rows a window function sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from superfs.chukonu import expressions as e
from superfs.chukonu.column import column

if TYPE_CHECKING:
    from superfs.chukonu.column import Column

_FAR = 1 << 31
"""Offsets beyond it mean unbounded, as in PySpark."""


def order_of(expr: e.Expr) -> e.Order:
    return expr if isinstance(expr, e.Order) else e.Order(expr)


@dataclass(frozen=True)
class WindowSpec:
    partition: tuple[e.Expr, ...] = ()
    order: tuple[e.Order, ...] = ()
    frame: tuple[str, int | None, int | None] | None = None

    def partitionBy(self, *columns: Column | str) -> WindowSpec:
        return replace(self, partition=tuple(column(c) for c in columns))

    def orderBy(self, *columns: Column | str) -> WindowSpec:
        return replace(self, order=tuple(order_of(column(c)) for c in columns))

    def rowsBetween(self, start: int, end: int) -> WindowSpec:
        return replace(self, frame=("rows", _bound(start), _bound(end)))

    def rangeBetween(self, start: int, end: int) -> WindowSpec:
        return replace(self, frame=("range", _bound(start), _bound(end)))


def _bound(offset: int) -> int | None:
    return None if abs(offset) >= _FAR else offset


class Window:
    unboundedPreceding = -(1 << 63)
    unboundedFollowing = (1 << 63) - 1
    currentRow = 0

    @staticmethod
    def partitionBy(*columns: Column | str) -> WindowSpec:
        return WindowSpec().partitionBy(*columns)

    @staticmethod
    def orderBy(*columns: Column | str) -> WindowSpec:
        return WindowSpec().orderBy(*columns)
