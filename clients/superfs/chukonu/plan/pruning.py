"""Column pruning: nothing is read, computed or carried that nobody needs."""

from __future__ import annotations

from superfs.chukonu import expressions as e
from superfs.chukonu.plan import logical as p


def prune(node: p.Node) -> p.Node:
    return _pruned(node, {ref.number for ref in node.output})


def _numbers(*exprs: e.Expr) -> set[int]:
    return {ref.number for expr in exprs for ref in e.refs_of(expr)}


def _kept(columns: tuple[e.Ref, ...], needed: set[int]) -> tuple[e.Ref, ...]:
    """At least one: a frame without columns has no rows to count."""
    return tuple(c for c in columns if c.number in needed) or columns[:1]


def _pruned(node: p.Node, needed: set[int]) -> p.Node:
    match node:
        case p.Scan(source, schema, columns):
            return p.Scan(source, schema, _kept(columns, needed))
        case p.Local(frame, columns):
            kept = _kept(columns, needed)
            return p.Local(frame.select([c.key for c in kept]), kept)
        case p.Project(child, columns):
            found = tuple(c for c in columns if c[0].number in needed) or columns[:1]
            return p.Project(_pruned(child, _numbers(*(x for _, x in found))), found)
        case p.Filter(child, condition):
            return node.over(_pruned(child, needed | _numbers(condition)))
        case p.Generate(child, explode, column, kept):
            below = (needed - {column.number}) | _numbers(explode)
            still = tuple(ref for ref in kept if ref.number in needed)
            return p.Generate(_pruned(child, below), explode, column, still)
        case p.Group(child, keys, values):
            wanted = tuple(v for v in values if v[0].number in needed)
            below = _numbers(*(x for _, x in (*keys, *wanted)))
            if not keys and not wanted:
                wanted = values[:1]
                below = _numbers(*(x for _, x in wanted))
            return p.Group(_pruned(child, below), keys, wanted)
        case p.Distinct(child, keys):
            return p.Distinct(_pruned(child, needed | _numbers(*keys)), keys)
        case p.Sort(child, orders):
            return p.Sort(_pruned(child, needed | _numbers(*orders)), orders)
        case p.Repartition(child, count, keys):
            return p.Repartition(_pruned(child, needed | _numbers(*keys)), count, keys)
        case p.Windowed(child, columns):
            made = tuple(c for c in columns if c[0].number in needed)
            below = needed | _numbers(*(x for _, x in made))
            return p.Windowed(_pruned(child, below), made) if made else _pruned(child, below)
        case p.Join(left, right, _, left_keys, right_keys, condition):
            extra = () if condition is None else (condition,)
            below = needed | _numbers(*left_keys, *right_keys, *extra)
            return node.over(_pruned(left, below), _pruned(right, below))
        case p.Union(inputs, columns):
            places = [i for i, c in enumerate(columns) if c.number in needed] or [0]
            sides = []
            for side in inputs:
                assert isinstance(side, p.Project)
                narrowed = p.Project(side.child, tuple(side.columns[i] for i in places))
                sides.append(_pruned(narrowed, {r.number for r in narrowed.output}))
            return p.Union(tuple(sides), tuple(columns[i] for i in places))
        case p.MapBatches(child) | p.Sample(child):
            return node.over(_pruned(child, {r.number for r in child.output}))
        case p.Limit(child):
            return node.over(_pruned(child, needed))
    raise AssertionError(node)
