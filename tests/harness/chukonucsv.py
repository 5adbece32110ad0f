"""Programs that read and write CSV, and programs of timestamps, decimals and maps, for Spark and
for Chukonu."""

from __future__ import annotations

import datetime
import decimal
import functools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.chukonufiles import folder
from harness.chukonuprograms import PROGRAMS, people, program

if TYPE_CHECKING:
    from collections.abc import Callable

D, T = decimal.Decimal, datetime.datetime
FILES = {
    "plain": b"a,b,c\n1,x,1.5\n\n2,,NaN\n3, y ,\n,,\n4,z,1e3\n+5,q,-Inf\n6,r,Infinity\n",
    "quoted": (
        b'i,s,t\n1,"a, b",c\n2,"say \\"hi\\"",""\n3,plain "q" in,x\n4,"back\\\\slash",a\\b\n'
        b'5,"",\n6,"\xc3\xa9\xf0\x9f\x98\x80",caf\xc3\xa9\n'
    ),
    "misfits": (
        b"i,d,p,y,t,m,s\n1,1.5,true,2020-01-31,2020-01-31 01:02:03,1.25,a\n"
        b"2147483648,2,false,2020-02-30,x,123456.7,b\n1.0,1d,TRUE,2020-1-2,2020-01-31T01:02:03Z,"
        b"1.255,c\n 3,z,yes,2020,2020-01,1e1,d\n4,1,true\n5,1,true,2020-01-01,2020-01-01,1,e,f\n"
        b"6,,,,,,\n-7,-.5,FALSE,2020-01-01 ,2020-01-01 10:00,-0.004,\n"
    ),
    "kinds": (
        b"a,b,c,d,e,f,g,h,i,j,k\n1,1,1,1,2020-01-01,2020-01-01,true,1,,x,9223372036854775808\n"
        b"2,2147483648,1.5,x,2020-01-02,2020-01-01 10:00:00,FALSE,true,,1,1\n"
    ),
    "headless": b"1;a b\n2;'c;d'\n3;\n",
    "lines": b'i,s\r\n1,"two\r\nlines"\r\n2,"a ""b"" c"\r\n\r\n3,\r\n',
    "same": b"x,X,,y\n1,2,3,4\n",
}


@functools.cache
def place(name: str) -> str:
    path = folder() / f"csv-{name}"
    path.mkdir()
    (path / "0.csv").write_bytes(FILES[name])
    return str(path)


def _reads(name: str, make: Callable[[Any], Any]) -> None:
    PROGRAMS[f"csv_{name}"] = lambda s, F, W: make(s.read)


TYPED = "i INT, d DOUBLE, p BOOLEAN, y DATE, t TIMESTAMP, m DECIMAL(6,2), s STRING"
_reads("no_header", lambda r: r.csv(place("plain")))
_reads("header", lambda r: r.option("header", True).csv(place("plain")))
_reads("inferred", lambda r: r.csv(place("plain"), header=True, inferSchema=True))
_reads("quoted", lambda r: r.csv(place("quoted"), header=True))
_reads("null_value", lambda r: r.csv(place("plain"), header=True, nullValue="x"))
_reads(
    "permissive", lambda r: r.csv(place("misfits"), f"{TYPED}, _corrupt_record STRING", header=True)
)
_reads("no_corrupt", lambda r: r.csv(place("misfits"), TYPED, header=True))
_reads("dropped", lambda r: r.csv(place("misfits"), TYPED, header=True, mode="DROPMALFORMED"))
_reads("kinds", lambda r: r.csv(place("kinds"), header=True, inferSchema=True))
_reads("sep_and_quote", lambda r: r.csv(place("headless"), "i INT, s STRING", sep=";", quote="'"))
_reads("lines", lambda r: r.csv(place("lines"), header=True, multiLine=True, quote='"', escape='"'))
_reads("same_names", lambda r: r.csv(place("same"), header=True))
_reads(
    "trimmed",
    lambda r: r.csv(
        place("plain"), header=True, ignoreLeadingWhiteSpace=True, ignoreTrailingWhiteSpace=True
    ),
)
_reads("formats", lambda r: r.csv(place("kinds"), "a DATE, b STRING", dateFormat="d", header=True))

WRITTEN: list[tuple[Any, ...]] = [
    (1, "plain", 1.5, True, datetime.date(2020, 1, 31), T(2020, 1, 31, 1, 2, 3, 456789), D("1.50")),
    (2, 'a, "b" \\ c', float("nan"), False, None, None, None),
    (3, "", float("inf"), None, datetime.date(1, 1, 1), T(1, 1, 1), D("-0.01")),
    (None, None, None, None, None, None, None),
    (4, "two\nlines", 1e-7, True, datetime.date(9999, 12, 31), T(1969, 12, 31, 23, 59, 59), D(0)),
    (5, " blanks ", -0.0, True, None, None, D("99.99")),
    (6, "é😀\\", 123456789.125, None, None, None, None),
    (7, 'quote"d', 100.0, None, None, None, None),
]
SCHEMA = "i INT, s STRING, d DOUBLE, p BOOLEAN, y DATE, t TIMESTAMP, m DECIMAL(4,2)"


