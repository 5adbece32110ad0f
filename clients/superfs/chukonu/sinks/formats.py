"""Frames as the bytes of one part."""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING, Any, Protocol

from superfs.chukonu import types as t
from superfs.chukonu.catalog.casts import java_double
from superfs.chukonu.catalog.dtypes import arrow_type
from superfs.chukonu.catalog.patterns import Pattern
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.native import pa, pa_parquet, pl
from superfs.chukonu.rows import arrow_table
from superfs.chukonu.sinks import csvtext

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from superfs.chukonu.expressions import Ref

Frame = Any
GROUP_BYTES = 16 << 20
"""Of a row group of parquet, before it is encoded."""
SUFFIX = {"parquet": ".parquet", "json": ".json", "text": ".txt", "csv": ".csv"}


def check(kind: str, output: Sequence[Ref], style: Mapping[str, Any]) -> None:
    """Before anything runs."""
    if kind == "csv":
        csvtext.check(output)
        csvtext.style_of(style)
    low = [ref.name.lower() for ref in output]
    if len(set(low)) < len(low):
        raise AnalysisException("COLUMN_ALREADY_EXISTS", "two columns of one name")
    if kind == "text" and [ref.dtype for ref in output] != [t.STRING]:
        raise UnsupportedError("write.text of anything but one column of strings")
    if any(ref.dtype == t.NULL for ref in output):
        raise UnsupportedError(f"write.{kind} of a column of type void")


class Encoder(Protocol):
    """The rows of one part as bytes, while they come. The same frames give the same bytes."""

    def add(self, frame: Frame) -> bytes: ...

    def finish(self) -> bytes: ...


def encoder(kind: str, output: Sequence[Ref], style: Mapping[str, Any]) -> Encoder:
    if kind == "csv":
        return csvtext.Lines(output, csvtext.style_of(style))
    made: dict[str, Callable[[Sequence[Ref]], Encoder]]
    made = {"parquet": _Parquet, "text": _Text, "json": _Json}
    return made[kind](output)


class _Parquet:
    def __init__(self, output: Sequence[Ref]) -> None:
        self._output = output
        self._sink = _Sink()
        schema = pa.schema([pa.field(ref.name, arrow_type(ref.dtype)) for ref in output])
        self._writer = pa_parquet.ParquetWriter(self._sink, schema, compression="zstd")
        self._waiting: list[Frame] = []
        self._size = 0
        self._written = False

    def add(self, frame: Frame) -> bytes:
        self._waiting.append(frame)
        self._size += frame.estimated_size()
        if self._size >= GROUP_BYTES:
            self._group()
        return self._sink.taken()

    def _group(self) -> None:
        frame = pl.concat(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting, self._size = [], 0
        self._writer.write_table(arrow_table(frame, self._output))
        self._written = True

    def finish(self) -> bytes:
        if any(frame.height for frame in self._waiting) or (self._waiting and not self._written):
            self._group()
        self._writer.close()
        return self._sink.taken()


class _Sink(io.RawIOBase):
    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        found = b"".join(self._parts)
        self._parts = []
        return found


class _Text:
    def __init__(self, output: Sequence[Ref]) -> None:
        self._key = output[0].key

    def add(self, frame: Frame) -> bytes:
        return "".join(f"{line or ''}\n" for line in frame[self._key].to_list()).encode()

    def finish(self) -> bytes:
        return b""


class _Json:
    def __init__(self, output: Sequence[Ref]) -> None:
        self._names = [(ref.key, ref.name, ref.dtype) for ref in output]

    def add(self, frame: Frame) -> bytes:
        rows = frame.select([key for key, _, _ in self._names]).iter_rows()
        lines = (f"{{{_fields(zip(self._names, row, strict=True))}}}\n" for row in rows)
        return "".join(lines).encode()

    def finish(self) -> bytes:
        return b""


def _fields(parts: Any) -> str:  # noqa: ANN401
    """Nulls are left out, as Spark does."""
    return ",".join(
        f"{json.dumps(name, ensure_ascii=False)}:{_value(value, kind)}"
        for (_, name, kind), value in parts
        if value is not None
    )


def _value(value: Any, kind: t.DataType) -> str:  # noqa: ANN401
    if value is None:
        return "null"
    if isinstance(kind, t.ArrayType):
        return f"[{','.join(_value(v, kind.elementType) for v in value)}]"
    if isinstance(kind, t.MapType):
        if kind.keyType != t.STRING:
            raise UnsupportedError(f"write.json of {kind.simpleString()}")
        pairs = ((json.dumps(v["key"], ensure_ascii=False), v["value"]) for v in value)
        return f"{{{','.join(f'{k}:{_value(v, kind.valueType)}' for k, v in pairs)}}}"
    if isinstance(kind, t.StructType):
        return f"{{{_fields((((f.name, f.name, f.dataType), value[f.name])) for f in kind)}}}"
    if isinstance(value, float):
        if kind == t.FLOAT:
            raise UnsupportedError("write.json of float; cast it to double")
        text = java_double(value)
        return text if math.isfinite(value) else f'"{text}"'
    if isinstance(kind, t.DecimalType):
        return f"{value:f}"
    if kind == t.TIMESTAMP:
        return f'"{Pattern(csvtext.MOMENT).written(value)}"'
    if kind == t.DATE:
        return f'"{value.isoformat()}"'
    if isinstance(value, bytes):
        raise UnsupportedError("write.json of binary")
    return json.dumps(value, ensure_ascii=False)
