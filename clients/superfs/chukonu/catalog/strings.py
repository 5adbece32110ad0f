"""Functions of strings. Lengths and places count code points; places begin with 1."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.base import (
    BYTES,
    INT,
    INT_CONST,
    STR,
    STR_CONST,
    Param,
    function,
)
from superfs.chukonu.catalog.numbers import aligned, by_row
from superfs.chukonu.catalog.regex import consuming, like, replacement, translate
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable

Px = Any


def _simple(name: str, apply: Callable[[Px], Px], result: t.DataType = t.STRING) -> None:
    function(name, [STR], result)(apply)


_simple("upper", lambda a: a.str.to_uppercase())
_simple("lower", lambda a: a.str.to_lowercase())
_simple("char_length", lambda a: a.str.len_chars().cast(pl.Int32), t.INT)
_simple("reverse_string", lambda a: by_row(lambda v: v[::-1], pl.String, a))
_simple("ascii", lambda a: by_row(lambda v: ord(v[0]) if v else 0, pl.Int32, a), t.INT)


@function("length", [BYTES], t.INT, typed=True)
def length(kinds: tuple[t.DataType, ...], a: Px) -> Px:
    found = a.bin.size() if kinds[0] == t.BINARY else a.str.len_chars()
    return found.cast(pl.Int32)


@function("octet_length", [BYTES], t.INT, typed=True)
def octet_length(kinds: tuple[t.DataType, ...], a: Px) -> Px:
    return (a.bin.size() if kinds[0] == t.BINARY else a.str.len_bytes()).cast(pl.Int32)


@function("bit_length", [BYTES], t.INT, typed=True)
def bit_length(kinds: tuple[t.DataType, ...], a: Px) -> Px:
    return octet_length(kinds, a) * 8


# ---- trimming: spaces only, unless other characters are named


@function("trim", [STR, STR_CONST], t.STRING, optional=1)
def trim(a: Px, chars: str = " ") -> Px:
    return a.str.strip_chars(chars) if chars else a


@function("ltrim", [STR, STR_CONST], t.STRING, optional=1)
def ltrim(a: Px, chars: str = " ") -> Px:
    return a.str.strip_chars_start(chars) if chars else a


@function("rtrim", [STR, STR_CONST], t.STRING, optional=1)
def rtrim(a: Px, chars: str = " ") -> Px:
    return a.str.strip_chars_end(chars) if chars else a


# ---- parts


def _substring(text: str, start: int, count: int) -> str:
    begin = start - 1 if start > 0 else len(text) + start if start < 0 else 0
    end = min(begin + count, len(text))
    return text[max(begin, 0) : max(end, 0)] if count > 0 else ""


@function("substring", [STR, INT, INT], t.STRING, optional=1)
def substring(a: Px, start: Px, count: Px = None) -> Px:
    if count is None:
        count = pl.lit(t.INT.largest, pl.Int32)
    return by_row(_substring, pl.String, a, start, count)


@function("left", [STR, INT], t.STRING)
def left(a: Px, count: Px) -> Px:
    return by_row(lambda v, n: v[: max(n, 0)], pl.String, a, count)


@function("right", [STR, INT], t.STRING)
def right(a: Px, count: Px) -> Px:
    return by_row(lambda v, n: v[-n:] if n > 0 else "", pl.String, a, count)


@function("substring_index", [STR, STR, INT], t.STRING)
def substring_index(a: Px, mark: Px, count: Px) -> Px:
    def run(text: str, mark: str, count: int) -> str:
        if not mark or count == 0:
            return ""
        parts = text.split(mark)
        if count > 0:
            return mark.join(parts[:count])
        place = len(text)  # from the right, marks may overlap otherwise than from the left
        for _ in range(-count):
            place = text.rfind(mark, 0, place + len(mark) - 1)
            if place < 0:
                return text
        return text[place + len(mark) :]

    return by_row(run, pl.String, a, mark, count)


@function("instr", [STR, STR], t.INT)
def instr(a: Px, part: Px) -> Px:
    return by_row(lambda v, p: v.find(p) + 1, pl.Int32, a, part)


@function("locate", [STR, STR, INT], t.INT, optional=1)
def locate(part: Px, a: Px, start: Px = None) -> Px:
    if start is None:
        start = pl.lit(1, pl.Int32)

    def run(part: str, text: str, start: int) -> int:
        if start <= 0 or not part:
            return int(start > 0)
        return text.find(part, start - 1) + 1

    return by_row(run, pl.Int32, part, a, start)


@function("contains", [STR, STR], t.BOOLEAN)
def contains(a: Px, part: Px) -> Px:
    return a.str.contains(part, literal=True)


@function("startswith", [STR, STR], t.BOOLEAN)
def startswith(a: Px, part: Px) -> Px:
    return a.str.starts_with(part)


@function("endswith", [STR, STR], t.BOOLEAN)
def endswith(a: Px, part: Px) -> Px:
    return a.str.ends_with(part)


# ---- patterns


@function("like", [STR, STR_CONST], t.BOOLEAN)
def like_(a: Px, pattern: str) -> Px:
    return a.str.contains(like(pattern))


@function("ilike", [STR, STR_CONST], t.BOOLEAN)
def ilike(a: Px, pattern: str) -> Px:
    return a.str.to_lowercase().str.contains(like(pattern.lower()))


@function("rlike", [STR, STR_CONST], t.BOOLEAN)
def rlike(a: Px, pattern: str) -> Px:
    return a.str.contains(translate(pattern).rust)


@function("regexp_replace", [STR, STR_CONST, STR_CONST], t.STRING)
def regexp_replace(a: Px, pattern: str, by: str) -> Px:
    found = consuming(pattern, "regexp_replace")
    return a.str.replace_all(found.rust, replacement(by, found.groups))


@function("regexp_extract", [STR, STR_CONST, INT_CONST], t.STRING, optional=1)
def regexp_extract(a: Px, pattern: str, group: int = 1) -> Px:
    found = consuming(pattern, "regexp_extract")
    if not 0 <= group <= found.groups:
        raise UnsupportedError(f"regexp_extract of group {group} in {pattern!r}")
    return pl.when(a.is_not_null()).then(a.str.extract(found.rust, group).fill_null(""))


@function("regexp_count", [STR, STR_CONST], t.INT)
def regexp_count(a: Px, pattern: str) -> Px:
    return a.str.count_matches(consuming(pattern, "regexp_count").rust).cast(pl.Int32)


@function("regexp_extract_all", [STR, STR_CONST, INT_CONST], t.ArrayType(t.STRING))
def regexp_extract_all(a: Px, pattern: str, group: int) -> Px:
    found = consuming(pattern, "regexp_extract_all")
    if group != 0:
        raise UnsupportedError("regexp_extract_all of a group other than 0")
    return a.str.extract_all(found.rust)


@function("split", [STR, STR_CONST, INT_CONST], t.ArrayType(t.STRING), optional=1)
def split(a: Px, pattern: str, limit: int = -1) -> Px:
    """As Java's split with that limit: 0 means -1 to Spark. A match of nothing cannot be."""
    if limit == 1:
        return pl.when(a.is_not_null()).then(pl.concat_list(a))
    found = consuming(pattern, "split")
    plain = re.fullmatch(r"(?:[^\\.+*?()|\[\]{}^$]|\\[^A-Za-z0-9])+", pattern)
    literal = re.sub(r"\\(.)", r"\1", pattern) if plain else None
    if literal is not None and limit <= 0:
        return a.str.split(literal)
    compiled = re.compile(_python(found.rust))
    most = limit - 1 if limit > 0 else 0
    return by_row(lambda v: _split(compiled, v, most), pl.List(pl.String), a)


