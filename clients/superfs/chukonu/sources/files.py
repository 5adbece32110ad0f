"""Scans: the files of one `read`, their schema, and partitions of frames in the order of files."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.dtypes import dtype, type_of_arrow
from superfs.chukonu.errors import AnalysisException, BadRecordException
from superfs.chukonu.native import pa, pa_parquet, pl
from superfs.chukonu.sources import csvinfer, csvlines, jsonlines
from superfs.chukonu.sources.bad import BadRecord, Policy
from superfs.chukonu.sources.grouping import Group, by_host, plain
from superfs.chukonu.sources.jsonslow import merged, settled
from superfs.chukonu.sources.lines import lines_of
from superfs.chukonu.sources.ranges import PARQUET_BUFFER_BYTES, opened
from superfs.chukonu.sources.splits import (
    LINE_BYTES_MAX,
    PEEK_BYTES,
    SAMPLE_SPLIT_BYTES,
    SPLIT_BYTES,
    Block,
    Split,
    blocks,
    compression,
    cut,
    sampled,
)
from superfs.chukonu.sources.store import Fetching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.chukonu.counters import Counts
    from superfs.chukonu.expressions import Ref
    from superfs.chukonu.sources.csvdialect import Dialect
    from superfs.chukonu.sources.store import FileInfo, Store

Frame = Any
FRAME_BYTES = 16 << 20
"""As much as a frame of rows that were read has, about."""
BATCH_ROWS = 4096
"""Of parquet, that are decoded at once."""


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
    dialect: Dialect | None = None
    """Of CSV."""
    _left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        """For workers of other processes, which begin to count anew."""
        parts = (self.format, self.store, self.files, self.schema, self.policy)
        return Source, (*parts, self.split_bytes, self.sample_bytes, self.dialect)

    @property
    def _whole(self) -> bool:
        """No file is cut."""
        multi_line = self.dialect is not None and self.dialect.multi_line
        return self.format in ("parquet", "binaryFile") or multi_line

    @cached_property
    def splits(self) -> list[Split]:
        found = cut(self.files, self.split_bytes, whole=self._whole)
        return found if self.sample_bytes is None else sampled(found, self.sample_bytes)

    def groups(self, *, ordered: bool) -> list[Group]:
        """Its splits for tasks on several hosts (grouping.py); those of one host where all is."""
        places = self.store.places
        if self.sample_bytes is not None or not self.files or not places(self.files[0]):
            return plain(self.splits)
        found = by_host(self.files, places, self.split_bytes, whole=self._whole, ordered=ordered)
        if len({group.hosts[:1] for group in found}) > 1:
            return found
        return [replace(group, hosts=found[0].hosts) for group in plain(self.splits)]

    def describe(self) -> str:
        size = sum(file.size for file in self.files)
        text = f"{self.format}, {len(self.files)} files, {size:,} bytes, {len(self.splits)} splits"
        share = self.store.local_share(self.files)
        return text if share is None else f"{text}, {share:.0%} of the bytes on this machine"

    def planned(self) -> list[Split]:
        """Its splits, when a run begins."""
        splits = self.splits
        self._left = len(splits)
        self.policy.records = self.policy.bad = 0
        return splits

    def frames(
        self,
        split: Split,
        columns: Sequence[Ref],
        counts: Counts,
        read: Callable[[int, int], None] = lambda *_: None,
        frame_bytes: int = FRAME_BYTES,
    ) -> Iterator[Frame]:
        """Its rows, in frames of about that size. `read` is told at the end how many bytes of the
        files it owns, and how many it fetched: what lies around a cut is looked at from both
        sides."""
        bad: list[BadRecord] = []
        store = Fetching(self.store)
        parsed = _READERS[self.format](self, store, split, columns, bad)
        for frame, records in gathered(parsed, frame_bytes):
            found = frame.select([pl.col(c.name).alias(c.key) for c in columns])
            counts.rows_in += records
            counts.rows_out += found.height
            yield found
        for record in bad:
            counts.dropped[record.kind] = counts.dropped.get(record.kind, 0) + 1
        with self._lock:
            self._left -= 1
            last = self._left == 0
        self.policy.settle(split.identity(self.format), counts.rows_in, bad, last=last)
        read(split.bytes, store.fetched_bytes)


def gathered(frames: Iterator[tuple[Frame, int]], frame_bytes: int) -> Iterator[tuple[Frame, int]]:
    """Many small frames as fewer ones that are worth a step each."""
    waiting: list[Frame] = []
    rows = size = 0
    for frame, records in frames:
        waiting.append(frame)
        rows, size = rows + records, size + frame.estimated_size()
        if size >= frame_bytes:
            yield pl.concat(waiting), rows
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pl.concat(waiting) if len(waiting) > 1 else waiting[0], rows


def _json(
    source: Source, store: Fetching, split: Split, _: Sequence[Ref], bad: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    for block in blocks(store, split):
        yield jsonlines.parse(block, source.schema, source.policy, bad)


def _csv(
    source: Source, store: Fetching, split: Split, _: Sequence[Ref], bad: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    dialect = source.dialect
    assert dialect is not None
    for block, first in _first_records(store, _blocks(store, split, dialect)):
        header = first and dialect.header
        yield csvlines.parse(block, source.schema, source.policy, bad, dialect, header=header)


def _blocks(store: Fetching, split: Split, dialect: Dialect) -> Iterator[Block]:
    """A file at a time where records may have line ends in them."""
    if not dialect.multi_line:
        yield from blocks(store, split)
        return
    for span in split.spans:
        parts = list(blocks(store, Split((span,))))
        size = sum(len(part.data) for part in parts)
        if size > LINE_BYTES_MAX:
            raise BadRecordException(
                "CHUKONU_FILE_TOO_LARGE",
                f"{span.file.path}: {size:,} bytes, of at most {LINE_BYTES_MAX:,} with multiLine",
            )
        whole = b"".join(part.data for part in parts)
        yield Block(span.file, 0, whole, parts[-1].broken if parts else "")


def _first_records(store: Fetching, parts: Iterator[Block]) -> Iterator[tuple[Block, bool]]:
    """Whether the first record of a file is in it. Blank lines are no records."""
    waiting = ""
    for block in parts:
        path = block.file.path
        if block.offset == 0:
            waiting = path
        elif block.offset <= PEEK_BYTES and waiting != path and compression(path) is None:
            before = store.read(path, 0, block.offset)  # which other tasks have
            waiting = path if csvlines.blank(before, 0) else waiting
        first = waiting == path and not csvlines.blank(block.data, block.offset)
        waiting = "" if first else waiting
        yield block, first


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
    files = [span.file for span in split.spans]
    frame: dict[str, Any] = {
        "path": [file.path for file in files],
        "length": pl.Series([file.size for file in files], dtype=pl.Int64),
    }
    if any(c.name == "content" for c in columns):
        frame["content"] = pl.Series(store.read_many(files), dtype=pl.Binary)
    yield pl.DataFrame(frame), len(files)


def _parquet(
    _source: Source, store: Fetching, split: Split, columns: Sequence[Ref], _: list[BadRecord]
) -> Iterator[tuple[Frame, int]]:
    wanted = {c.name: c.dtype for c in columns}
    for span in split.spans:
        file = span.file
        try:
            reader = pa_parquet.ParquetFile(opened(store, file), buffer_size=PARQUET_BUFFER_BYTES)
            here = {f.name: f for f in reader.schema_arrow}
            casts = [_column(file.path, name, kind, here) for name, kind in wanted.items()]
            names = [name for name in wanted if name in here]
            if not names:
                rows = reader.metadata.num_rows
                yield pl.DataFrame(height=rows).with_columns(casts), rows
                continue
            for batch in reader.iter_batches(_rows(reader), columns=names, use_threads=False):
                frame = pl.from_arrow(pa.Table.from_batches([batch]))
                yield frame.select(casts), batch.num_rows
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise BadRecordException("CANNOT_READ_FILE", f"{file.path}: {error}") from None


def _column(path: str, name: str, kind: t.DataType, here: dict[str, Any]) -> Any:  # noqa: ANN401
    if name not in here:
        return pl.lit(None, dtype(kind)).alias(name)
    found = type_of_arrow(here[name].type, f"{path}: {name}")
    if t.wider(found, kind) != kind:
        raise BadRecordException(
            "PARQUET_COLUMN_DATA_TYPE_MISMATCH",
            f"{path}: {name} is {found.simpleString()}, not {kind.simpleString()}",
        )
    return pl.col(name).cast(dtype(kind))


def _rows(reader: Any) -> int:  # noqa: ANN401
    """As many as make a part of a frame, however well they are encoded."""
    about = reader.metadata
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    return max(1, min(BATCH_ROWS, about.num_rows * FRAME_BYTES // max(1, size)))


_READERS: dict[str, Callable[..., Iterator[tuple[Frame, int]]]] = {
    "json": _json,
    "csv": _csv,
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
    kind: str,
    store: Store,
    files: list[FileInfo],
    policy: Policy,
    sample_bytes: int | None = None,
    dialect: Dialect | None = None,
) -> t.StructType:
    """Over all input, or over a sample of it."""
    if kind in FIXED:
        return FIXED[kind]
    if not files:
        raise AnalysisException("UNABLE_TO_INFER_SCHEMA", "there are no files: give a schema")
    if kind == "parquet":
        return _parquet_schema(store, files)
    if dialect is not None:
        return _csv_schema(store, files, policy, sample_bytes, dialect)
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


def _csv_schema(
    store: Store,
    files: list[FileInfo],
    policy: Policy,
    sample_bytes: int | None,
    dialect: Dialect,
) -> t.StructType:
    names: list[str] = []
    kinds: list[t.DataType] = []
    splits = cut(files, whole=dialect.multi_line)
    if sample_bytes is not None:
        splits = sampled(cut(files, SAMPLE_SPLIT_BYTES, whole=dialect.multi_line), sample_bytes)
    fetching = Fetching(store)
    for split in splits:
        for block, first in _first_records(fetching, _blocks(fetching, split, dialect)):
            if not names and first:
                _, line = next(csvlines.records(block, dialect))
                names = csvlines.header_names(line, dialect)
                kinds = [t.NULL] * len(names)
            if names and not dialect.infer_schema:
                return t.StructType([t.StructField(name, t.STRING) for name in names])
            header = first and dialect.header
            kinds, _ = csvinfer.infer_block(block, kinds, dialect, header=header)
    pairs = zip(names, kinds, strict=True)
    found = [t.StructField(n, t.STRING if k == t.NULL else k) for n, k in pairs]
    return t.StructType(found)


def _parquet_schema(store: Store, files: list[FileInfo]) -> t.StructType:
    """That of the first file: columns that later files lack are null there."""
    try:
        arrow = pa_parquet.read_schema(opened(store, files[0]))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadRecordException("CANNOT_READ_FILE", f"{files[0].path}: {error}") from None
    fields = [
        t.StructField(f.name, type_of_arrow(f.type, f"{files[0].path}: {f.name}")) for f in arrow
    ]
    return t.StructType(fields)
