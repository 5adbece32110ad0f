"""A frame as the bytes of one part. The same rows give the same bytes."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.casts import java_double
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.native import pa, pa_parquet
from superfs.chukonu.rows import arrow_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.chukonu.expressions import Ref

SUFFIX = {"parquet": ".parquet", "json": ".json", "text": ".txt"}


def check(kind: str, output: Sequence[Ref]) -> None:
    """Before anything runs."""
    low = [ref.name.lower() for ref in output]
    if len(set(low)) < len(low):
        raise AnalysisException("COLUMN_ALREADY_EXISTS", "two columns of one name")
    if kind == "text" and [ref.dtype for ref in output] != [t.STRING]:
        raise UnsupportedError("write.text of anything but one column of strings")
    if any(ref.dtype == t.NULL for ref in output):
        raise UnsupportedError(f"write.{kind} of a column of type void")


def encoded(kind: str, frame: Any, output: Sequence[Ref]) -> bytes:  # noqa: ANN401
    if kind == "parquet":
        sink = pa.BufferOutputStream()
        pa_parquet.write_table(arrow_table(frame, output), sink, compression="zstd")
        return bytes(sink.getvalue())
    if kind == "text":
        lines = frame[output[0].key].to_list()
        return "".join(f"{line or ''}\n" for line in lines).encode()
    names = [(ref.key, ref.name, ref.dtype) for ref in output]
    rows = frame.select([key for key, _, _ in names]).iter_rows()
    return "".join(f"{{{_fields(zip(names, row, strict=True))}}}\n" for row in rows).encode()


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
    if isinstance(kind, t.StructType):
        return f"{{{_fields((((f.name, f.name, f.dataType), value[f.name])) for f in kind)}}}"
    if isinstance(value, float):
        if kind == t.FLOAT:
            raise UnsupportedError("write.json of float; cast it to double")
        text = java_double(value)
        return text if math.isfinite(value) else f'"{text}"'
    if kind == t.DATE:
        return f'"{value.isoformat()}"'
    if isinstance(value, bytes):
        raise UnsupportedError("write.json of binary")
    return json.dumps(value, ensure_ascii=False)
