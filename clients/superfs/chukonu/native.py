"""The native libraries, imported here alone: Polars computes, Arrow reads and carries."""

from __future__ import annotations

try:
    import polars as pl
    import pyarrow as pa
    import pyarrow.json as pa_json
    import pyarrow.parquet as pa_parquet
except ModuleNotFoundError as error:  # pragma: no cover - depends on what is installed
    raise ModuleNotFoundError(
        f"superfs.chukonu needs {error.name}: pip install 'superfs[chukonu]'", name=error.name
    ) from None

__all__ = ["pa", "pa_json", "pa_parquet", "pl"]
