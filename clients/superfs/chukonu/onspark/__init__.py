"""Chukonu inside Apache Spark: `enable(spark)` adds `spark.chukonu` to a PySpark session.

    from superfs.chukonu import enable, functions as F

    enable(spark)
    long = lambda docs: docs.filter(F.length("text") > 200)
    read = spark.chukonu.read.schema("id LONG, text STRING")
    docs = read.segment(long).json("superfs:///raw")
    docs.groupBy("text").count()        # an ordinary DataFrame: from here on it is Spark

What is read, and the segment that is applied to it, is one native task for each split, on a host
that has its bytes if one of Spark's does. Plans that do not come from here are as they were.
"""

from __future__ import annotations

from superfs.chukonu.onspark.reader import SparkChukonu, enable

__all__ = ["SparkChukonu", "enable"]
