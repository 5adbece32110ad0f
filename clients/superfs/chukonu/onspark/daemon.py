"""Spark's daemon of Python workers (`spark.python.daemon.module`), with what every worker of ours
needs imported before the first one is forked: a worker is there in milliseconds, and those that
Spark ends after a minute without work are not missed.

Nothing may be computed here: threads do not live on in what is forked.
"""

from __future__ import annotations

import gc

import superfs.chukonu.onspark.references  # noqa: F401 - and with it all else

if __name__ == "__main__":
    from pyspark import daemon

    # A worker collects cycles after every task: what was imported is not looked at each time.
    gc.collect()
    gc.freeze()
    daemon.manager()
