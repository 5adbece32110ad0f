"""What can go wrong in a job, under PySpark's names.

`UnsupportedError` is the promise of this package: what is not in its tables is refused by name, and
never answered differently.
"""

from __future__ import annotations

from typing import Any


class ChukonuError(Exception):
    """`condition` is Spark's error class where there is one, like DIVIDE_BY_ZERO."""

    def __init__(self, condition: str, detail: str) -> None:
        super().__init__(f"[{condition}] {detail}")
        self.condition = condition
        self.detail = detail

    def __reduce__(self) -> tuple[type[ChukonuError], tuple[str, str]]:
        return type(self), (self.condition, self.detail)


class AnalysisException(ChukonuError):
    """The plan makes no sense: unknown columns, types that do not fit."""


class UnsupportedError(AnalysisException):
    """It may make sense to Spark, but is not in our tables."""

    def __init__(self, what: str, detail: str = "is not supported by Chukonu") -> None:
        super().__init__("CHUKONU_UNSUPPORTED", f"{what} {detail}")
        self.what = what
        self.why = detail

    def __reduce__(self) -> tuple[type[ChukonuError], tuple[str, str]]:
        return type(self), (self.what, self.why)


class ParseException(AnalysisException):
    """A DDL string that cannot be read."""


class RuntimeException(ChukonuError):
    """A row has a value for which there is no result."""


class ArithmeticException(RuntimeException):
    pass


class NumberFormatException(RuntimeException):
    pass


class DateTimeException(RuntimeException):
    pass


class ArrayIndexOutOfBoundsException(RuntimeException):
    pass


class MemoryExceeded(RuntimeException):
    """Rows that have to be in memory together, and are more than the budget."""

    def __init__(self, size_bytes: int, budget_bytes: int, what: str) -> None:
        super().__init__(
            "CHUKONU_MEMORY",
            f"{what} has {size_bytes:,} bytes at once, too much for chukonu.memory.bytes = "
            f"{budget_bytes:,}: give more, or make it smaller",
        )
        self._args = size_bytes, budget_bytes, what

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryExceeded, self._args


class BadRecordException(RuntimeException):
    """A record that cannot be read: FAILFAST, or more of them than the job allows."""