def _writes(name: str, **options: Any) -> None:  # noqa: ANN401
    def run(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
        out = Path(tempfile.mkdtemp(dir=folder()))
        shutil.rmtree(out)
        s.createDataFrame(WRITTEN, SCHEMA).coalesce(1).write.csv(str(out), **options)
        return s.read.text(str(out))

    PROGRAMS[f"csv_write_{name}"] = run


_writes("plain")
_writes("header", header=True, sep="|", nullValue="NULL")
_writes("all", quoteAll=True, emptyValue="EMPTY", dateFormat="dd/MM/yyyy")
_writes("escape", escape='"', timestampFormat="yyyy-MM-dd HH:mm:ss", ignoreLeadingWhiteSpace=False)
_writes("quotes", escapeQuotes=False)


@program
def json_of_moments(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    out = Path(tempfile.mkdtemp(dir=folder()))
    shutil.rmtree(out)
    s.createDataFrame(WRITTEN, SCHEMA).select("i", "t", "y", "m").coalesce(1).write.json(str(out))
    return s.read.text(str(out))


@program
def json_moments_and_maps(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    path = folder() / "moments"
    path.mkdir()
    (path / "0.json").write_text(
        '{"t": "2020-01-02T03:04:05Z", "m": {"a": 1, "b": null}}\n{"t": 5, "m": {}}\n'
        '{"t": "2020-01-02", "m": null}\n{"t": "bad", "m": {"a": "x"}}\n{"m": [1]}\n'
    )
    return s.read.schema("t TIMESTAMP, m MAP<STRING, INT>, _corrupt_record STRING").json(str(path))


MOMENTS = [
    (1, T(2020, 1, 1, 10), D("1.10"), {"a": 1, "b": None}),
    (2, T(2020, 1, 1, 23, 59, 59, 999999), D("-2.25"), {}),
    (3, None, None, None),
    (4, T(2020, 1, 2), D("99999999.99"), {"b": 7}),
    (5, T(2020, 1, 1, 10), D("1.10"), {"a": 5}),
]


def moments(s: Any) -> Any:  # noqa: ANN401
    return s.createDataFrame(MOMENTS, "i INT, t TIMESTAMP, m DECIMAL(10,2), k MAP<STRING, INT>")


@program
def moments_as_they_are(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return moments(s)


@program
def moments_grouped(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    day = F.to_date("t").alias("day")
    return (
        moments(s)
        .groupBy(day)
        .agg(
            F.min("t").alias("a"),
            F.max("t").alias("b"),
            F.sum("m").alias("c"),
            F.avg("m").alias("d"),
            F.max("m").alias("e"),
            F.count_distinct("t").alias("f"),
        )
    )


@program
def decimals_of_nothing(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    d = moments(s).filter(F.col("i") > 99)
    return d.agg(F.sum("m").alias("s"), F.avg("m").alias("a"), F.min("m").alias("n"))


@program
def decimals_grouped(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return moments(s).groupBy("m").agg(F.count("*").alias("n"), F.sum_distinct("m").alias("s"))


@program
def decimal_sum_overflow(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    big = F.lit("9" * 38).cast("decimal(38,0)")
    return people(s).select(big.alias("m")).agg(F.sum("m").alias("x"))


@program
def decimal_wide_sum(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    wide = F.col("id").cast("decimal(38,18)")
    return people(s).agg(F.sum(wide).alias("x"), F.avg(wide).alias("y"))


@program
def moments_joined(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    a, b = moments(s), moments(s).select(F.col("t").alias("t2"), F.col("m").alias("m2"))
    return a.join(b, (a.t == b.t2) & (a.m == b.m2)).select("i", "t2", "m2")


@program
def moments_ordered(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return moments(s).orderBy(F.desc("t"), "m", "i").limit(3)


@program
def moments_in_windows(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    w = W.partitionBy(F.to_date("t")).orderBy("t", "i")
    return moments(s).select("i", F.lag("t").over(w).alias("p"), F.max("m").over(w).alias("m"))


@program
def maps_exploded(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return moments(s).select("i", F.explode("k"))


@program
def maps_exploded_outer(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return moments(s).select(F.explode_outer("k"), "i")


@program
def maps_asked(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    k = F.col("k")
    return moments(s).select(
        k["a"].alias("a"), F.element_at("k", "b").alias("b"), F.size("k").alias("n"), k.getItem("z")
    )


@program
def maps_in_parquet(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    out = Path(tempfile.mkdtemp(dir=folder()))
    shutil.rmtree(out)
    moments(s).write.parquet(str(out))
    return s.read.parquet(str(out))


@program
def decimals_inferred(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return s.createDataFrame([(D("1.5"), T(2020, 1, 1), {"a": 1})], ["m", "t", "k"])


@program
def decimal_literal(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    one, other = F.lit(D("1.50")), F.lit(D("2"))
    return people(s).select((one * F.col("pay")).alias("x"), (F.col("id") + other).alias("y"))


@program
def moment_literal(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return moments(s).filter(F.col("t") >= F.lit(T(2020, 1, 1, 11))).select("i")
