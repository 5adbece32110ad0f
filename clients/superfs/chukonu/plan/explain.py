"""What a plan will do, for people: stages, what is fused in each, which columns are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.chukonu.naming import name_of
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.plan.stages import Stage, cut

if TYPE_CHECKING:
    from superfs.chukonu import expressions as e


def explained(plan: p.Node) -> str:
    lines = ["== Chukonu plan =="]
    _stage(cut(prune(plan)), 0, lines)
    return "\n".join(lines)


def _stage(stage: Stage, depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    fused = [*(_step(step) for step in reversed(stage.steps)), _root(stage.root)]
    kind = "wide" if isinstance(stage.root, p.WIDE) else "narrow"
    lines.append(f"{pad}stage ({kind}, {len(fused)} fused)")
    lines += [f"{pad}  {text}" for text in fused]
    for inner in stage.inputs:
        carried = ", ".join(ref.name for ref in inner.output)
        lines.append(f"{pad}  <- {_edge(stage.root)} of [{carried}]")
        _stage(inner, depth + 2, lines)


def _edge(node: p.Node) -> str:
    return "rows in order" if isinstance(node, (p.Union, p.Limit)) else "shuffle"


def _columns(columns: tuple[tuple[e.Ref, e.Expr], ...]) -> str:
    return ", ".join(
        ref.name if ref == expr else f"{name_of(expr)} AS {ref.name}" for ref, expr in columns
    )


def _step(step: p.Node) -> str:
    match step:
        case p.Project(_, columns):
            return f"Project [{_columns(columns)}]"
        case p.Filter(_, condition):
            return f"Filter {name_of(condition)}"
        case p.Generate(_, explode):
            return f"Explode {name_of(explode.child)}"
        case p.MapBatches(_, run):
            return f"MapInArrow {getattr(run, '__name__', 'function')}"
        case p.Sample(_, fraction, seed):
            return f"Sample {fraction} seed {seed}"
    return type(step).__name__


def _root(node: p.Node) -> str:
    match node:
        case p.Scan(source, schema, columns):
            read = f"{len(columns)} of {len(schema)} columns"
            return f"Scan {source.describe()}: {read} [{', '.join(c.name for c in columns)}]"
        case p.Local(frame):
            return f"Rows of the program ({frame.height})"
        case p.Group(_, keys, values):
            by = ", ".join(ref.name for ref, _ in keys)
            return f"Group by [{by}]: {', '.join(name_of(v) for _, v in values)}"
        case p.Distinct(_, keys):
            return f"Distinct by [{', '.join(k.name for k in keys)}]"
        case p.Join(_, _, how, left, right):
            pairs = zip(left, right, strict=True)
            return f"Join {how} on {', '.join(f'{name_of(a)} = {name_of(b)}' for a, b in pairs)}"
        case p.Sort(_, orders):
            return f"Sort by {', '.join(name_of(o) for o in orders)}"
        case p.Limit(_, count):
            return f"Limit {count}"
        case p.Union(inputs):
            return f"Union of {len(inputs)}"
        case p.Windowed(_, columns):
            return f"Window {', '.join(name_of(over.function) for _, over in columns)}"
        case p.Repartition(_, count):
            return f"Repartition into {count}"
    return type(node).__name__


def operators(stage: Stage) -> list[tuple[p.Node, str]]:
    """In the order in which rows meet them, with what they are called in counters."""
    found = [pair for inner in stage.inputs for pair in operators(inner)]
    root = stage.root
    label = f"Scan {root.source.format}" if isinstance(root, p.Scan) else _root(root)
    return [*found, (root, label), *((step, _step(step)) for step in stage.steps)]
