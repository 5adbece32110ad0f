"""DataFrameReader: `session.read.json(...)` and its kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.ddl import parse_schema
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.frame import DataFrame
from superfs.chukonu.plan import logical as p
from superfs.chukonu.sources.csvdialect import NAMES, dialect_of

if TYPE_CHECKING:
    from superfs.chukonu.session import Session

FORMATS = ("json", "csv", "text", "parquet", "binaryFile")
OPTIONS = {
    "mode": "PERMISSIVE, DROPMALFORMED or FAILFAST",
    "badrecordspath": "a directory for bad records",
    "columnnameofcorruptrecord": "instead of _corrupt_record",
    "maxbadfraction": "more bad records than that stop the job",
    "splitbytes": "how much of a file one task reads",
    "dir": "which cluster superfs:// is: of `superfs up --dir`",
    "cluster": "or addresses of clusterd",
    "token_file": "and the token to show",
}


class DataFrameReader:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._format = "parquet"
        self._schema: t.StructType | None = None
        self._options: dict[str, Any] = {}
        self._sample_bytes: int | None = None

    def sample(self, size: int) -> DataFrameReader:
        """Not of PySpark: reads only about that many bytes, here and there, and keeps no bad
        records: to try a job out."""
        self._sample_bytes = size
        return self

    def format(self, source: str) -> DataFrameReader:
        self._format = next((f for f in FORMATS if f.lower() == source.lower()), source)
        return self

    def schema(self, schema: t.StructType | str) -> DataFrameReader:
        self._schema = parse_schema(schema)
        return self

    def option(self, key: str, value: Any) -> DataFrameReader:  # noqa: ANN401
        if key.lower() == "encoding" and str(value).upper() in ("UTF-8", "UTF8"):
            return self
        if key.lower() not in OPTIONS and key.lower() not in NAMES:
            raise UnsupportedError(f"read option {key!r}")
        self._options[key.lower()] = value
        return self

    def options(self, **options: Any) -> DataFrameReader:  # noqa: ANN401
        for key, value in options.items():
            self.option(key, value)
        return self

    def load(self, path: str | list[str]) -> DataFrame:
        return self._load(self._format, path)

    def json(
        self,
        path: str | list[str],
        schema: t.StructType | str | None = None,
        **options: Any,  # noqa: ANN401
    ) -> DataFrame:
        return self._given(schema, options)._load("json", path)

    def text(self, paths: str | list[str], wholetext: bool = False) -> DataFrame:
        if wholetext:
            raise UnsupportedError("read.text with wholetext")
        return self._load("text", paths)

    def parquet(self, *paths: str) -> DataFrame:
        return self._load("parquet", list(paths))

    def binaryFiles(self, path: str | list[str]) -> DataFrame:
        """As format("binaryFile").load, without modificationTime."""
        return self._load("binaryFile", path)

    def csv(
        self,
        path: str | list[str],
        schema: t.StructType | str | None = None,
        **options: Any,  # noqa: ANN401
    ) -> DataFrame:
        """Options: sep, quote, escape, header, inferSchema, multiLine, nullValue, nanValue,
        positiveInf, negativeInf, dateFormat, timestampFormat, ignoreLeadingWhiteSpace,
        ignoreTrailingWhiteSpace, and those of every format."""
        return self._given(schema, options)._load("csv", path)

    def _given(self, schema: t.StructType | str | None, options: dict[str, Any]) -> DataFrameReader:
        self.options(**{key: value for key, value in options.items() if value is not None})
        return self if schema is None else self.schema(schema)

    def _load(self, kind: str, paths: str | list[str]) -> DataFrame:
        from superfs.chukonu.sources.bad import Policy
        from superfs.chukonu.sources.csvlines import check
        from superfs.chukonu.sources.files import FIXED, Source, infer
        from superfs.chukonu.sources.jsonslow import refuse_types
        from superfs.chukonu.sources.splits import SAMPLE_SPLIT_BYTES, SPLIT_BYTES
        from superfs.chukonu.sources.store import store_for

        if kind not in FORMATS:
            raise UnsupportedError(f"format {kind}")
        names = [paths] if isinstance(paths, str) else list(paths)
        if not names:
            raise AnalysisException("PATH_NOT_FOUND", "no path")
        store = store_for(names[0], self._options)
        files = []
        for name in names:
            if type(store_for(name, self._options)) is not type(store):
                raise UnsupportedError("one read of superfs:// and of other paths")
            try:
                files += store.files(name)
            except FileNotFoundError:
                raise AnalysisException("PATH_NOT_FOUND", f"{name} does not exist") from None
        sample = self._sample_bytes
        policy = Policy(
            str(self._options.get("mode", "PERMISSIVE")),
            self._options.get("badrecordspath"),
            float(self._options.get("maxbadfraction", 1.0)),
            str(self._options.get("columnnameofcorruptrecord", "_corrupt_record")),
            keeps=sample is None,
        )
        schema = self._schema if kind not in FIXED else None
        foreign = [key for key in self._options if key in NAMES and kind != "csv"]
        if foreign:
            raise UnsupportedError(f"read option {foreign[0]!r} of {kind}")
        dialect = dialect_of(self._options) if kind == "csv" else None
        if schema is None:
            schema = infer(kind, store, files, policy, sample, dialect)
        if dialect is not None:
            check(schema)
        if kind == "json":
            refuse_types(schema)
        if not len(schema):
            raise AnalysisException("EMPTY_SCHEMA_NOT_SUPPORTED", f"{names[0]} has no columns")
        low = [name.lower() for name in schema.names]
        twice = next((name for name in low if low.count(name) > 1), None)
        if twice is not None:
            raise AnalysisException("COLUMN_ALREADY_EXISTS", f"{twice!r} is twice in the schema")
        usual = SPLIT_BYTES if sample is None else SAMPLE_SPLIT_BYTES
        split_bytes = int(self._options.get("splitbytes", usual))
        source = Source(kind, store, files, schema, policy, split_bytes, sample, dialect)
        columns = tuple(e.new_ref(f.name, f.dataType) for f in schema)
        return DataFrame(self._session, p.Scan(source, schema, columns))
