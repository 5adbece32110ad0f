"""GroupedData: what comes between groupBy and the aggregates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.column import Column, column
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.plan import building
from superfs.chukonu.plan.analysis import resolve

if TYPE_CHECKING:
    from superfs.chukonu.frame import DataFrame


class GroupedData:
    def __init__(self, frame: DataFrame, keys: list[e.Expr]) -> None:
        self._frame = frame
        output = frame.plan.output
        self._keys = [resolve(key, output) for key in building.expanded(keys, output)]

    def agg(self, *exprs: Any) -> DataFrame:  # noqa: ANN401
        if len(exprs) == 1 and isinstance(exprs[0], dict):
            exprs = tuple(
                Column(e.Alias(_one(f, name), f"{f}({name})")) for name, f in exprs[0].items()
            )
        plan = self._frame.plan
        named = [self._by_alias(x.expr) for x in exprs]
        found = [building.titled(x, resolve(x, plan.output)) for x in named]
        node = building.aggregate(plan, self._keys, found)
        return self._frame._with(node)

    def _by_alias(self, expr: e.Expr) -> e.Expr:
        """Names that only a key has stand for the key."""
        known = {f.name.lower() for f in self._frame.plan.output}
        keys = {k.name.lower(): k.child for k in self._keys if isinstance(k, e.Alias)}
        if isinstance(expr, e.Name) and expr.text.lower() not in known:
            return keys.get(expr.text.lower(), expr)
        return expr.rebuild(self._by_alias)

    def count(self) -> DataFrame:
        return self.agg(Column(e.Alias(e.COUNT_ROWS, "count")))

    def _each(self, function: str, names: tuple[str, ...]) -> DataFrame:
        keyed = {r.number for key in self._keys for r in e.refs_of(key)}
        numeric = [
            f.name
            for f in self._frame.plan.output
            if f.dtype in t.NUMBERS and f.number not in keyed
        ]
        return self.agg(
            *(Column(e.Alias(_one(function, n), f"{function}({n})")) for n in names or numeric)
        )

    def sum(self, *names: str) -> DataFrame:
        return self._each("sum", names)

    def avg(self, *names: str) -> DataFrame:
        return self._each("avg", names)

    mean = avg

    def min(self, *names: str) -> DataFrame:
        return self._each("min", names)

    def max(self, *names: str) -> DataFrame:
        return self._each("max", names)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnsupportedError(f"GroupedData.{name}")


def _one(function: str, name: str) -> e.Expr:
    function = {"mean": "avg"}.get(function, function)
    if name == "*" and function == "count":
        return e.COUNT_ROWS
    return e.Aggregate(function, (column(name),))
