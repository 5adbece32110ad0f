"""Scans: the files of one `read`, their schema, and partitions of frames in the order of files."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.dtypes import dtype, type_of_arrow
from superfs.chukonu.errors import AnalysisException, BadRecordException
from superfs.chukonu.native import pa, pa_parquet, pl
from superfs.chukonu.sources import jsonlines
from superfs.chukonu.sources.bad import BadRecord, Policy
from superfs.chukonu.sources.jsonslow import merged, settled
from superfs.chukonu.sources.lines import lines_of
from superfs.chukonu.sources.splits import (
    SAMPLE_SPLIT_BYTES,
    SPLIT_BYTES,
    Split,
    blocks,
    cut,
    sampled,
)
from superfs.chukonu.sources.store import Fetching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.chukonu.counters import Counts
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
    sample_bytes: int | None = None
    """Only about as much is read, here and there."""
    _left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        """For workers of other processes, which begin to count anew."""
        parts = (self.format, self.store, self.files, self.schema, self.policy)
        return Source, (*parts, self.split_bytes, self.sample_bytes)

    @property
    def splits(self) -> list[Split]:
        whole = self.format in ("parquet", "binaryFile")
        found = cut(self.files, self.split_bytes, whole=whole)
        return found if self.sample_bytes is None else sampled(found, self.sample_bytes)

    def describe(self) -> str:
        size = sum(file.size for file in self.files)
        text = f"{self.format}, {len(self.files)} files, {size:,} bytes, {len(self.splits)} splits"
        share = self.store.local_share(self.files)
        return text if share is None else f"{text}, {share:.0%} of the bytes on this machine"

    def partitions(
        self, columns: Sequence[Ref]
    ) -> Iterator[Callable[[Counts], tuple[Frame, int, int]]]:
        """Each gives its rows, how many bytes of the files it owns, and how many it fetched: what
        lies around a cut is looked at from both sides."""
        splits = self.splits
        self._left = len(splits)
        self.policy.records = self.policy.bad = 0
        for split in splits:
            yield partial(self.read, split, columns)

    def read(self, split: Split, columns: Sequence[Ref], counts: Counts) -> tuple[Frame, int, int]:
        frames: list[Frame] = []
        bad: list[BadRecord] = []
        store = Fetching(self.store)
        for frame, records in _READERS[self.format](self, store, split, columns, bad):
            frames.append(frame.select([pl.col(c.name).alias(c.key) for c in columns]))
            counts.rows_in += records
            counts.rows_out += frame.height
        for record in bad:
            counts.dropped[record.kind] = counts.dropped.get(record.kind, 0) + 1
        with self._lock:
            self._left -= 1
            last = self._left == 0
        self.policy.settle(split.identity(self.format), counts.rows_in, bad, last=last)
        if not frames:
            frames = [pl.DataFrame(schema={c.key: dtype(c.dtype) for c in columns})]
        whole = pl.concat(frames) if len(frames) > 1 else frames[0]
        return whole, split.bytes, store.fetched_bytes


def _json(
    source: Source, store: Fetching, split: Split, _: Sequence[Ref], bad: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    for block in blocks(store, split):
        yield jsonlines.parse(block, source.schema, source.policy, bad)


def _text(
    source: Source, store: Fetching, split: Split, _: Sequence[Ref], bad: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    """Spark hands on bytes that are not UTF-8; here they are bad records, and an error unless the
    job says where to keep those."""
    for block in blocks(store, split):
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
    _source: Source, store: Fetching, split: Split, columns: Sequence[Ref], _: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    paths = [span.file.path for span in split.spans]
    frame: dict[str, Any] = {
        "path": paths,
        "length": pl.Series([span.file.size for span in split.spans], dtype=pl.Int64),
    }
    if any(c.name == "content" for c in columns):
        frame["content"] = pl.Series(store.read_many(paths), dtype=pl.Binary)
    yield pl.DataFrame(frame), len(paths)


def _parquet(
    _source: Source, store: Fetching, split: Split, columns: Sequence[Ref], _: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    wanted = {c.name: c.dtype for c in columns}
    for span in split.spans:
        file = span.file
        data = store.read(file.path, 0, file.size)
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


def infer(
    kind: str, store: Store, files: list[FileInfo], policy: Policy, sample_bytes: int | None = None
) -> t.StructType:
    """Over all input, or over a sample of it."""
    if kind in FIXED:
        return FIXED[kind]
    if not files:
        raise AnalysisException("UNABLE_TO_INFER_SCHEMA", "there are no files: give a schema")
    if kind == "parquet":
        return _parquet_schema(store, files)
    found: t.DataType = t.StructType([])
    spoiled = False
    splits = cut(files)
    if sample_bytes is not None:
        splits = sampled(cut(files, SAMPLE_SPLIT_BYTES), sample_bytes)
    for split in splits:
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
