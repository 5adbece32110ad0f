"""From what a program asks for to nodes of the plan. Wide nodes get columns only: what they group,
order or join by is computed by a projection below them, where a fault is found in its row."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.catalog.base import cast_to
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.naming import name_of
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.analysis import condition, forbid, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Named = tuple[e.Ref, e.Expr]


def named(expr: e.Expr, name: str | None = None) -> Named:
    """An expression and the column that it becomes; a column alone stays itself."""
    bare = expr.child if isinstance(expr, e.Alias) else expr
    text = name or name_of(expr)
    if isinstance(bare, e.Ref) and bare.name == text and not isinstance(expr, e.Alias):
        return bare, bare
    return e.new_ref(text, e.dtype_of(bare)), bare


def expanded(exprs: Sequence[e.Expr], fields: Sequence[e.Ref]) -> list[e.Expr]:
    found: list[e.Expr] = []
    for expr in exprs:
        if isinstance(expr, e.Star):
            found += fields
        elif isinstance(expr, e.Name) and expr.text.endswith(".*"):
            raise UnsupportedError(f"select of {expr.text}")
        else:
            found.append(expr)
    return found


def select(child: p.Node, exprs: Sequence[e.Expr]) -> p.Node:
    resolved = [titled(expr, resolve(expr, child.output)) for expr in expanded(exprs, child.output)]
    outside = [part for expr in resolved for part in _outside_windows(expr)]
    if any(isinstance(part, e.Aggregate) for part in outside):
        return aggregate(child, [], resolved)
    child, resolved = _generated(child, resolved)
    child, resolved = _windowed(child, resolved)
    return p.Project(child, _unique([named(expr) for expr in resolved]))


def titled(written: e.Expr, resolved: e.Expr) -> e.Expr:
    """Its name is that of what was written, before casts were put in."""
    if isinstance(resolved, (e.Alias, e.Ref)):
        return resolved
    text = name_of(written if not isinstance(written, e.Ref) else resolved)
    return e.Alias(resolved, text, e.dtype_of(resolved))


def _unique(columns: list[Named]) -> tuple[Named, ...]:
    """A column that is selected twice is two columns."""
    seen: set[int] = set()
    found = []
    for ref, expr in columns:
        ref = ref.fresh() if ref.number in seen else ref
        seen.add(ref.number)
        found.append((ref, expr))
    return tuple(found)


def _outside_windows(expr: e.Expr) -> list[e.Expr]:
    found: list[e.Expr] = [expr]
    if not isinstance(expr, e.Over):
        for inner in expr.children:
            found += _outside_windows(inner)
    return found


def _generated(child: p.Node, exprs: list[e.Expr]) -> tuple[p.Node, list[e.Expr]]:
    places = [i for i, expr in enumerate(exprs) if isinstance(_bare(expr), e.Explode)]
    for i, expr in enumerate(exprs):
        if i not in places:
            forbid(expr, (e.Explode,), "an expression: explode() stands alone")
    if not places:
        return child, exprs
    if len(places) > 1:
        raise UnsupportedError("more than one explode in a select")
    expr = exprs[places[0]]
    explode = _bare(expr)
    assert isinstance(explode, e.Explode)
    child, (array,) = below(child, [explode.child])
    map_ = isinstance(e.dtype_of(explode.child), t.MapType)
    name = expr.name if isinstance(expr, e.Alias) and not map_ else "col"
    column = e.new_ref(name, e.dtype_of(explode))
    node = p.Generate(
        child, e.Explode(array, explode.outer, explode.position, column.dtype), column, child.output
    )
    made: list[e.Expr] = [column]
    if map_:
        if isinstance(expr, e.Alias) and expr.name != name_of(explode):
            raise UnsupportedError("explode of a map under one name", "select it, then rename")
        made = [_entry_part(column, f) for f in explode.dtype.fields]  # type: ignore[union-attr]
    return node, [*exprs[: places[0]], *made, *exprs[places[0] + 1 :]]


def _entry_part(entry: e.Ref, field: t.StructField) -> e.Expr:
    part = e.Call("getfield", (entry, e.Lit(field.name, t.STRING)), field.dataType)
    return e.Alias(part, field.name, field.dataType)


def _bare(expr: e.Expr) -> e.Expr:
    return expr.child if isinstance(expr, e.Alias) else expr


def below(child: p.Node, exprs: Sequence[e.Expr]) -> tuple[p.Node, list[e.Ref]]:
    """The child with every one of them as a column beside its own."""
    extra: list[Named] = []
    refs: list[e.Ref] = []
    for expr in exprs:
        known = next((r for r, made in extra if made == expr), None)
        if isinstance(expr, e.Ref):
            refs.append(expr)
        elif known is not None:
            refs.append(known)
        else:
            extra.append(named(expr))
            refs.append(extra[-1][0])
    if not extra:
        return child, refs
    return p.Project(child, (*((ref, ref) for ref in child.output), *extra)), refs


def _windowed(child: p.Node, exprs: list[e.Expr]) -> tuple[p.Node, list[e.Expr]]:
    overs: dict[e.Over, e.Ref] = {}

    def collect(expr: e.Expr) -> e.Expr:
        if isinstance(expr, e.Over):
            return overs.setdefault(expr, e.new_ref(name_of(expr), e.dtype_of(expr)))
        return expr.rebuild(collect)

    replaced = [collect(expr) for expr in exprs]
    if not overs:
        return child, exprs
    columns = []
    for over, ref in overs.items():
        inner = over.function.children
        constant = [isinstance(x, e.Lit) for x in inner]
        rest = [*over.partition, *(o.child for o in over.order)]
        columns_of = [x for x, known in zip(inner, constant, strict=True) if not known]
        child, refs = below(child, [*columns_of, *rest])
        given = iter(refs)
        args = tuple(x if known else next(given) for x, known in zip(inner, constant, strict=True))
        found = list(given)
        partition, order = found[: len(over.partition)], found[len(over.partition) :]
        assert isinstance(over.function, e.Aggregate)
        function = e.Aggregate(over.function.function, args, False, over.function.dtype)
        orders = tuple(
            e.Order(c, o.descending, o.nulls_last) for c, o in zip(order, over.order, strict=True)
        )
        columns.append((ref, e.Over(function, tuple(partition), orders, over.frame, over.dtype)))
    return p.Windowed(child, tuple(columns)), replaced


def aggregate(child: p.Node, keys: Sequence[e.Expr], exprs: Sequence[e.Expr]) -> p.Node:
    """groupBy(keys).agg(exprs), both resolved."""
    key_columns = [named(key) for key in keys]
    for _, key in key_columns:
        forbid(key, (e.Aggregate, e.Over, e.Explode), "groupBy")
        comparable(key, "groupBy")
    values: dict[e.Aggregate, e.Ref] = {}

    def collect(expr: e.Expr) -> e.Expr:
        if isinstance(expr, e.Aggregate):
            for arg in expr.args:
                forbid(arg, (e.Aggregate, e.Over), "an aggregate")
            if expr.function in ("row_number", "rank", "dense_rank", "lag", "lead", "ntile"):
                raise AnalysisException("WINDOW_FUNCTION_WITHOUT_OVER", expr.function)
            return values.setdefault(expr, e.new_ref(name_of(expr), e.dtype_of(expr)))
        for ref, key in key_columns:
            if expr == key:
                return ref
        return expr.rebuild(collect)

    wanted = [(expr, collect(_bare(expr))) for expr in exprs]
    parts = [key for _, key in key_columns] + [arg for v in values for arg in v.args]
    below_keys = list(dict.fromkeys(parts))
    inner = [named(part) for part in below_keys] or [named(e.Lit(True, t.BOOLEAN), "one")]
    place = {part: ref for part, (ref, _) in zip(below_keys, inner, strict=False)}
    node: p.Node = p.Project(child, _unique(inner))
    if _of_the_same_distinct(values):  # they are then aggregates of distinct rows, group by group
        node = p.Distinct(node, node.output)
        values = {replace(v, distinct=False): ref for v, ref in values.items()}
    group = p.Group(
        node,
        tuple((ref.fresh(), place[key]) for ref, key in key_columns),
        tuple(
            (ref, e.Aggregate(v.function, tuple(place[a] for a in v.args), v.distinct, v.dtype))
            for v, ref in values.items()
        ),
    )
    renamed = {old.number: new for (old, _), (new, _) in zip(key_columns, group.keys, strict=True)}

    def onto(expr: e.Expr) -> e.Expr:
        if isinstance(expr, e.Ref):
            if expr.number in renamed:
                return renamed[expr.number]
            if expr.number not in {r.number for r in group.output}:
                raise AnalysisException("MISSING_AGGREGATION", f"{expr.name} is not grouped by")
        return expr.rebuild(onto)

    columns = [(ref, ref) for ref, _ in group.keys] + [
        (e.new_ref(name_of(expr), e.dtype_of(found)), onto(found)) for expr, found in wanted
    ]
    return p.Project(group, tuple(columns))


def _of_the_same_distinct(values: dict[e.Aggregate, e.Ref]) -> bool:
    args = {v.args for v in values}
    flat = all(e.dtype_of(arg) in t.ATOMS for v in values for arg in v.args)
    return len(args) == 1 and flat and all(v.distinct for v in values)


def comparable(expr: e.Expr, where: str) -> None:
    kind = e.dtype_of(expr)
    if isinstance(kind, (t.ArrayType, t.StructType, t.MapType)) or kind == t.NULL:
        raise UnsupportedError(f"{where} by {kind.simpleString()}")


def sort(child: p.Node, orders: Sequence[e.Order]) -> p.Node:
    resolved = [_bare(resolve(o.child, child.output)) for o in orders]
    for expr in resolved:
        comparable(expr, "orderBy")
    inner, refs = below(child, resolved)
    found = tuple(
        e.Order(ref, o.descending, o.nulls_last) for ref, o in zip(refs, orders, strict=True)
    )
    return keep(p.Sort(inner, found), child.output)


def keep(node: p.Node, output: Sequence[e.Ref]) -> p.Node:
    if tuple(node.output) == tuple(output):
        return node
    return p.Project(node, tuple((ref, ref) for ref in output))


def union(left: p.Node, right: p.Node) -> p.Node:
    if len(left.output) != len(right.output):
        raise AnalysisException("NUM_COLUMNS_MISMATCH", "union of different numbers of columns")
    kinds = []
    for a, b in zip(left.output, right.output, strict=True):
        kind = t.wider(a.dtype, b.dtype)
        if kind is None:
            raise AnalysisException(
                "INCOMPATIBLE_COLUMN_TYPE",
                f"union of {a.dtype.simpleString()} and {b.dtype.simpleString()}",
            )
        kinds.append(kind)
    columns = tuple(e.new_ref(f.name, k) for f, k in zip(left.output, kinds, strict=True))
    inputs = tuple(
        p.Project(
            side,
            tuple(
                (c.fresh(), cast_to(f, c.dtype)) for c, f in zip(columns, side.output, strict=True)
            ),
        )
        for side in (left, right)
    )
    return p.Union(inputs, columns)


def renumbered(node: p.Node) -> p.Node:
    """The same rows in columns of their own, for the second side of a join with itself."""
    return p.Project(node, tuple((ref.fresh(), ref) for ref in node.output))


HOWS = {"inner": "inner", "cross": "cross", "left": "left", "leftouter": "left", "right": "right"}
HOWS |= {"rightouter": "right", "outer": "full", "full": "full", "fullouter": "full"}
HOWS |= {"semi": "semi", "leftsemi": "semi", "anti": "anti", "leftanti": "anti"}


def join(left: p.Node, right: p.Node, on: list[str] | e.Expr | None, how: str, hint: str) -> p.Node:
    kind = HOWS.get(how.lower().replace("_", ""))
    if kind is None:
        raise AnalysisException("UNSUPPORTED_JOIN_TYPE", f"join type {how!r}")
    shared = {f.number for f in left.output} & {f.number for f in right.output}
    if shared:
        if isinstance(on, e.Expr) and any(r.number in shared for r in e.refs_of(on)):
            raise AnalysisException(
                "AMBIGUOUS_REFERENCE", "a join of a DataFrame with itself: use alias() and names"
            )
        right = renumbered(right)
    if on is None:
        if kind not in ("inner", "cross"):
            raise AnalysisException("MISSING_JOIN_CONDITION", f"{how} join without a condition")
        return p.Join(left, right, "cross", (), (), None, hint)
    if isinstance(on, list):
        return _using(left, right, on, kind, hint)
    return _on(left, right, on, kind, hint)


def _using(left: p.Node, right: p.Node, names: list[str], how: str, hint: str) -> p.Node:
    lefts = [resolve(e.Name(name), left.output) for name in names]
    rights = [resolve(e.Name(name), right.output) for name in names]
    joined = _joined(left, right, list(zip(lefts, rights, strict=True)), how, None, hint)
    if how in ("semi", "anti"):
        first = [one for one in lefts if isinstance(one, e.Ref)]
        return keep(joined, [*first, *(ref for ref in left.output if ref not in first)])
    keys: list[Named] = []
    for one, other in zip(lefts, rights, strict=True):
        assert isinstance(one, e.Ref)
        assert isinstance(other, e.Ref)
        kind = t.wider(one.dtype, other.dtype)
        assert kind is not None
        if how == "full":
            both = e.Call("coalesce", (cast_to(one, kind), cast_to(other, kind)), kind)
            keys.append((e.new_ref(one.name, kind), both))
        else:
            keys.append(named(other if how == "right" else one))
    gone = {r.number for r in (*lefts, *rights) if isinstance(r, e.Ref)}
    rest = [(ref, ref) for ref in (*left.output, *right.output) if ref.number not in gone]
    return p.Project(joined, (*keys, *rest))


def _on(left: p.Node, right: p.Node, on: e.Expr, how: str, hint: str) -> p.Node:
    fields = (*left.output, *right.output)
    pairs: list[tuple[e.Expr, e.Expr]] = []
    rest: list[e.Expr] = []
    mine, other = {f.number for f in left.output}, {f.number for f in right.output}
    for part in _conjuncts(condition(on, fields)):
        if isinstance(part, e.Call) and part.function == "=":
            sides = [{r.number for r in e.refs_of(arg)} for arg in part.args]
            if sides[0] and sides[1]:
                if sides[0] <= mine and sides[1] <= other:
                    pairs.append((part.args[0], part.args[1]))
                    continue
                if sides[1] <= mine and sides[0] <= other:
                    pairs.append((part.args[1], part.args[0]))
                    continue
        rest.append(part)
    residual = None
    for part in rest:
        residual = part if residual is None else e.Call("and", (residual, part), t.BOOLEAN)
    if residual is not None and how not in ("inner", "cross"):
        raise UnsupportedError(f"a {how} join on more than equalities")
    joined = _joined(left, right, pairs, how, residual, hint)
    output = left.output if how in ("semi", "anti") else fields
    return keep(joined, output)


def _joined(
    left: p.Node,
    right: p.Node,
    pairs: list[tuple[e.Expr, e.Expr]],
    how: str,
    residual: e.Expr | None,
    hint: str,
) -> p.Node:
    lefts, rights = [], []
    for one, other in pairs:
        kind = t.wider(e.dtype_of(one), e.dtype_of(other))
        if (
            kind is None
            or kind == t.NULL
            or isinstance(kind, (t.ArrayType, t.StructType, t.MapType))
        ):
            raise UnsupportedError(
                f"join of {e.dtype_of(one).simpleString()} and {e.dtype_of(other).simpleString()}"
            )
        lefts.append(cast_to(one, kind))
        rights.append(cast_to(other, kind))
    left, left_keys = below(left, lefts)
    right, right_keys = below(right, rights)
    if not pairs:
        how = "cross"
    node: p.Node = p.Join(left, right, how, tuple(left_keys), tuple(right_keys), None, hint)
    return node if residual is None else p.Filter(node, residual)


def _conjuncts(expr: e.Expr) -> list[e.Expr]:
    if isinstance(expr, e.Call) and expr.function == "and":
        return [part for arg in expr.args for part in _conjuncts(arg)]
    return [expr]


def rebuilt(node: p.Node, change: Callable[[p.Node], p.Node]) -> p.Node:
    children = tuple(change(child) for child in node.children)
    return node.over(*children) if children != node.children else node
