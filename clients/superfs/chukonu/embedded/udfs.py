"""Python functions over columns: row by row, or an Arrow array at a time. The last column that they
are given says how many rows there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu.catalog.dtypes import dtype, small_arrow_type
from superfs.chukonu.errors import RuntimeException
from superfs.chukonu.native import pa, pl
from superfs.chukonu.rows import plain, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.chukonu.expressions import PythonUDF

Kernel = "Callable[[list[Any]], Any]"


def rows(expr: PythonUDF) -> Callable[[list[Any]], Any]:
    kind = dtype(expr.dtype)

    def run(columns: list[Any]) -> Any:  # noqa: ANN401
        height = columns[-1].len()
        lists = [c.to_list() * (height if len(c) == 1 else 1) for c in columns[:-1]]
        given = zip(*lists, strict=True) if lists else ((),) * height
        found = [expr.function(*row) for row in given]
        for value in found:
            verify(value, expr.dtype, expr.name)
        return pl.Series([plain(v, expr.dtype) for v in found], dtype=kind, strict=True)

    return run


def batches(expr: PythonUDF) -> Callable[[list[Any]], Any]:
    """Arrays have the small types of Arrow (string, list), as in PySpark."""
    kind = dtype(expr.dtype)
    given = [small_arrow_type(arg.dtype) for arg in expr.args]  # type: ignore[attr-defined]
    wanted = small_arrow_type(expr.dtype)

    def run(columns: list[Any]) -> Any:  # noqa: ANN401
        height = columns[-1].len()
        whole = [c.new_from_index(0, height) if len(c) == 1 else c for c in columns[:-1]]
        arrays = [_arrow(c, to) for c, to in zip(whole, given, strict=True)]
        found = expr.function(*arrays)
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        if not isinstance(found, pa.Array):
            raise RuntimeException(
                "CHUKONU_ARROW_UDF",
                f"{expr.name} gave a {type(found).__name__}, not an Arrow array",
            )
        if len(found) != height:
            raise RuntimeException(
                "CHUKONU_ARROW_UDF", f"{expr.name} gave {len(found)} values for {height} rows"
            )
        try:
            found = found.cast(wanted)
        except pa.ArrowException as error:
            raise RuntimeException("CHUKONU_ARROW_UDF", f"{expr.name}: {error}") from None
        return pl.Series("", found, dtype=kind) if height else pl.Series("", [], dtype=kind)

    return run


def _arrow(column: Any, kind: Any) -> Any:  # noqa: ANN401
    found = column.to_arrow(compat_level=pl.CompatLevel.oldest())
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    return found.cast(kind)
