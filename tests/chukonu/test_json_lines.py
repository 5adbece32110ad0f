"""JSON lines: the fast path gives what the strict one gives, and cuts do not matter."""

from __future__ import annotations

import base64
import gzip
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import Session
from superfs.chukonu import functions as F
from superfs.chukonu.ddl import parse_schema
from superfs.chukonu.errors import BadRecordException
from superfs.chukonu.sources import jsonlines
from superfs.chukonu.sources.bad import Policy
from superfs.chukonu.sources.jsonslow import DEPTH_MAX
from superfs.chukonu.sources.lines import lines_of
from superfs.chukonu.sources.splits import Block, blocks, cut
from superfs.chukonu.sources.store import FileInfo, LocalStore

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = parse_schema(
    "i INT, l BIGINT, d DOUBLE, s STRING, b BOOLEAN, a ARRAY<BIGINT>, o STRUCT<x: INT, y: STRING>"
)
FILE = FileInfo("f", 0, "")
PIECES = (
    '"i"', '"l"', '"d"', '"s"', '"b"', '"a"', '"o"', '"x"', '"z"', ":", ":", ":", ",", ",",
    "{", "}", "[", "]", "1", "-0", "1.5", "1e3", "2147483648", "9223372036854775808", "01", "-",
    "NaN", "null", "true", "false", '"text"', '"\\u00e9"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\q"',
    '"a\tb"', " ", "\r", "\n", "\n", "'", "//", "\ufeff", "é", '"😀"', "1E400", '"NaN"', "+1", "1.",
)  # fmt: skip