def _python(rust: str) -> str:
    text = re.sub(r"\\u\{([0-9a-fA-F]+)\}", lambda m: f"\\U{int(m[1], 16):08x}", rust)
    return text.replace("\\z", "\\Z")


def _split(compiled: Any, text: str, most: int) -> list[str]:  # noqa: ANN401
    found, place = [], 0
    for count, match in enumerate(compiled.finditer(text)):
        if most and count >= most:
            break
        found.append(text[place : match.start()])
        place = match.end()
    return [*found, text[place:]]


# ---- making strings


@function("concat", [STR], t.STRING, rest=STR)
def concat(*args: Px) -> Px:
    return pl.concat_str(*args) if len(args) > 1 else args[0]


STRINGS = Param("string or array<string>", (t.STRING, t.ArrayType(t.STRING)), t.STRING)


@function("concat_ws", [STR], t.STRING, rest=STRINGS)
def concat_ws(mark: Px, *args: Px) -> Px:
    def run(row: Any) -> Any:  # noqa: ANN401
        found: list[str] = []
        for value in row[1:]:
            if isinstance(value, list):
                found += [v for v in value if v is not None]
            elif value is not None:
                found.append(value)
        return None if row[0] is None else row[0].join(found)

    def rows(columns: list[Any]) -> Any:  # noqa: ANN401
        lists = aligned(columns)
        return pl.Series([run(row) for row in zip(*lists, strict=True)], dtype=pl.String)

    return pl.map_batches([mark, *args], rows, return_dtype=pl.String)


