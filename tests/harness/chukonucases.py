"""Expressions over nasty values and whole programs, written once: real Spark and Chukonu both run
them. Nothing here knows which of the two it is given (`F` is the functions module)."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

NAN, INF = float("nan"), float("inf")
DAY = datetime.date

SCHEMA = (
    "i INT, j INT, l BIGINT, b TINYINT, d DOUBLE, e DOUBLE, s STRING, t STRING, p BOOLEAN, "
    "q BOOLEAN, a ARRAY<INT>, w ARRAY<STRING>, y DATE, z DATE, g FLOAT, x BINARY"
)
ROWS: list[tuple[Any, ...]] = [
    (
        1,
        2,
        3,
        4,
        1.5,
        -0.0,
        "abc",
        "b",
        True,
        False,
        [3, 1, None, 2, 1],
        ["x", None, "y"],
        DAY(2024, 2, 29),
        DAY(2023, 12, 31),
        0.5,
        b"ab",
    ),
    (None,) * 16,
    (
        2147483647,
        1,
        9223372036854775807,
        127,
        NAN,
        0.0,
        " 42 ",
        "4",
        True,
        True,
        [],
        [],
        DAY(1970, 1, 1),
        DAY(1969, 12, 31),
        NAN,
        b"",
    ),
    (
        -2147483648,
        -1,
        -9223372036854775808,
        -128,
        INF,
        NAN,
        "héllo wörld 😀",
        "😀",
        False,
        None,
        [1, 2, 3],
        ["a", "b", "a"],
        DAY(9999, 12, 31),
        DAY(1, 1, 1),
        3.25,
        b"\x00\xff",
    ),
    (
        0,
        0,
        0,
        0,
        -INF,
        1e300,
        "",
        "",
        None,
        False,
        [None],
        [None],
        DAY(2000, 1, 31),
        None,
        0.0,
        b"xyz",
    ),
    (
        7,
        -3,
        1000000007,
        -7,
        2.5,
        3.5,
        "Straße ΑΣ",
        "aß",
        False,
        False,
        [5, 5, 5],
        ["", "b"],
        DAY(2021, 1, 1),
        DAY(2020, 2, 29),
        -1.5,
        None,
    ),
    (
        -7,
        3,
        -5,
        7,
        -2.5,
        0.1,
        "a,b,,c",
        ",",
        True,
        None,
        None,
        None,
        DAY(1900, 3, 1),
        DAY(1900, 2, 28),
        1e10,
        b"\xf0\x9f\x98\x80",
    ),
    (
        100,
        31,
        86400,
        1,
        123456789.125,
        1e-5,
        "line1\nline2\r\n",
        "line",
        None,
        True,
        [-1, 0, 1],
        ["é", "e", "z"],
        DAY(2019, 12, 30),
        DAY(2020, 1, 6),
        1e-3,
        b"0",
    ),
]


def compiled(text: str, **names: Any) -> Callable[[Any], Any]:  # noqa: ANN401
    """F is the functions module; c makes a column of a name, C of a name or a column."""
    code = compile(text, text, "eval")

    def column(value: Any, F: Any) -> Any:  # noqa: ANN401
        return F.col(value) if isinstance(value, str) else value

    return lambda F: eval(
        code, {"F": F, "c": F.col, "lit": F.lit, "C": lambda value: column(value, F), **names}
    )


GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("expressions", "moments", "decimals", "random")
TEXTS = [GOLDEN / f"chukonu_{name}.txt" for name in NAMES]
EXPRESSIONS: dict[str, Callable[[Any], Any]] = {
    text: compiled(text) for path in TEXTS for text in path.read_text().splitlines()
}
