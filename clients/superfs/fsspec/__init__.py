"""`superfs://` for fsspec: what pandas, pyarrow, Polars, DuckDB, Dask and the like read and write
through, past the mount.

    import fsspec
    with fsspec.open("superfs:///data/a.csv", dir="/srv/superfs") as file: ...

Registered by the entry point `fsspec.specs`; nothing has to be imported first. Needs the extra
`superfs[fsspec]`.
"""

from __future__ import annotations

from superfs.fsspec.filesystem import SuperFileSystem

__all__ = ["SuperFileSystem"]
