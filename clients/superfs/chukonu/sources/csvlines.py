"""CSV: lines to strings, strings to the types of columns, a whole column at a time.

A record is bad when it has more or fewer values than there are columns, when one of them does not
fit its column's type, when its quotes are not in order (csvdialect.py), or when it is not UTF-8.
What fits is kept, the rest is null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog import casts, exact
from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.catalog.moments import parsed
from superfs.chukonu.catalog.numbers import by_row
from superfs.chukonu.catalog.patterns import Pattern
from superfs.chukonu.errors import AnalysisException, BadRecordException
from superfs.chukonu.native import pl
from superfs.chukonu.sources.bad import BadRecord
from superfs.chukonu.sources.csvdialect import COLUMNS_MAX, BadQuotes, Values, records_of, values_of
from superfs.chukonu.sources.lines import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.chukonu.sources.bad import Policy
    from superfs.chukonu.sources.csvdialect import Dialect
    from superfs.chukonu.sources.splits import Block

Frame = Any
Px = Any
ROW, COUNT = "row", "count"
_INTEGER = r"\A[+-]?[0-9]+\z"
_MARK = b"\xef\xbb\xbf"
_BLANKS = bytes(range(0x21))
_BLANK = " \t\r\n\f\v"


def check(schema: t.StructType) -> None:
    for field in schema:
        kind = field.dataType
        if kind not in t.ATOMS or kind in (t.NULL, t.BINARY):
            raise AnalysisException(
                "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE", f"csv: {field.simpleString()}"
            )
    if len(schema) > COLUMNS_MAX:
        raise AnalysisException("CHUKONU_CSV", f"more than {COLUMNS_MAX} columns")


def records(block: Block, dialect: Dialect) -> Iterator[tuple[int, bytes]]:
    """Those that are not blank, with their offsets; a byte order mark is no part of the first."""
    marked = block.offset == 0 and block.data.startswith(_MARK)
    data = block.data[len(_MARK) :] if marked else block.data
    found = records_of(data, dialect) if dialect.multi_line else lines_of(data)
    for place, line in found:
        if line.strip(_BLANKS):
            yield place + len(_MARK) * marked, line


def blank(data: bytes, offset: int) -> bool:
    """Whether there is no record in what stands there in a file."""
    return not (data.removeprefix(_MARK) if offset == 0 else data).strip(_BLANKS)


def _value(a: Px, kind: t.DataType, dialect: Dialect) -> Px:
    """Null where the text is not one."""
    if kind == t.STRING:
        return a
    if isinstance(kind, t.IntegralType):
        return pl.when(a.str.contains(_INTEGER)).then(a).cast(dtype(kind), strict=False)
    if kind in (t.FLOAT, t.DOUBLE):
        return _float(a, dtype(kind), dialect)
    if kind == t.BOOLEAN:
        low = a.str.to_lowercase()
        return pl.when(low == "true").then(True).when(low == "false").then(False)
    if isinstance(kind, t.DecimalType):

        def exactly(text: str) -> Any:  # noqa: ANN401
            found = exact.read(text.replace(",", "")) if text == text.strip() else None
            return None if found is None else exact.rounded(found, kind)

        return by_row(exactly, dtype(kind), a)
    if kind == t.DATE:
        if not dialect.date_format:
            return by_row(casts.read_date, pl.Date, a.str.strip_chars(_BLANK))
        return by_row(Pattern(dialect.date_format).parsed, pl.Datetime("us"), a).dt.date()
    if not dialect.timestamp_format:
        return by_row(parsed, pl.Datetime("us"), a.str.strip_chars(_BLANK))
    return by_row(Pattern(dialect.timestamp_format).parsed, pl.Datetime("us"), a)


def _float(a: Px, kind: Px, dialect: Dialect) -> Px:
    bare = a.str.strip_chars(_BLANK)
    plain = pl.when(bare.str.contains(casts.FLOAT)).then(bare.str.replace(r"[dDfF]\z", ""))
    found = plain.cast(kind, strict=False)
    names = {"NaN": "nan", "Infinity": "inf", "+Infinity": "inf", "-Infinity": "-inf"}
    names |= {dialect.nan_value: "nan", dialect.positive_inf: "inf"}
    names[dialect.negative_inf] = "-inf"
    for text, value in names.items():
        found = pl.when(a == text).then(pl.lit(float(value), kind)).otherwise(found)
    return found


def parse(
    block: Block,
    schema: t.StructType,
    policy: Policy,
    bad: list[BadRecord],
    dialect: Dialect,
    *,
    header: bool,
) -> tuple[Any, int]:
    """(frame, records seen). `header`: the first record is none."""
    lines = list(records(block, dialect))[1 if header else 0 :]
    if block.broken:
        place, tail = lines.pop() if lines else (0, b"")
        broken = BadRecord(block.file.path, block.offset + place, tail, block.broken)
        policy.meet(broken)
        bad.append(broken)
    kinds = [(f.name, f.dataType) for f in schema if f.name != policy.column]
    wrong: dict[int, str] = {}
    texts = _texts([line for _, line in lines], len(kinds), dialect, wrong)
    made = [
        _value(pl.col(f"{i}"), kind, dialect).alias(f"v{i}") for i, (_, kind) in enumerate(kinds)
    ]
    frame = texts.with_columns(made)
    for i, (name, kind) in enumerate(kinds):
        if kind == t.STRING:
            continue
        misfit = pl.col(f"{i}").is_not_null() & pl.col(f"v{i}").is_null()
        for row in frame.select(misfit.arg_true())[f"{i}"].to_list():
            text = frame[f"{i}"][row]
            text = text if len(text) <= 40 else text[:37] + "..."
            wrong.setdefault(row, f"column {name}: {text} is not {kind.simpleString()}")
    for row in sorted(wrong):
        place, line = lines[row]
        record = BadRecord(block.file.path, block.offset + place, line, wrong[row])
        policy.meet(record)
        bad.append(record)
    found = frame.select([pl.col(f"v{i}").alias(name) for i, (name, _) in enumerate(kinds)])
    if len(kinds) < len(schema):
        kept = [
            lines[r][1].decode(errors="replace") if r in wrong else None for r in range(len(lines))
        ]
        found = found.with_columns(pl.Series(policy.column, kept, dtype=pl.String))
    if policy.mode == "DROPMALFORMED" and wrong:
        found = found.with_row_index(ROW).filter(~pl.col(ROW).is_in(list(wrong))).drop(ROW)
    return found.select(schema.names), len(lines) + bool(block.broken)


def _texts(lines: Sequence[bytes], width: int, dialect: Dialect, wrong: dict[int, str]) -> Frame:
    """A column of strings for each place. `wrong` gets why a line is not as it should be."""
    texts: list[str | None] = []
    for row, line in enumerate(lines):
        try:
            texts.append(line.decode())
        except UnicodeDecodeError as error:
            wrong[row] = f"not UTF-8: {error.reason} at byte {error.start}"
            texts.append(None)
    quoted = bool(dialect.quote) and any(text and dialect.quote in text for text in texts)
    if quoted or dialect.leading or dialect.trailing:
        values = [_values(row, text, dialect, wrong) for row, text in enumerate(texts)]
        lists = pl.Series("l", values, dtype=pl.List(pl.String))
    else:
        lists = pl.Series("l", texts, dtype=pl.String).str.split(dialect.sep)
    counts = lists.list.len()
    for row in ((counts != width) & lists.is_not_null()).arg_true().to_list():
        wrong.setdefault(row, f"number of values: {counts[row]}, not {width}")
    frame = pl.DataFrame([lists])
    parts = [pl.col("l").list.get(i, null_on_oob=True).alias(f"{i}") for i in range(width)]
    found = frame.select(parts) if parts else pl.DataFrame(height=len(lists))
    if quoted or dialect.leading or dialect.trailing:
        return found
    nulls = ["", dialect.null_value]
    return found.with_columns(
        [
            pl.when(~pl.col(name).is_in(nulls)).then(pl.col(name)).alias(name)
            for name in found.columns
        ]
    )


def _values(row: int, text: str | None, dialect: Dialect, wrong: dict[int, str]) -> Values | None:
    if text is None:
        return None
    try:
        return values_of(text, dialect)
    except BadQuotes as error:
        wrong[row] = str(error)
        return None


def header_names(line: bytes, dialect: Dialect) -> list[str]:
    """Of the columns, from the first record: `_c0` and so on where there is no header, or no name;
    names that are there twice get their place."""
    try:
        values = values_of(line.decode(), dialect)
    except (BadQuotes, UnicodeDecodeError) as error:
        raise BadRecordException(
            "MALFORMED_RECORD_IN_PARSING", f"the first line: {error}"
        ) from None
    if not dialect.header:
        return [f"_c{i}" for i in range(len(values))]
    low = [None if v is None else v.lower() for v in values]
    return [
        f"_c{i}" if value is None else f"{value}{i}" if low.count(value.lower()) > 1 else value
        for i, value in enumerate(values)
    ]