@function("repeat", [STR, INT], t.STRING)
def repeat(a: Px, count: Px) -> Px:
    return by_row(lambda v, n: v * max(n, 0), pl.String, a, count)


def _padded(text: str, size: int, pad: str, *, before: bool) -> str:
    if size <= len(text):
        return text[: max(size, 0)]
    if not pad:
        return text
    missing = size - len(text)
    fill = (pad * (missing // len(pad) + 1))[:missing]
    return fill + text if before else text + fill


@function("lpad", [STR, INT, STR], t.STRING)
def lpad(a: Px, size: Px, pad: Px) -> Px:
    return by_row(lambda v, n, p: _padded(v, n, p, before=True), pl.String, a, size, pad)


@function("rpad", [STR, INT, STR], t.STRING)
def rpad(a: Px, size: Px, pad: Px) -> Px:
    return by_row(lambda v, n, p: _padded(v, n, p, before=False), pl.String, a, size, pad)


@function("replace", [STR, STR_CONST, STR_CONST], t.STRING, optional=1)
def replace(a: Px, part: str, by: str = "") -> Px:
    return a.str.replace_all(part, by, literal=True) if part else a


@function("translate", [STR, STR_CONST, STR_CONST], t.STRING)
def translate_(a: Px, chars: str, by: str) -> Px:
    table: dict[int, str] = {}
    for place, char in enumerate(chars):
        table.setdefault(ord(char), by[place] if place < len(by) else "")
    return by_row(lambda v: v.translate(table), pl.String, a)


@function("initcap", [STR], t.STRING)
def initcap(a: Px) -> Px:
    def run(text: str) -> str:
        words = text.split(" ")  # a final sigma is one in its whole word
        return " ".join(w[:1].title() + w.lower()[len(w[:1].lower()) :] for w in words)

    return by_row(run, pl.String, a)


# ---- hashes and codes


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _coded(name: str, apply: Callable[[bytes], Any], result: t.DataType, kind: Px) -> None:
    @function(name, [BYTES], result)
    def kernel(a: Px) -> Px:
        return by_row(lambda v: apply(_bytes(v)), kind, a)


_coded("md5", lambda b: hashlib.md5(b).hexdigest(), t.STRING, pl.String)
_coded("sha1", lambda b: hashlib.sha1(b).hexdigest(), t.STRING, pl.String)
_coded("crc32", zlib.crc32, t.LONG, pl.Int64)
_coded("base64", lambda b: base64.b64encode(b).decode(), t.STRING, pl.String)


@function("hex", [BYTES], t.STRING)
def hex_(a: Px) -> Px:
    return by_row(lambda v: _bytes(v).hex().upper(), pl.String, a)


@function("sha2", [BYTES, INT_CONST], t.STRING)
def sha2(a: Px, bits: int) -> Px:
    kinds = {0: hashlib.sha256, 224: hashlib.sha224, 256: hashlib.sha256}
    kinds |= {384: hashlib.sha384, 512: hashlib.sha512}
    if bits not in kinds:
        raise UnsupportedError(f"sha2 of {bits} bits")
    return by_row(lambda v: kinds[bits](_bytes(v)).hexdigest(), pl.String, a)


@function("encode", [STR, STR_CONST], t.BINARY)
def encode(a: Px, charset: str) -> Px:
    if charset.lower() not in ("utf-8", "utf8"):
        raise UnsupportedError(f"encode to {charset}")
    return a.cast(pl.Binary)


@function("unhex", [STR], t.BINARY)
def unhex(a: Px) -> Px:
    def run(text: str) -> bytes | None:
        digits = "0123456789abcdefABCDEF"
        text = "0" + text if len(text) % 2 else text
        return bytes.fromhex(text) if all(c in digits for c in text) else None

    return by_row(run, pl.Binary, a)
