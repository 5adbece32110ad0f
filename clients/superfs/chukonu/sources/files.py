"""Scans: the files of one `read`, their schema, and partitions of frames in the order of files."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.dtypes import dtype, type_of_arrow
from superfs.chukonu.errors import AnalysisException, BadRecordException
from superfs.chukonu.native import pa, pa_parquet, pl
from superfs.chukonu.sources import jsonlines
from superfs.chukonu.sources.bad import BadRecord, Policy
from superfs.chukonu.sources.jsonslow import merged, settled
from superfs.chukonu.sources.lines import lines_of
from superfs.chukonu.sources.splits import SPLIT_BYTES, Split, blocks, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.chukonu.expressions import Ref
    from superfs.chukonu.sources.store import FileInfo, Store

Frame = Any


@dataclass
class Source:
    """One `read` call."""

    format: str
    store: Store
    files: list[FileInfo]
    schema: t.StructType
    policy: Policy
    split_bytes: int = SPLIT_BYTES
    _left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def splits(self) -> list[Split]:
        return cut(self.files, self.split_bytes, whole=self.format in ("parquet", "binaryFile"))

    def describe(self) -> str:
        size = sum(file.size for file in self.files)
        text = f"{self.format}, {len(self.files)} files, {size:,} bytes, {len(self.splits)} splits"
        share = self.store.local_share(self.files)
        return text if share is None else f"{text}, {share:.0%} of the bytes on this machine"

    def partitions(self, columns: Sequence[Ref]) -> Iterator[Callable[[], Frame]]:
        splits = self.splits
        self._left = len(splits)
        self.policy.records = self.policy.bad = 0
        for split in splits:
            yield lambda split=split: self._read(split, columns)  # type: ignore[misc]

    def _read(self, split: Split, columns: Sequence[Ref]) -> Frame:
        frames: list[Frame] = []
        bad: list[BadRecord] = []
        seen = 0
        for frame, records in _READERS[self.format](self, split, columns, bad):
            frames.append(frame.select([pl.col(c.name).alias(c.key) for c in columns]))
            seen += records
        with self._lock:
            self._left -= 1
            last = self._left == 0
        self.policy.settle(split.identity(self.format), seen, bad, last=last)
        if not frames:
            return pl.DataFrame(schema={c.key: dtype(c.dtype) for c in columns})
        return pl.concat(frames) if len(frames) > 1 else frames[0]


def _json(
    source: Source, split: Split, _: Sequence[Ref], bad: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    for block in blocks(source.store, split):
        yield jsonlines.parse(block, source.schema, source.policy, bad)


def _text(
    source: Source, split: Split, _: Sequence[Ref], bad: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    """Spark hands on bytes that are not UTF-8; here they are bad records, and an error unless the
    job says where to keep those."""
    for block in blocks(source.store, split):
        if block.broken:
            raise BadRecordException("MALFORMED_FILE", f"{block.file.path}: {block.broken}")
        texts: list[str] = []
        for place, line in lines_of(block.data):
            try:
                texts.append(line.decode())
            except UnicodeDecodeError:
                where = block.offset + place
                record = BadRecord(block.file.path, where, line, "not UTF-8")
                source.policy.meet(record)
                if source.policy.path is None:
                    raise BadRecordException(
                        "MALFORMED_RECORD_IN_PARSING",
                        f"{record.path} at byte {where}: not UTF-8 (badRecordsPath keeps it)",
                    ) from None
                bad.append(record)
        yield pl.DataFrame({"value": pl.Series(texts, dtype=pl.String)}), len(texts)


def _binary(
    source: Source, split: Split, columns: Sequence[Ref], _: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    paths = [span.file.path for span in split.spans]
    frame: dict[str, Any] = {
        "path": paths,
        "length": pl.Series([span.file.size for span in split.spans], dtype=pl.Int64),
    }
    if any(c.name == "content" for c in columns):
        frame["content"] = pl.Series(source.store.read_many(paths), dtype=pl.Binary)
    yield pl.DataFrame(frame), len(paths)


def _parquet(
    source: Source, split: Split, columns: Sequence[Ref], _: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    wanted = {c.name: c.dtype for c in columns}
    for span in split.spans:
        file = span.file
        data = source.store.read(file.path, 0, file.size)
        try:
            reader = pa_parquet.ParquetFile(pa.BufferReader(data))
            here = {f.name: f for f in reader.schema_arrow}
            table = reader.read([name for name in wanted if name in here], use_threads=False)
        except pa.ArrowException as error:
            raise BadRecordException("CANNOT_READ_FILE", f"{file.path}: {error}") from None
        frame = pl.from_arrow(table) if table.num_columns else pl.DataFrame(height=table.num_rows)
        made = []
        for name, kind in wanted.items():
            if name in here:
                found = type_of_arrow(here[name].type, f"{file.path}: {name}")
                if t.wider(found, kind) != kind:
                    raise BadRecordException(
                        "PARQUET_COLUMN_DATA_TYPE_MISMATCH",
                        f"{file.path}: {name} is {found.simpleString()}, not {kind.simpleString()}",
                    )
                made.append(pl.col(name).cast(dtype(kind)))
            else:
                made.append(pl.lit(None, dtype(kind)).alias(name))
        yield frame.with_columns(made), table.num_rows


_READERS: dict[str, Callable[..., Iterator[tuple[Frame, int]]]] = {
    "json": _json,
    "text": _text,
    "binaryFile": _binary,
    "parquet": _parquet,
}
FIXED: dict[str, t.StructType] = {
    "text": t.StructType([t.StructField("value", t.STRING)]),
    "binaryFile": t.StructType(
        [
            t.StructField("path", t.STRING),
            t.StructField("length", t.LONG),
            t.StructField("content", t.BINARY),
        ]
    ),
}


def infer(kind: str, store: Store, files: list[FileInfo], policy: Policy) -> t.StructType:
    """Over all input."""
    if kind in FIXED:
        return FIXED[kind]
    if not files:
        raise AnalysisException("UNABLE_TO_INFER_SCHEMA", "there are no files: give a schema")
    if kind == "parquet":
        return _parquet_schema(store, files)
    found: t.DataType = t.StructType([])
    spoiled = False
    for split in cut(files):
        for block in blocks(store, split):
            fields, bad = jsonlines.infer_block(block)
            found, spoiled = merged(found, fields), spoiled or bad
    if spoiled and policy.mode == "PERMISSIVE":
        found = merged(found, t.StructType([t.StructField(policy.column, t.STRING)]))
    schema = settled(found)
    return schema if isinstance(schema, t.StructType) else t.StructType([])


def _parquet_schema(store: Store, files: list[FileInfo]) -> t.StructType:
    """That of the first file: columns that later files lack are null there."""
    data = store.read(files[0].path, 0, files[0].size)
    try:
        arrow = pa_parquet.read_schema(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise BadRecordException("CANNOT_READ_FILE", f"{files[0].path}: {error}") from None
    fields = [
        t.StructField(f.name, type_of_arrow(f.type, f"{files[0].path}: {f.name}")) for f in arrow
    ]
    return t.StructType(fields)
