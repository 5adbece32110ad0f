"""What a plan is, as a hash: equal for the same work on the same contents, whoever asks, whenever.

Columns are numbered anew in the order in which they are met. A plan with a Python function has
none: nobody knows whether it is the same one.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.plan import logical as p


def fingerprint(plan: p.Node) -> str | None:
    if any(_has_python(node) for node in _nodes(plan)):
        return None
    digest = hashlib.blake2b(digest_size=16)
    numbers: dict[int, int] = {}
    _feed(digest, plan, numbers)
    return digest.hexdigest()


def _nodes(node: p.Node) -> list[p.Node]:
    return [node, *(inner for child in node.children for inner in _nodes(child))]


def _has_python(node: p.Node) -> bool:
    exprs = [] if not isinstance(node, p.Project) else [expr for _, expr in node.columns]
    exprs += [node.condition] if isinstance(node, p.Filter) else []
    found = any(isinstance(part, e.PythonUDF) for expr in exprs for part in expr.walk())
    return found or isinstance(node, p.MapBatches)


def _feed(digest: Any, value: Any, numbers: dict[int, int]) -> None:  # noqa: ANN401
    match value:
        case e.Ref(number):
            text = f"ref {numbers.setdefault(number, len(numbers))} {value.dtype.simpleString()}"
        case e.Var(number):
            kind = "?" if value.dtype is None else value.dtype.simpleString()
            text = f"var {numbers.setdefault(-number, len(numbers))} {kind}"
        case p.Scan(source, schema):
            text = f"scan {source.format} {schema.simpleString()} {source.policy.mode}"
            text += f" {source.split_bytes} {source.sample_bytes}"
            text += f" {source.dialect}"
            text += f" {[(f.path, f.version) for f in source.files]}"
            digest.update(text.encode())
            text = f"columns {len(value.columns)}"
            for column in value.columns:
                _feed(digest, column, numbers)
                text += f" {column.name}"
        case p.Local(frame):
            rows = frame.rename({c.key: f"{i}" for i, c in enumerate(value.columns)})
            text = hashlib.blake2b(rows.write_ipc(None).getvalue()).hexdigest()
            for column in value.columns:
                _feed(digest, column, numbers)
        case t.DataType():
            text = value.simpleString()
        case tuple():
            text = f"tuple {len(value)}"
            for one in value:
                _feed(digest, one, numbers)
        case _ if is_dataclass(value):
            text = type(value).__name__
            for f in fields(value):
                _feed(digest, getattr(value, f.name), numbers)
        case _:
            text = repr(value)
    digest.update(f"\0{text}\0".encode())
