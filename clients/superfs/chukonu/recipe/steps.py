"""The steps of a recipe: each is one method of a DataFrame, under its name.

A step is checked when the document is (`STEPS`), and applied when there is a DataFrame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu.errors import AnalysisException
from superfs.chukonu.recipe.document import RecipeError
from superfs.chukonu.recipe.formulas import formula

if TYPE_CHECKING:
    from superfs.chukonu.column import Column
    from superfs.chukonu.frame import DataFrame
    from superfs.chukonu.recipe.document import Item

Nested = Callable[[Any], Any]
Apply = Callable[[Any, Nested], Any]
"""(DataFrame, what makes a DataFrame of another input) -> DataFrame."""


@dataclass(frozen=True, slots=True)
class Step:
    item: Item
    run: Apply


def check_steps(item: Item, other: Callable[[Item], Any]) -> list[Step]:
    """`other` checks the second input of a step that has one."""
    found = []
    for one in item.sequence():
        step = one.mapping(optional=None)
        if len(step) != 1:
            raise one.error("must be one step with its name")
        ((name, inner),) = step.items()
        if name not in STEPS:
            raise inner.error(f"is no step; there are: {', '.join(STEPS)}")
        found.append(Step(inner, STEPS[name](inner, other)))
    return found


def apply(step: Step, frame: DataFrame, nested: Nested) -> DataFrame:
    try:
        found: DataFrame = step.run(frame, nested)
    except RecipeError:
        raise
    except (AnalysisException, TypeError, ValueError) as error:
        raise step.item.error(str(error)) from error
    return found


def _named(item: Item) -> dict[str, Column]:
    return {name: formula(one) for name, one in item.mapping(optional=None).items()}


def _columns(item: Item) -> list[Column]:
    """Formulas, and mappings of one name to its formula."""
    found: list[Column] = []
    for one in [item] if isinstance(item.value, str) else item.sequence():
        if isinstance(one.value, dict):
            found += [column.alias(name) for name, column in _named(one).items()]
        else:
            found.append(formula(one))
    return found


def _filter(item: Item, _: Any) -> Apply:  # noqa: ANN401
    if not isinstance(item.value, dict):
        test = formula(item)
        return lambda frame, _: frame.filter(test)
    found = item.mapping(["keep"], ["reason"])
    test = formula(found["keep"])
    if "reason" in found:
        test = test.alias(found["reason"].text())
    return lambda frame, _: frame.filter(test)


def _group(item: Item, _: Any) -> Apply:  # noqa: ANN401
    found = item.mapping(["agg"], ["by"])
    by = _columns(found["by"]) if "by" in found else []
    made = [column.alias(name) for name, column in _named(found["agg"]).items()]
    if not made:
        raise found["agg"].error("is empty")
    return lambda frame, _: frame.groupBy(*by).agg(*made)


def _sample(item: Item, _: Any) -> Apply:  # noqa: ANN401
    found = item.mapping(["fraction"], ["seed"])
    fraction = found["fraction"].number()
    if not 0 <= fraction <= 1:
        raise found["fraction"].error("must be from 0 to 1")
    seed = found["seed"].whole() if "seed" in found else 0
    return lambda frame, _: frame.sample(fraction=fraction, seed=seed)


def _repartition(item: Item, _: Any) -> Apply:  # noqa: ANN401
    if isinstance(item.value, int):
        alone = item.whole(1)
        return lambda frame, _: frame.repartition(alone)
    found = item.mapping(["count"], ["by"])
    count = found["count"].whole(1)
    by = _columns(found["by"]) if "by" in found else []
    return lambda frame, _: frame.repartition(count, *by)


def _join(item: Item, other: Callable[[Item], Any]) -> Apply:
    found = item.mapping(["with", "on"], ["how"])
    inner, on = other(found["with"]), found["on"].texts()
    how = found["how"].text() if "how" in found else "inner"
    return lambda frame, nested: frame.join(nested(inner), on, how)


def _union(item: Item, other: Callable[[Item], Any]) -> Apply:
    inner = other(item.mapping(["with"])["with"])
    return lambda frame, nested: frame.unionByName(nested(inner))


def _texts(method: str) -> Callable[[Item, Any], Apply]:
    """Methods that take names."""

    def check(item: Item, _: Any) -> Apply:  # noqa: ANN401
        names = item.texts()
        return lambda frame, _: getattr(frame, method)(*names)

    return check


def _names_of_rows(method: str) -> Callable[[Item, Any], Apply]:
    """Methods that take a list of names, or nothing for all columns."""

    def check(item: Item, _: Any) -> Apply:  # noqa: ANN401
        subset = None if item.value is None else item.texts()
        return lambda frame, _: getattr(frame, method)(subset=subset)

    return check


def _with(item: Item, _: Any) -> Apply:  # noqa: ANN401
    named = _named(item)
    return lambda frame, _: frame.withColumns(named)


def _renamed(item: Item, _: Any) -> Apply:  # noqa: ANN401
    names = {old: new.text() for old, new in item.mapping(optional=None).items()}
    return lambda frame, _: frame.withColumnsRenamed(names)


def _select(item: Item, _: Any) -> Apply:  # noqa: ANN401
    made = _columns(item)
    return lambda frame, _: frame.select(*made)


def _order(item: Item, _: Any) -> Apply:  # noqa: ANN401
    made = _columns(item)
    return lambda frame, _: frame.orderBy(*made)


def _limit(item: Item, _: Any) -> Apply:  # noqa: ANN401
    count = item.whole()
    return lambda frame, _: frame.limit(count)


STEPS: dict[str, Callable[[Item, Any], Apply]] = {
    "select": _select,
    "withColumns": _with,
    "withColumnsRenamed": _renamed,
    "drop": _texts("drop"),
    "filter": _filter,
    "dropna": _names_of_rows("dropna"),
    "dropDuplicates": _names_of_rows("dropDuplicates"),
    "groupBy": _group,
    "join": _join,
    "union": _union,
    "orderBy": _order,
    "limit": _limit,
    "sample": _sample,
    "repartition": _repartition,
}
