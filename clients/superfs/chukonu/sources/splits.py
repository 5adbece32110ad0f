"""Splits: what one task reads. A large file is cut by bytes, small files are put together.

A record belongs to the split that has its first byte, so that it does not matter where the cuts
are. Records are lines; a line ends with LF, CR LF or CR, as for Spark.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from superfs.chukonu.errors import BadRecordException
from superfs.chukonu.native import pa
from superfs.chukonu.sources.collector import collector_off

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.chukonu.sources.store import FileInfo, Readable

SPLIT_BYTES = 16 << 20
"""As much as one task gets."""
SAMPLE_SPLIT_BYTES = 1 << 20
"""Of a sample, which is many small pieces."""
BLOCK_BYTES = 1 << 20
"""As much as is parsed at once: what has one bad line is parsed anew, slowly."""
LINE_BYTES_MAX = 128 << 20
"""A longer line is no record: it would be in memory several times over."""
PEEK_BYTES = 64 << 10
_END = re.compile(rb"\r\n|\n|\r")
_COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file that a split owns; whole when the file is compressed."""

    file: FileInfo
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Split:
    spans: tuple[Span, ...]

    @property
    def bytes(self) -> int:
        return sum(span.end - span.start for span in self.spans)

    @property
    def ranges(self) -> list[tuple[str, int, int]]:
        return [(span.file.path, span.start, span.end - span.start) for span in self.spans]

    def identity(self, what: str) -> str:
        """The same for the same bytes of the same versions of files, and the same work."""
        digest = hashlib.blake2b(what.encode(), digest_size=16)
        for span in self.spans:
            digest.update(f"\0{span.file.path}\0{span.file.version}\0{span.start}".encode())
            digest.update(f"\0{span.end}".encode())
        return digest.hexdigest()


def compression(path: str) -> str | None:
    return next((kind for end, kind in _COMPRESSED.items() if path.endswith(end)), None)


def cut(
    files: Sequence[FileInfo], split_bytes: int = SPLIT_BYTES, *, whole: bool = False
) -> list[Split]:
    """In the order of files and of bytes in them. `whole`: no file is cut."""
    with collector_off():
        return _cut(files, split_bytes, whole=whole)


