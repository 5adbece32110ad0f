"""Whole programs for Spark and for Chukonu: `s` is the session, `F` the functions, `W` Window. What
they return is compared as a multiset of rows, and by its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.chukonucases import INF, NAN, ROWS, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS: dict[str, Callable[[Any, Any, Any], Any]] = {}


def program(make: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    PROGRAMS[make.__name__] = make
    return make


def nasty(s: Any) -> Any:  # noqa: ANN401
    return s.createDataFrame(ROWS, SCHEMA)


PEOPLE = [
    (1, "eng", 10, 1.0),
    (2, "eng", 20, NAN),
    (3, "ops", 30, -0.0),
    (4, None, 40, 0.0),
    (5, "ops", None, INF),
    (6, None, 20, None),
    (7, "hr", 7, 0.0),
    (8, "eng", 20, 2.0),
]


def people(s: Any) -> Any:  # noqa: ANN401
    return s.createDataFrame(PEOPLE, "id INT, dept STRING, pay INT, score DOUBLE")


@program
def select_and_rename(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    d = nasty(s).select("I", F.col("L").alias("big"), "s", (F.col("d") + 1).alias("d1"))
    return d.withColumnRenamed("BIG", "bigger").withColumn("I", F.col("i") % 10).drop("S")


@program
def star_and_extra(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).select("*", F.lit(1).alias("one"), F.lit(None).cast("int").alias("none"))


@program
def filters(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    d = people(s)
    return d.filter((d.pay > 10) & d["dept"].isNotNull()).where(F.col("score") >= 0)


@program
def filter_by_null(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).filter(~(F.col("dept") == "eng"))


@program
def group(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return (
        people(s)
        .groupBy("dept")
        .agg(
            F.count("*").alias("n"),
            F.count("pay").alias("paid"),
            F.sum("pay").alias("total"),
            F.avg("pay").alias("mean"),
            F.min("score").alias("low"),
            F.max("score").alias("high"),
            F.count_distinct("pay").alias("kinds"),
            F.max("dept").alias("name"),
            F.sum("score").alias("scores"),
        )
    )


@program
def group_by_float(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).groupBy("score").agg(F.count("*").alias("n"), F.sum("id").alias("ids"))


@program
def group_by_expression(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    key = (F.col("pay") % 20).alias("k")
    return people(s).groupBy(key).agg((F.sum("id") + F.col("k")).alias("x"), F.min("id").alias("m"))


@program
def aggregate_of_nothing(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return (
        people(s)
        .filter(F.col("id") > 99)
        .agg(
            F.count("*").alias("n"),
            F.sum("pay").alias("s"),
            F.avg("pay").alias("a"),
            F.max("dept").alias("m"),
            F.count_if(F.col("pay") > 1).alias("c"),
            F.stddev("pay").alias("d"),
            F.sum_distinct("pay").alias("sd"),
        )
    )


@program
def group_of_nothing(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).filter(F.col("id") > 99).groupBy("dept").agg(F.count("*").alias("n"))


@program
def statistics(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return (
        people(s)
        .filter(F.col("pay").isNotNull())
        .groupBy("dept")
        .agg(
            F.stddev("pay").alias("a"),
            F.stddev_pop("pay").alias("b"),
            F.variance("pay").alias("c"),
            F.var_pop("pay").alias("d"),
            F.bool_and(F.col("pay") > 9).alias("e"),
            F.bool_or(F.col("pay") > 39).alias("f"),
            F.count_if(F.col("pay") > 9).alias("g"),
            F.sum_distinct("pay").alias("h"),
        )
    )


@program
def other_names(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).agg(
        F.stddev_samp("pay").alias("a"),
        F.var_samp("pay").alias("b"),
        F.countDistinct("dept").alias("c"),
        F.mean("score").alias("e"),
        F.count(F.lit(1)).alias("f"),
        F.count(F.lit(None)).alias("g"),
        F.every(F.col("pay") > 0).alias("h"),
        F.min("dept").alias("i"),
        F.max(F.col("pay") > 10).alias("j"),
    )


@program
def collected(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return (
        people(s)
        .groupBy("dept")
        .agg(
            F.sort_array(F.collect_list("pay")).alias("l"),
            F.sort_array(F.collect_set("pay")).alias("t"),
            F.max_by("id", "id").alias("mx"),
            F.min_by("pay", "id").alias("mn"),
        )
    )


@program
def sum_overflow(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return s.createDataFrame([(2**62,), (2**62,)], "v BIGINT").agg(F.sum("v").alias("x"))


@program
def sum_of_ints_is_long(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return s.createDataFrame([(2147483647,), (2147483647,)], "v INT").agg(F.sum("v").alias("x"))


@program
def count_rows(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).groupBy("dept").count()


@program
def grouped_methods(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).groupBy("dept").max("pay", "id")


@program
def distinct_floats(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).select((F.col("score") + 0.0).alias("score")).distinct()


@program
def distinct_rows(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).select("dept", "pay").distinct()


@program
def drop_duplicates(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).dropDuplicates(["DEPT", "pay"]).select("dept", "pay")


OTHER = [("eng", "Engineering"), ("hr", "People"), (None, "Nobody"), ("law", "Law"), ("eng", "E2")]


def other(s: Any) -> Any:  # noqa: ANN401
    return s.createDataFrame(OTHER, "dept STRING, title STRING")


def _join(how: str) -> None:
    def run(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
        return people(s).join(other(s), "dept", how)

    PROGRAMS[f"join_{how}"] = run


for _how in ("inner", "left", "right", "outer", "left_semi", "left_anti"):
    _join(_how)


@program
def join_on_expression(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    a, b = people(s), other(s)
    joined = a.join(F.broadcast(b), (a.dept == b.dept) & (F.col("id") > 1), "inner")
    return joined.select(a.dept.alias("x"), b.dept.alias("y"), "title", "id")


@program
def join_floats(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    a = s.createDataFrame([(0.0, 1), (NAN, 2), (None, 3)], "k DOUBLE, v INT")
    b = s.createDataFrame([(-0.0, 10), (NAN, 20), (None, 30)], "k2 DOUBLE, w INT")
    return a.join(b, a.k == b.k2).select("v", "w")


@program
def join_of_types(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    a = s.createDataFrame([(1,), (2,)], "k INT")
    b = s.createDataFrame([(1, "x"), (2**40, "y")], "k BIGINT, t STRING")
    return a.join(b, "k")


@program
def cross_join(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).select("id").crossJoin(other(s).select("title"))


@program
def self_join(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    d = people(s).select("id", "pay")
    return (
        d.alias("a")
        .join(d.alias("b"), F.col("a.pay") == F.col("b.pay"))
        .select(F.col("a.id").alias("x"), F.col("b.id").alias("y"))
    )


@program
def unions(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    a = s.createDataFrame([(1, "a")], "x INT, y STRING")
    b = s.createDataFrame([(2**40, None)], "z BIGINT, w STRING")
    return a.union(b).unionByName(s.createDataFrame([("c", 5)], "Y STRING, X BIGINT"))


@program
def explodes(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return nasty(s).select("i", F.explode("w").alias("word"), F.size("w").alias("n"))


@program
def explodes_outer(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return nasty(s).select("i", F.explode_outer("a"))


@program
def word_count(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    words = nasty(s).select(F.explode(F.split(F.lower("s"), " ")).alias("word"))
    return words.filter(F.length("word") > 0).groupBy("word").count()


def _over(name: str, make: Callable[[Any, Any], Any]) -> None:
    def run(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
        return people(s).select("id", make(F, W).alias("x"))

    PROGRAMS[f"window_{name}"] = run


_over("row_number", lambda F, W: F.row_number().over(W.partitionBy("dept").orderBy("id")))
_over("rank", lambda F, W: F.rank().over(W.partitionBy("dept").orderBy(F.desc("pay"))))
_over("dense_rank", lambda F, W: F.dense_rank().over(W.orderBy("pay")))
_over("percent_rank", lambda F, W: F.percent_rank().over(W.partitionBy("dept").orderBy("pay")))
_over("cume_dist", lambda F, W: F.cume_dist().over(W.partitionBy("dept").orderBy("pay")))
_over("lag", lambda F, W: F.lag("pay", 1).over(W.partitionBy("dept").orderBy("id")))
_over("lead", lambda F, W: F.lead("pay", 2, -1).over(W.orderBy("id")))
_over("sum", lambda F, W: F.sum("pay").over(W.partitionBy("dept")))
_over("sum_range", lambda F, W: F.sum("pay").over(W.partitionBy("dept").orderBy("pay")))
_over("count_range", lambda F, W: F.count("pay").over(W.orderBy("pay")))
_over("avg_float_order", lambda F, W: F.avg("pay").over(W.orderBy("score")))
_over("sum_of_window", lambda F, W: F.col("pay") - F.avg("pay").over(W.partitionBy("dept")))
_over(
    "sum_rows",
    lambda F, W: F.sum("pay").over(
        W.partitionBy("dept").orderBy("id").rowsBetween(W.unboundedPreceding, W.currentRow)
    ),
)
_over("max_all", lambda F, W: F.max("score").over(W.partitionBy("dept")))
_over("min_running", lambda F, W: F.min("pay").over(W.partitionBy("dept").orderBy("id")))


@program
def ordered_limit(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).orderBy(F.desc("score"), F.asc("id")).limit(4)


@program
def ordered_nulls(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).orderBy(F.col("dept").desc_nulls_first(), F.col("id").desc()).limit(3)


@program
def ordered_by_expression(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).orderBy(-F.col("pay"), "id").select("id").limit(3)


@program
def ordered_strings(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    rows = [(w,) for w in ("b", "B", "é", "😀", "\uffff", "", None, "a")]
    return s.createDataFrame(rows, "w STRING").orderBy("w").limit(6)


@program
def inferred_schema(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return s.createDataFrame(
        [(1, "a", 1.5, True, [1, 2]), (2, None, None, None, None)], list("abcde")
    )


@program
def nested(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    d = s.createDataFrame(
        [((1, "x"), [2]), (None, None)], "p STRUCT<n: INT, t: STRING>, a ARRAY<INT>"
    )
    return d.select("p.n", F.col("p")["T"].alias("t"), F.col("p").isNull().alias("z"))


@program
def repartitioned(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).repartition(7, "dept").groupBy("dept").agg(F.sum("id").alias("x"))


@program
def dropna(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).dropna(subset=["dept", "pay"])


@program
def unknown_column(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).select("nope")


@program
def divide_by_zero(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return people(s).select((F.col("id") / (F.col("id") - 3)).alias("x"))
