# ruff: noqa: ANN401
"""The workloads: as people write them for PySpark, with Python functions (`PYTHON`), and with
built-in functions (`BUILT_IN`), which is also what Chukonu is given, letter by letter. `s` is a
session, `F` the functions, `t` the types; each gives what is written.
"""

from __future__ import annotations

from typing import Any

DOCS = "id LONG, url STRING, text STRING"
WORDS_MIN, WORDS_MAX, MEAN_MIN, MEAN_MAX, ALPHA_MIN, SYMBOLS_MAX = 50, 100_000, 3, 10, 0.8, 0.1
STOP = ("the", "be", "to", "of", "and", "that", "have", "with")
STOP_MIN = 2


def docs(s: Any, folder: str) -> Any:
    return s.read.schema(DOCS).json(f"{folder}/docs")


# ---- built-in functions


def word_count(s: Any, F: Any, folder: str) -> Any:
    words = docs(s, folder).select(F.explode(F.split(F.lower("text"), " ")).alias("word"))
    return words.groupBy("word").agg(F.count("*").alias("n"))


def sort(s: Any, F: Any, folder: str) -> Any:
    return docs(s, folder).orderBy("url", "id")


def quality(s: Any, F: Any, folder: str) -> Any:
    """Gopher's rules of single documents."""
    words = docs(s, folder).withColumn("words", F.split("text", " "))
    found = words.withColumn("n", F.size("words"))
    found = found.filter((F.col("n") >= WORDS_MIN) & (F.col("n") <= WORDS_MAX))
    mean = (F.length("text") - F.col("n") + 1) / F.col("n")
    found = found.filter(mean.between(MEAN_MIN, MEAN_MAX))
    symbols = F.length("text") - F.length(F.regexp_replace("text", "[#…]", ""))
    found = found.filter(symbols / F.col("n") <= SYMBOLS_MAX)
    alpha = F.regexp_count("text", F.lit("[A-Za-z][^ ]*"))
    found = found.filter(alpha / F.col("n") >= ALPHA_MIN)
    stop = F.size(F.array_intersect("words", F.array(*[F.lit(w) for w in STOP])))
    return found.filter(stop >= STOP_MIN).select("id", "url", "text")


def dedup(s: Any, F: Any, folder: str) -> Any:
    return docs(s, folder).dropDuplicates(["text"]).select("text")


def small_files(s: Any, F: Any, folder: str) -> Any:
    files = s.read.format("binaryFile").load(f"{folder}/files")
    name = F.substring_index("path", "/", -1).alias("name")
    return files.select(name, "length", F.sha2("content", 256).alias("sum"))


BUILT_IN = {f.__name__: f for f in (word_count, sort, quality, dedup, small_files)}


# ---- Python functions, for PySpark


def python_programs(t: Any) -> dict[str, Any]:
    """`t`: pyspark.sql.types."""
    import hashlib
    import re

    symbol, letter = re.compile("[#…]"), re.compile("[A-Za-z][^ ]*")

    def good(text: str) -> bool:
        words = text.split(" ")
        n = len(words)
        if not WORDS_MIN <= n <= WORDS_MAX:
            return False
        if not MEAN_MIN <= sum(map(len, words)) / n <= MEAN_MAX:
            return False
        if len(symbol.findall(text)) / n > SYMBOLS_MAX:
            return False
        if len(letter.findall(text)) / n < ALPHA_MIN:
            return False
        return len(set(words) & set(STOP)) >= STOP_MIN

    def word_count_(s: Any, F: Any, folder: str) -> Any:
        words = F.udf(lambda text: text.lower().split(" "), t.ArrayType(t.StringType()))
        found = docs(s, folder).select(F.explode(words("text")).alias("word"))
        return found.groupBy("word").agg(F.count("*").alias("n"))

    def quality_(s: Any, F: Any, folder: str) -> Any:
        return docs(s, folder).filter(F.udf(good, t.BooleanType())("text"))

    def dedup_(s: Any, F: Any, folder: str) -> Any:
        key = F.udf(lambda text: hashlib.md5(text.encode()).hexdigest(), t.StringType())
        found = docs(s, folder).withColumn("key", key("text"))
        return found.dropDuplicates(["key"]).select("text")

    def small_files_(s: Any, F: Any, folder: str) -> Any:
        total = F.udf(lambda data: hashlib.sha256(data).hexdigest(), t.StringType())
        name = F.udf(lambda path: path.rpartition("/")[2], t.StringType())
        files = s.read.format("binaryFile").load(f"{folder}/files")
        return files.select(name("path").alias("name"), "length", total("content").alias("sum"))

    return {
        "word_count": word_count_,
        "sort": sort,
        "quality": quality_,
        "dedup": dedup_,
        "small_files": small_files_,
    }