def _cut(files: Sequence[FileInfo], split_bytes: int, *, whole: bool) -> list[Split]:
    splits: list[Split] = []
    waiting: list[Span] = []
    amount = 0
    for file in files:
        if whole or compression(file.path) or file.size <= split_bytes:
            pieces = [Span(file, 0, file.size)]
        else:
            count = -(-file.size // split_bytes)
            cuts = [file.size * i // count for i in range(count + 1)]
            pieces = [Span(file, a, b) for a, b in pairwise(cuts)]
        for piece in pieces:
            size = piece.end - piece.start
            if waiting and amount + size > split_bytes:
                splits.append(Split(tuple(waiting)))
                waiting, amount = [], 0
            waiting.append(piece)
            amount += size
    if waiting:
        splits.append(Split(tuple(waiting)))
    return splits


def sampled(splits: list[Split], size: int) -> list[Split]:
    """At regular distances, the first among them, until they have about that many bytes."""
    total = sum(split.bytes for split in splits)
    if total <= size:
        return splits
    count = max(1, len(splits) * size // total)
    return [splits[len(splits) * i // count] for i in range(count)]


def packed_together(splits: list[Split], count: int) -> list[Split]:
    """The same spans in at most so many splits, in their order."""
    count = min(count, len(splits))
    cuts = [len(splits) * i // count for i in range(count + 1)] if count else [0]
    return [
        Split(tuple(span for split in splits[a:b] for span in split.spans))
        for a, b in pairwise(cuts)
    ]


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, and where in the file they begin. `broken` says why what follows is missing."""

    file: FileInfo
    offset: int
    data: bytes
    broken: str = ""


def blocks(store: Readable, split: Split, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Small files are fetched together."""
    small = [s for s in split.spans if s.end - s.start == s.file.size <= block_bytes]
    contents = store.read_many([s.file for s in small])
    fetched = dict(zip((s.file.path for s in small), contents, strict=True))
    for span in split.spans:
        kind = compression(span.file.path)
        data = fetched.pop(span.file.path, None)
        if kind is not None:
            raw = _raw(store, span.file) if data is None else iter([data])
            yield from _decompressed(span.file, raw, kind, block_bytes)
        elif data is not None:
            yield from _cut_lines(span.file, data, block_bytes)
        else:
            yield from _owned(store, span, block_bytes)


class Broken(Exception):
    """A compressed stream cannot be read on."""


def _raw(store: Readable, file: FileInfo) -> Iterator[bytes]:
    for start in range(0, file.size, BLOCK_BYTES):
        yield store.read(file.path, start, min(BLOCK_BYTES, file.size - start))


def _gunzipped(raw: Iterator[bytes]) -> Iterator[bytes]:
    """However well it was compressed, a block at a time comes out."""
    stream = zlib.decompressobj(wbits=31)
    fresh = True
    try:
        for part in raw:
            while part:
                if stream.eof:
                    stream, fresh = zlib.decompressobj(wbits=31), True
                yield stream.decompress(part, BLOCK_BYTES)
                fresh = False
                part = stream.unused_data if stream.eof else stream.unconsumed_tail
    except zlib.error as error:
        raise Broken(f"the gzip stream is damaged: {error}") from None
    if not (stream.eof or fresh):
        raise Broken("the gzip stream is truncated")


def _unzipped(raw: Iterator[bytes], kind: str) -> Iterator[bytes]:
    try:
        with pa.CompressedInputStream(pa.PythonFile(_Reader(raw), "r"), kind) as stream:
            while part := stream.read(BLOCK_BYTES):
                yield part
    except OSError as error:
        raise Broken(f"the {kind} stream is damaged: {error}") from None


class _Reader:
    """Parts of bytes as a file, for Arrow."""

    closed = False

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (more := next(self._parts, b"")):
            self._rest += more
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def _decompressed(file: FileInfo, raw: Iterator[bytes], kind: str, size: int) -> Iterator[Block]:
    parts = _gunzipped(raw) if kind == "gzip" else _unzipped(raw, kind)
    place, rest, why = 0, b"", ""
    while not why:
        try:
            more = next(parts, None)
        except Broken as error:
            why = str(error)
            break
        if more is None:
            break
        rest += more
        if len(rest) < size:
            continue
        _check_length(file, place, rest)
        end = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, len(rest) - 1)) + 1
        if end:
            yield Block(file, place, rest[:end])
            place, rest = place + end, rest[end:]
    yield Block(file, place, rest, why)


def _cut_lines(file: FileInfo, data: bytes, block_bytes: int) -> Iterator[Block]:
    place = 0
    while len(data) - place > block_bytes:
        end = _line_end(data, place + block_bytes)
        if end < 0 or end >= len(data):
            break
        yield Block(file, place, data[place:end])
        place = end
    yield Block(file, place, data[place:] if place else data)


def _line_end(data: bytes, start: int) -> int:
    """Where the line after the first end at or after `start` begins; -1 when there is none."""
    match = _END.search(data, start)
    return -1 if match is None else match.end()


def _owned(store: Readable, span: Span, block_bytes: int) -> Iterator[Block]:
    """The lines whose first byte is in the span."""
    path, place = span.file.path, span.start
    rest = b""
    if place:
        place = _first_line(store, span)
    while place + len(rest) < span.end:
        more = store.read(path, place + len(rest), min(block_bytes, span.end - place - len(rest)))
        if not more:
            break
        rest += more
        _check_length(span.file, place, rest)
        cut_at = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, len(rest) - 1)) + 1
        if cut_at and place + len(rest) < span.end:
            yield Block(span.file, place, rest[:cut_at])
            place, rest = place + cut_at, rest[cut_at:]
    if rest:
        rest = _finished(store, span, place, rest)
        yield Block(span.file, place, rest)


def _check_length(file: FileInfo, place: int, data: bytes) -> None:
    """`data` begins with a line, at `place`."""
    if len(data) > LINE_BYTES_MAX and _line_end(data, 0) in (-1, len(data)):
        raise BadRecordException(
            "CHUKONU_LINE_TOO_LONG",
            f"{file.path} at byte {place}: a line of more than {LINE_BYTES_MAX:,} bytes",
        )


def _first_line(store: Readable, span: Span) -> int:
    """Where the first line that begins in the span begins; its end when none does."""
    place = span.start - 1
    before = b""
    while place < span.end:
        data = before + store.read(span.file.path, place + len(before), PEEK_BYTES)
        match = _END.search(data)
        at_edge = match is not None and match.end() == len(data) and data.endswith(b"\r")
        if match is not None and not (at_edge and place + len(data) < span.file.size):
            return min(place + match.end(), span.file.size)
        if len(data) == len(before):
            return span.file.size
        keep = 1 if data.endswith(b"\r") else 0
        place, before = place + len(data) - keep, data[len(data) - keep :]
    return max(place, span.end)


def _finished(store: Readable, span: Span, place: int, data: bytes) -> bytes:
    """The last line of a span goes on behind its end."""
    end = place + len(data)
    while end < span.file.size:
        if data.endswith(b"\n"):
            return data
        more = store.read(span.file.path, end, PEEK_BYTES)
        if data.endswith(b"\r"):
            return data + b"\n" if more.startswith(b"\n") else data
        match = _END.search(more)
        if match is None:
            data, end = data + more, end + len(more)
            _check_length(span.file, place, data)
            continue
        data, end = data + more[: match.end()], end + match.end()
        if match.group() != b"\r" or match.end() < len(more):
            return data
    return data
