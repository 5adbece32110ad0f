"""JSON lines. A block goes through Arrow's parser, and through jsonslow.py when Arrow refuses it,
or could see it otherwise than a strict parser of single lines.

Why the fast path is equivalent: Arrow's parser is strict in grammar, and refuses a value that is
not of its column's type. It does not look at UTF-8, at lone surrogates, at depth, at what belongs
to one line, and knows other conversions to strings. So a block goes there only if it is UTF-8, has
no escaped surrogates, no lone CR, no deep nesting, if every line begins with `{` and ends with `}`,
and if it gave as many rows as there are lines: between two lines no object can then be open,
because after a `}` inside of it there must be a comma or a bracket, not a `{`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.dtypes import arrow_type, dtype
from superfs.chukonu.native import pa, pa_json, pl
from superfs.chukonu.sources.bad import BadRecord
from superfs.chukonu.sources.jsonslow import (
    DEPTH_MAX,
    BadLine,
    inferred,
    merged,
    parse_strictly,
    row_of,
)
from superfs.chukonu.sources.lines import lines_of

if TYPE_CHECKING:
    from superfs.chukonu.sources.bad import Policy
    from superfs.chukonu.sources.splits import Block

_SPACE = b" \t\r"
_ENDS = (b"}", b"}\r")
_PLAIN = (t.STRING, t.BOOLEAN, t.DOUBLE, t.FLOAT, *t.INTEGRALS)


def fast_types(kind: t.DataType) -> bool:
    if isinstance(kind, t.ArrayType):
        return fast_types(kind.elementType)
    if isinstance(kind, t.StructType):
        return bool(len(kind)) and all(fast_types(f.dataType) for f in kind)
    return kind in _PLAIN


def _json_type(kind: t.DataType) -> Any:  # noqa: ANN401
    """Arrow's JSON parser knows the small strings and lists only."""
    if isinstance(kind, t.ArrayType):
        return pa.list_(_json_type(kind.elementType))
    if isinstance(kind, t.StructType):
        return pa.struct([(f.name, _json_type(f.dataType)) for f in kind])
    return pa.string() if kind == t.STRING else arrow_type(kind)


def _objects(data: bytes) -> int | None:
    """How many lines there are that are not blank, each in braces; None: look closer."""
    count = data.count(b"\n") + (not data.endswith(b"\n"))
    openers = data.count(b"{") + data.count(b"[") - count + 1
    alike = data.startswith(b"{") and data.endswith((b"}\n", b"}"))
    if alike and openers <= DEPTH_MAX and data.count(b"}\n{") == count - 1:
        return count  # most blocks: no line is looked at
    lines = [line for line in data.split(b"\n") if line.strip(_SPACE)]
    for line in lines:
        if not (line.startswith(b"{") and line.endswith(_ENDS)):
            return None
    # Every line has at least one: what one of them can have at most.
    openers = data.count(b"{") + data.count(b"[") - len(lines) + 1
    if openers > DEPTH_MAX and any(
        line.count(b"{") + line.count(b"[") > DEPTH_MAX for line in lines
    ):
        return None
    return len(lines)


def _fast_frame(data: bytes, schema: t.StructType) -> Any | None:  # noqa: ANN401
    """None: look closer."""
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return None
    if b"\\" in data and (b"\\ud" in data or b"\\uD" in data):
        return None
    count = _objects(data)
    if count is None:
        return None
    names = schema.names
    if len(set(names)) < len(names):
        return None
    try:
        pa.array([data], pa.large_binary()).cast(pa.large_string())  # is it UTF-8?
        table = pa_json.read_json(
            pa.BufferReader(data),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=pa.schema([(f.name, _json_type(f.dataType)) for f in schema]),
                unexpected_field_behavior="ignore",
            ),
        )
    except pa.ArrowException:
        return None
    if table.num_rows != count:
        return None
    return pl.from_arrow(table.select(names).combine_chunks())


def slow_frame(
    block: Block, schema: t.StructType, policy: Policy, bad: list[BadRecord]
) -> tuple[Any, int]:
    """(frame, records seen). What is bad goes to `bad`."""
    rows: list[list[Any]] = []
    seen = 0
    corrupt = next((i for i, f in enumerate(schema) if f.name == policy.column), None)
    parts = t.StructType([f for f in schema if f.name != policy.column])
    for place, line in lines_of(block.data):
        if not line.strip(b" \t\r\n"):
            continue
        seen += 1
        row, why = row_of(line, parts)
        if why:
            record = BadRecord(block.file.path, block.offset + place, line, why)
            policy.meet(record)
            bad.append(record)
            if policy.mode == "DROPMALFORMED":
                continue
        if corrupt is not None:
            row.insert(corrupt, line.decode(errors="replace") if why else None)
        rows.append(row)
    columns = [
        pl.Series(f.name, [row[i] for row in rows], dtype=dtype(f.dataType), strict=True)
        for i, f in enumerate(schema)
    ]
    return pl.DataFrame(columns), seen


def parse(
    block: Block, schema: t.StructType, policy: Policy, bad: list[BadRecord], *, fast: bool = True
) -> tuple[Any, int]:
    parts = t.StructType([f for f in schema if f.name != policy.column])
    data, tail = block.data, None
    if block.broken:
        # The last line of a stream that breaks off is not known to be whole.
        whole = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        tail = BadRecord(block.file.path, block.offset + whole, data[whole:], block.broken)
        policy.meet(tail)
        bad.append(tail)
        data = data[:whole]
    frame = None
    if fast and len(parts) and all(fast_types(f.dataType) for f in parts):
        frame = _fast_frame(data, parts)
    if frame is None:
        inner = type(block)(block.file, block.offset, data)
        frame, seen = slow_frame(inner, schema, policy, bad)
        return frame, seen + (tail is not None)
    if len(parts) < len(schema):
        frame = frame.with_columns(pl.lit(None, pl.String).alias(policy.column))
    kinds = {f.name: dtype(f.dataType) for f in schema}
    return frame.select(list(kinds)).cast(kinds), frame.height + (tail is not None)


def infer_block(block: Block) -> tuple[t.StructType, bool]:
    """The fields of its objects, and whether a line was bad."""
    found: t.DataType = t.StructType([])
    bad = bool(block.broken)
    for _, line in lines_of(block.data):
        if not line.strip(b" \t\r\n"):
            continue
        try:
            value = parse_strictly(line)
        except BadLine:
            bad = True
            continue
        if isinstance(value, dict):
            found = merged(found, inferred(value))
        else:
            bad = True
    assert isinstance(found, t.StructType)
    return found, bad
