"""DataFrameWriter: `df.write.mode("overwrite").parquet(path)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu.errors import AnalysisException, UnsupportedError

if TYPE_CHECKING:
    from superfs.chukonu.frame import DataFrame

MODES = {"error": "error", "errorifexists": "error", "default": "error", "overwrite": "overwrite"}
MODES |= {"ignore": "ignore"}
OPTIONS = ("dir", "cluster", "token_file")
CSV_OPTIONS = {"header", "sep", "delimiter", "quote", "escape", "nullvalue", "emptyvalue"}
CSV_OPTIONS |= {"quoteall", "escapequotes", "dateformat", "timestampformat"}
CSV_OPTIONS |= {"ignoreleadingwhitespace", "ignoretrailingwhitespace"}


class DataFrameWriter:
    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame
        self._format = "parquet"
        self._mode = "error"
        self._options: dict[str, Any] = {}

    def format(self, source: str) -> DataFrameWriter:
        self._format = source.lower()
        return self

    def mode(self, saveMode: str) -> DataFrameWriter:
        if saveMode.lower() not in MODES:
            raise UnsupportedError(f"write mode {saveMode!r}")
        self._mode = MODES[saveMode.lower()]
        return self

    def option(self, key: str, value: Any) -> DataFrameWriter:  # noqa: ANN401
        if key.lower() in CSV_OPTIONS:
            key = key.lower()
        elif key not in OPTIONS:
            raise UnsupportedError(f"write option {key!r}")
        self._options[key] = value
        return self

    def options(self, **options: Any) -> DataFrameWriter:  # noqa: ANN401
        for key, value in options.items():
            self.option(key, value)
        return self

    def parquet(self, path: str, mode: str | None = None) -> None:
        self._save("parquet", path, mode)

    def json(self, path: str, mode: str | None = None) -> None:
        self._save("json", path, mode)

    def csv(self, path: str, mode: str | None = None, **options: Any) -> None:  # noqa: ANN401
        """Options: header, sep, quote, escape, nullValue, emptyValue, quoteAll, escapeQuotes,
        dateFormat, timestampFormat, ignoreLeadingWhiteSpace, ignoreTrailingWhiteSpace."""
        self.options(**{key: value for key, value in options.items() if value is not None})
        self._save("csv", path, mode)

    def text(self, path: str) -> None:
        self._save("text", path, None)

    def save(self, path: str) -> dict[str, Any] | None:
        """The manifest, where PySpark gives nothing; None: `ignore`, and it is there already."""
        return self._save(self._format, path, None)

    def _save(self, kind: str, path: str, mode: str | None) -> dict[str, Any] | None:
        from superfs.chukonu.sinks.commit import Output
        from superfs.chukonu.sinks.formats import SUFFIX
        from superfs.chukonu.sinks.target import target_for

        if kind not in SUFFIX:
            raise UnsupportedError(f"write format {kind}")
        if mode is not None:
            self.mode(mode)
        target = target_for(path, self._options)
        if target.exists(path) and self._mode != "overwrite":
            if self._mode == "ignore":
                return None
            raise AnalysisException("PATH_ALREADY_EXISTS", f"{path}; mode('overwrite') replaces it")
        style = {key: value for key, value in self._options.items() if key in CSV_OPTIONS}
        if style and kind != "csv":
            raise UnsupportedError(f"write option {next(iter(style))!r} of {kind}")
        output = Output(target, path, kind, self._frame.plan, style)
        return output.write(self._frame.session.executor, replace=self._mode == "overwrite")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnsupportedError(f"DataFrameWriter.{name}")
