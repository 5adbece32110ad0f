"""CSV files in tasks of any size, bad lines with their places, and what comes back from what was
written. What Spark answers is in test_spark_answers.py."""

from __future__ import annotations

import base64
import gzip
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import functions as F
from superfs.chukonu.errors import AnalysisException, BadRecordException, UnsupportedError
from superfs.chukonu.sources.csvdialect import BadQuotes, Dialect, records_of, values_of

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.chukonu import Session

SCHEMA = "i INT, s STRING, x DOUBLE"
LINES = [
    b'1,"a, b",1.5',
    b"2,plain,",
    b"",
    b'3,"not closed,2',
    b"4,too,1,many",
    b"5,few",
    b"six,word,6",
    b"7,\xff\xfe,7",
    b'8,"es\\"caped \\\\",8',
    b'9,"two""quotes",9',
    "10,é😀,10".encode(),
]
BAD = {3: "quote", 4: "4, not 3", 5: "2, not 3", 6: "six is not int", 7: "UTF-8", 9: "quote"}


def offsets(lines: list[bytes], end: bytes) -> list[int]:
    return [sum(len(line) + len(end) for line in lines[:i]) for i in range(len(lines))]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("split", [1, 7, 30, 1 << 20])
def test_bad_lines_are_kept_whatever_the_tasks(
    session: Session, tmp_path: Path, end: bytes, split: int
) -> None:
    lines = [b"i,s,x", *LINES]
    (tmp_path / "in.csv").write_bytes(end.join(lines))
    reader = session.read.option("header", True).option("splitBytes", split)
    reader = reader.option("badRecordsPath", str(tmp_path / "bad")).schema(SCHEMA)
    rows = reader.option("mode", "DROPMALFORMED").csv(str(tmp_path / "in.csv")).collect()
    assert [row["i"] for row in rows] == [1, 2, 8, 10]
    assert [row["s"] for row in rows] == ["a, b", "plain", 'es"caped \\', "é😀"]
    kept = [
        json.loads(line)
        for path in (tmp_path / "bad").iterdir()
        for line in path.read_text().splitlines()
    ]
    found = {r["offset"]: (base64.b64decode(r["raw"]), r["reason"]) for r in kept}
    places = offsets(lines, end)
    assert found.keys() == {places[n + 1] for n in BAD}
    for number, why in BAD.items():
        raw, reason = found[places[number + 1]]
        assert raw == LINES[number]
        assert why in reason


def test_a_corrupt_column_has_the_line_and_what_fits_is_kept(
    session: Session, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_bytes(b"1,a,x\n2,b\n")
    found = session.read.csv(str(tmp_path), f"{SCHEMA}, _corrupt_record STRING").collect()
    assert [tuple(row) for row in found] == [(1, "a", None, "1,a,x"), (2, "b", None, "2,b")]
    with pytest.raises(BadRecordException, match=r"in\.csv at byte 0: column x: x is not double"):
        session.read.option("mode", "FAILFAST").csv(str(tmp_path), SCHEMA).collect()


def test_each_file_has_its_header(session: Session, tmp_path: Path) -> None:
    for number in range(5):
        text = (
            b"\xef\xbb\xbf" * (number > 2)
            + b"\n\ni,s\n"
            + b"".join(b"%d,x\n" % i for i in range(number * 10, number * 10 + 3))
        )
        data = gzip.compress(text) if number % 2 else text
        (tmp_path / f"{number}.csv{'.gz' if number % 2 else ''}").write_bytes(data)
    (tmp_path / "9.csv").write_bytes(b"")
    for split in (1, 10, 1 << 20):
        reader = session.read.option("header", True).option("splitBytes", split)
        found = reader.option("inferSchema", True).csv(str(tmp_path))
        assert found.dtypes == [("i", "int"), ("s", "string")]
        assert found.count() == 15
        assert found.agg(F.sum("i")).collect()[0][0] == sum(n * 30 + 3 for n in range(5))


@pytest.mark.parametrize("seed", range(6))
def test_what_was_written_comes_back(session: Session, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    alphabet = ["a", "é", "😀", ",", '"', "\\", ";", "'", "\n", "\r", "x y", "#"]
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(1, 8))).strip() for _ in range(300)]
    rows = [(i, text or None, rng.random()) for i, text in enumerate(texts)]
    style: dict[str, Any] = {"header": True}
    style |= rng.choice([{}, {"sep": ";"}, {"quote": "'"}, {"escape": '"'}, {"sep": "\t"}])
    frame = session.createDataFrame(rows, SCHEMA).repartition(3)
    frame.write.csv(str(tmp_path / "out"), **style)
    # In a record that has both, an end of line of the other kind would end it.
    back = session.read.csv(str(tmp_path / "out"), SCHEMA, multiLine=True, **style)
    found = {row["i"]: (row["s"], row["x"]) for row in back.collect()}
    expected = {i: (s, x) for i, s, x in rows}
    assert found == expected


def test_values() -> None:
    usual, doubled = Dialect(), Dialect(escape='"')
    assert values_of("", usual) == [None]
    assert values_of(",", usual) == [None, None]
    assert values_of('"a""b",c', doubled) == ['a"b', "c"]
    assert values_of('a"b,c', usual) == ['a"b', "c"]
    assert values_of('"a,b\\\\",c', usual) == ["a,b\\", "c"]
    assert values_of(' "a" , b ', Dialect(leading=True, trailing=True)) == ["a", "b"]
    for wrong in ('"a', '"a"b,c', '"a""b"', '"a\\"'):
        with pytest.raises(BadQuotes):
            values_of(wrong, usual)


def test_records_of_several_lines() -> None:
    data = b'1,"a\nb"\n2,"c\n3,d\n4,"e""f"x\n5,g'
    found = [record for _, record in records_of(data, Dialect(multi_line=True))]
    assert found[0] == b'1,"a\nb"'
    assert found[-1].endswith(b"5,g")
    assert b"".join(found).replace(b"\n", b"") == data.replace(b"\n", b"")


def test_what_makes_no_sense_is_refused(session: Session, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"a,b\n1,2\n")
    path = str(tmp_path / "in.csv")
    for options in ({"sep": "ab"}, {"quote": "ab"}, {"escape": ""}, {"comment": "#"}):
        with pytest.raises(UnsupportedError):
            session.read.csv(path, **options)
    for options in ({"header": "maybe"}, {"sep": '"'}):
        with pytest.raises(AnalysisException):
            session.read.csv(path, **options)
    with pytest.raises(AnalysisException, match="UNSUPPORTED_DATA_TYPE"):
        session.read.csv(path, "a ARRAY<INT>")
    with pytest.raises(UnsupportedError, match="of json"):
        session.read.option("sep", ";").json(path)
    with pytest.raises(UnsupportedError, match="array<int>"):
        session.createDataFrame([([1],)], "a ARRAY<INT>").write.csv(str(tmp_path / "out"))
    with pytest.raises(UnsupportedError, match="of parquet"):
        session.range(3).write.option("sep", ";").parquet(str(tmp_path / "out"))
