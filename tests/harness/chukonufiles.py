"""Programs that read files, for Spark and for Chukonu."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from harness.chukonuprograms import program

LINES = b"""\
{"i": 1, "s": "a", "d": 1.5, "o": {"x": 1, "y": "z"}, "a": [1, 2], "b": true}
{"i": null, "d": 3, "o": {"x": null}, "a": [], "extra": {"k": [1]}}
{"i": "1", "s": "wrong type"}
{"s": 5, "d": 1e3}
{"s": true, "d": "NaN"}

{"s": {"k": [1, "x", null, 1.0]}, "i": 7}
{"s": [1, {"z": 2}], "b": "true"}
{"i": 2147483648, "s": "too big"}
{"i": 1.0, "s": "a float"}
{"d": "1.5", "s": "a string"}
not json at all
{"i": 5, "s": "cut
{"i": 6} trailing
{"i": 8, "i": 9}
{"o": 5, "i": 10}
{"a": [1, "x"], "i": 11}
{"a": 5, "i": 12}
{"I": 13, "s": "case"}
   {"i": 14 , "s" : "\\u00e9\\ud83d\\ude00\\n"}\t
{}
"""
SCHEMA = (
    "i INT, s STRING, d DOUBLE, o STRUCT<x: INT, y: STRING>, a ARRAY<INT>, b BOOLEAN, "
    "_corrupt_record STRING"
)
CLEAN = b"""\
{"b": 1, "a": "x", "n": null, "late": null}
{"b": 2.5, "a": "y", "list": [1, 2.5], "o": {"q": 1}}
{"b": null, "list": [], "o": {"p": "t", "e": {}}, "mix": 1, "late": {"z": [true]}}
{"mix": "s", "deep": [{"u": 1}, {"v": "w"}], "none": []}
"""


@functools.cache
def folder() -> Path:
    """Removed when the process ends that has made it: not by one that was forked off it."""
    top = Path(tempfile.mkdtemp(prefix="chukonu-files-"))
    atexit.register(_remove, top, os.getpid())
    for name, data in (("lines", LINES), ("clean", CLEAN), ("text", b"one\r\ntwo\rthree\n\nfive")):
        (top / name).mkdir()
        (top / name / "0.json").write_bytes(data)
    return top


def _remove(top: Path, maker: int) -> None:
    if os.getpid() == maker:
        shutil.rmtree(top)


def lines(s: Any) -> Any:  # noqa: ANN401
    return s.read.schema(SCHEMA)


@program
def json_permissive(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return lines(s).json(str(folder() / "lines"))


@program
def json_drop_malformed(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return lines(s).option("mode", "DROPMALFORMED").json(str(folder() / "lines"))


@program
def json_inferred(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return s.read.json(str(folder() / "clean"))


@program
def json_inferred_with_bad_lines(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return s.read.json(str(folder() / "lines")).select("_corrupt_record", "i", "d", "b", "a")


@program
def text_lines(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return s.read.text(str(folder() / "text"))


@program
def missing_path(s: Any, F: Any, W: Any) -> Any:  # noqa: ANN401
    return s.read.text(str(folder() / "nowhere"))
