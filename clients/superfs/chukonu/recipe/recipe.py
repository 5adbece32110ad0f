"""A recipe: what is read, what is done to it, where it goes.

`load` checks form and formulas of the whole document; `frame` adds what only the data can tell:
whether columns are there, and of the right types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu.errors import AnalysisException
from superfs.chukonu.reader import FORMATS
from superfs.chukonu.reader import OPTIONS as READ_OPTIONS
from superfs.chukonu.recipe.document import Item, RecipeError, parse
from superfs.chukonu.recipe.steps import Step, apply, check_steps
from superfs.chukonu.session import Session
from superfs.chukonu.sinks.formats import SUFFIX
from superfs.chukonu.sources.csvdialect import NAMES as CSV_READ
from superfs.chukonu.writer import CSV_OPTIONS as CSV_WRITE
from superfs.chukonu.writer import MODES
from superfs.chukonu.writer import OPTIONS as WRITE_OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.chukonu.frame import DataFrame

VERSION = 1


@dataclass(frozen=True, slots=True)
class Input:
    format: str
    paths: list[str]
    schema: str | None
    options: dict[str, Any]
    item: Item
    steps: list[Step]

    def frame(self, session: Session, sample_bytes: int | None) -> DataFrame:
        reader = session.read.options(**self.options)
        if sample_bytes is not None:
            reader = reader.sample(sample_bytes)
        try:
            if self.schema is not None:
                reader = reader.schema(self.schema)
            frame = reader.format(self.format).load(self.paths)
        except (OSError, AnalysisException) as error:
            raise self.item.error(str(error)) from error
        for step in self.steps:
            frame = apply(step, frame, lambda inner: inner.frame(session, sample_bytes))
        return frame


@dataclass(frozen=True, slots=True)
class Output:
    format: str
    path: str
    mode: str
    options: dict[str, Any]
    item: Item


@dataclass(frozen=True, slots=True)
class Recipe:
    input: Input
    output: Output | None
    settings: dict[str, str]

    def session(self) -> Session:
        return Session(dict(self.settings))

    def frame(self, session: Session, sample_bytes: int | None = None) -> DataFrame:
        return self.input.frame(session, sample_bytes)

    def run(self, session: Session) -> dict[str, Any]:
        """Writes the output; its statistics."""
        output = self.output
        if output is None:
            raise RecipeError(self.input.item.file, "has no `write`: there is only --dry-run")
        frame = self.frame(session)
        writer = frame.write.options(**output.options).mode(output.mode)
        try:
            manifest = writer.format(output.format).save(output.path)
        except AnalysisException as error:
            raise output.item.error(str(error)) from error
        if manifest is None:
            return {"path": output.path, "rows": None, "statistics": None}
        return {"path": output.path, **{k: manifest[k] for k in ("rows", "statistics")}}


def load(path: Path) -> Recipe:
    return loads(path.read_text(encoding="utf-8"), str(path))


def loads(text: str, file: str = "recipe") -> Recipe:
    whole = parse(text, file)
    top = whole.mapping(["version", "read"], ["name", "session", "steps", "write"])
    if top["version"].plain() != VERSION:
        raise top["version"].error(f"must be {VERSION}")
    if "name" in top:
        top["name"].text()
    settings = _settings(top["session"]) if "session" in top else {}
    found = _input(top["read"], top.get("steps"))
    return Recipe(found, _output(top["write"]) if "write" in top else None, settings)


def _settings(item: Item) -> dict[str, str]:
    found = item.mapping(optional=["threads", "memory", "folder"])
    settings: dict[str, str] = {}
    if "threads" in found:
        settings["chukonu.threads"] = str(found["threads"].whole(1))
    if "memory" in found:
        settings["chukonu.memory.bytes"] = str(found["memory"].size())
    if "folder" in found:
        settings["chukonu.local.dir"] = found["folder"].text()
    return settings


def _input(read: Item, steps: Item | None) -> Input:
    found = read.mapping(["path"], ["format", "schema", "options"])
    kind = found["format"].one_of(FORMATS) if "format" in found else "parquet"
    known = (*READ_OPTIONS, *(CSV_READ if kind == "csv" else ()))
    options = _options(found.get("options"), known)
    schema = found["schema"].text() if "schema" in found else None
    if schema is not None:
        _checked_schema(found["schema"])
    made = check_steps(steps, _nested) if steps is not None else []
    return Input(kind, found["path"].texts(), schema, options, read, made)


def _checked_schema(item: Item) -> None:
    from superfs.chukonu.ddl import parse_schema

    try:
        parse_schema(item.text())
    except AnalysisException as error:
        raise item.error(str(error)) from None


def _nested(item: Item) -> Input:
    """The other side of a join or a union."""
    found = item.mapping(["read"], ["steps"])
    return _input(found["read"], found.get("steps"))


def _options(item: Item | None, known: Any) -> dict[str, Any]:  # noqa: ANN401
    if item is None:
        return {}
    found = item.mapping(optional=None)
    for key, value in found.items():
        if key.lower() not in known:
            raise value.error(f"is not known; there are: {', '.join(known)}")
        if not isinstance(value.value, (str, int, float)):
            raise value.error("must be text or a number")
    return {key: value.value for key, value in found.items()}


def _output(item: Item) -> Output:
    found = item.mapping(["path"], ["format", "mode", "options"])
    kind = found["format"].one_of(SUFFIX) if "format" in found else "parquet"
    mode = found["mode"].one_of(MODES) if "mode" in found else "error"
    known = (*WRITE_OPTIONS, *(sorted(CSV_WRITE) if kind == "csv" else ()))
    options = _options(found.get("options"), known)
    return Output(kind, found["path"].text(), mode, options, item)