def good(rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {
        "i": rng.choice([0, -1, 2**31 - 1, None]),
        "l": rng.choice([2**63 - 1, 5, None]),
        "d": rng.choice([1.5, 3, -0.0, 1e300, None]),
        "s": rng.choice(["", "text", "é😀", 'q"\\', "{}", "}\n{", None]),
        "b": rng.choice([True, False, None]),
        "a": rng.choice([[], [1, None, 3], None]),
        "o": rng.choice([{}, {"x": 1, "y": "z"}, {"y": None, "w": [1]}, None]),
        "extra": rng.choice([1, "x", {"deep": [[{}]]}]),
    }
    return {key: values[key] for key in rng.sample(list(values), rng.randint(0, len(values)))}


def damaged(rng: random.Random, line: str) -> str:
    for _ in range(rng.randint(1, 3)):
        place = rng.randint(0, len(line))
        kind = rng.randint(0, 3)
        if kind == 0:
            line = line[:place]
        elif kind == 1:
            line = line[:place] + rng.choice(PIECES) + line[place:]
        elif kind == 2:
            line = line[:place] + line[place + 1 :]
        else:
            line = line[:place] + rng.choice(PIECES) + line[place + rng.randint(1, 5) :]
    return line


def both(data: bytes) -> None:
    """The fast path, where it is taken, is the slow one."""
    block = Block(FILE, 0, data)
    fast = jsonlines._fast_frame(data, SCHEMA)
    bad: list[Any] = []
    slow, seen = jsonlines.slow_frame(block, SCHEMA, Policy(), bad)
    if fast is None:
        return
    assert not bad, (data, bad)
    assert fast.cast(slow.schema).equals(slow, null_equal=True), data
    assert seen == slow.height


@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_a_line_without_end_is_an_error_with_its_place(
    ending: str, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superfs.chukonu.sources.splits.LINE_BYTES_MAX", 2 << 20)
    data = b'{"i": 1}\n' + b'{"i": ' + b" " * (5 << 20) + b'2}\n{"i": 3}\n'
    path = tmp_path / f"a.{ending}"
    path.write_bytes(gzip.compress(data, 1) if ending.endswith("gz") else data)
    with pytest.raises(BadRecordException, match=r"LINE_TOO_LONG\] .*at byte 9: .*2,097,152"):
        session.read.json(str(path), schema="i INT").collect()


def test_fast_is_slow() -> None:
    rng = random.Random(6)
    taken = 0
    for _ in range(1500):
        lines = []
        for _ in range(rng.randint(1, 4)):
            line = json.dumps(good(rng), ensure_ascii=rng.random() < 0.5)
            lines.append(damaged(rng, line) if rng.random() < 0.4 else line)
        data = rng.choice(["\n", "\n", "\r\n", "\n\n", " \n"]).join(lines)
        raw = data.encode("utf-8", "surrogatepass")
        both(raw)
        taken += jsonlines._fast_frame(raw, SCHEMA) is not None
    assert taken > 300


@pytest.mark.parametrize(
    "data",
    [
        b'{"i":1}{"i":2}',
        b'{"a":\n[1]}{"i":2}',
        b'{"i":1}\n{"i":2}{"i":3}\n\n',
        b'{"i":1,"i":2}',
        b'{"s":"\xff"}',
        b'{"s":"\\ud800"}',
        b'{"s":1}',
        b'{"i":1.0}',
        b'{"d":"NaN"}',
        b'{"z":' + b"[" * 600 + b"]" * 600 + b"}",
        b'{"z":01}',
        b'\xef\xbb\xbf{"i":1}',
        b'{"i":1}\r{"i":2}',
        b'{"o":{"x":1,"x":2}}',
        b'{"d":1E400}',
        b'{"d":123456789012345678901234567890}',
        b'{"i":-0}',
        b'{"z":1e5000}',
        b'{"s":"a\x00b"}',
        b'{"s":"a\\u0000b"}',
        b"[]",
        b"{}",
        b'{"i":1},',
        b'{"i":1} x',
        b'{"":1}',
    ],
)
def test_fast_is_slow_for(data: bytes) -> None:
    both(data)
    both(b'{"i":7}\n' + data + b'\n{"i":8}')


def read_split(path: Path, split_bytes: int, block_bytes: int) -> list[tuple[int, bytes]]:
    store = LocalStore()
    found = []
    for split in cut(store.files(str(path)), split_bytes):
        for block in blocks(store, split, block_bytes):
            found += [(block.offset + place, line) for place, line in lines_of(block.data)]
    return found


def test_cuts_do_not_matter(tmp_path: Path) -> None:
    """A line belongs to the split that has its first byte, whatever ends it."""
    rng = random.Random(1)
    for number in range(60):
        parts = [
            rng.choice([b"", b"x", b"abc" * rng.randint(0, 9)])
            + rng.choice([b"\n", b"\r\n", b"\r", b"\n\n"])
            for _ in range(rng.randint(0, 12))
        ]
        data = b"".join(parts) + rng.choice([b"", b"tail"])
        path = tmp_path / f"f{number}"
        path.write_bytes(data)
        whole = list(lines_of(data))
        for split_bytes in (1, 2, 3, 7, 1000):
            for block_bytes in (1, 5, 1000):
                found = read_split(path, split_bytes, block_bytes)
                assert found == whole, (data, split_bytes, block_bytes)


def write_damaged(path: Path) -> dict[int, bytes]:
    """A file with bad lines; their offsets."""
    truth: dict[int, bytes] = {}
    data = b""
    for number in range(400):
        line = json.dumps({"i": number, "s": "x" * (number % 50)}).encode()
        if number % 37 == 5:
            line = [line[:-1], b"junk", line + b"}", line.replace(b'"i": ', b'"i": "')][number % 4]
            truth[len(data)] = line
        data += line + b"\n"
    path.write_bytes(data)
    return truth


@pytest.mark.parametrize("split_bytes", [100, 1000, 1 << 20])
def test_quarantine(session: Session, tmp_path: Path, split_bytes: int) -> None:
    truth = write_damaged(tmp_path / "in.json")
    reader = session.read.schema("i INT, s STRING, _corrupt_record STRING")
    reader = reader.options(splitBytes=split_bytes, badRecordsPath=str(tmp_path / "bad"))
    frame = reader.json(str(tmp_path / "in.json"))
    for _ in range(2):  # doing it again writes the same again
        rows = frame.collect()
    assert len(rows) == 400
    assert [r._corrupt_record.encode() for r in rows if r._corrupt_record] == list(truth.values())
    kept = [
        json.loads(line)
        for name in sorted((tmp_path / "bad").iterdir())
        for line in name.read_text().splitlines()
    ]
    assert {k["offset"]: base64.b64decode(k["raw"]) for k in kept} == truth
    assert len(kept) == len(truth)
    assert all(k["path"] == str(tmp_path / "in.json") and k["reason"] for k in kept)


def test_modes(session: Session, tmp_path: Path) -> None:
    truth = write_damaged(tmp_path / "in.json")
    path = str(tmp_path / "in.json")
    dropped = session.read.json(path, schema="i INT", mode="DROPMALFORMED")
    assert dropped.count() == 400 - len(truth)
    with pytest.raises(BadRecordException, match=f"in.json at byte {min(truth)}"):
        session.read.json(path, schema="i INT", mode="FAILFAST").collect()
    with pytest.raises(BadRecordException, match="maxBadFraction"):
        session.read.option("maxBadFraction", 0.01).json(path, schema="i INT").collect()
    assert session.read.option("maxBadFraction", 0.1).json(path, schema="i INT").count() == 400


def test_truncated_gzip_keeps_its_complete_lines(session: Session, tmp_path: Path) -> None:
    rng = random.Random(2)
    lines = [json.dumps({"i": i, "s": rng.randbytes(20).hex()}) for i in range(1000)]
    whole = gzip.compress("\n".join(lines).encode())
    path = tmp_path / "in.json.gz"
    path.write_bytes(whole)
    assert session.read.json(str(path), schema="i INT").count() == 1000
    path.write_bytes(whole[: len(whole) // 2])
    reader = session.read.option("badRecordsPath", str(tmp_path / "bad"))
    rows = reader.json(str(path), schema="i INT", mode="DROPMALFORMED").collect()
    assert [r.i for r in rows] == list(range(len(rows)))
    assert 300 < len(rows) < 700
    (kept,) = [json.loads(f.read_text()) for f in (tmp_path / "bad").iterdir()]
    assert "truncated" in kept["reason"]
    assert kept["offset"] == sum(len(line) + 1 for line in lines[: len(rows)])


def test_schema_is_inferred_from_all_lines(session: Session, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "n": None} for _ in range(500)]
    rows += [{"a": 1.5, "late": [1, 2.5], "o": {"k": "v"}}, {"a": None, "o": {"j": 1}, "m": {}}]
    rows += [{"mix": 1}, {"mix": "x"}]
    path = tmp_path / "in.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    frame = session.read.json(str(path))
    assert frame.schema.simpleString() == (
        "struct<a:double,late:array<double>,mix:string,n:string,o:struct<j:bigint,k:string>>"
    )
    assert [r.mix for r in frame.filter(F.col("mix").isNotNull()).collect()] == ["1", "x"]


def test_depth_has_a_limit(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    deep = "[" * DEPTH_MAX + "]" * DEPTH_MAX
    path.write_text(f'{{"i": 1, "z": {deep}}}\n{{"i": 2, "z": {deep[1:-1]}}}\n')
    assert [r.i for r in session.read.json(str(path), schema="i INT").collect()] == [None, 2]
