"""What can go wrong in a row, as small numbers in a column, and as the exceptions they become."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from superfs.chukonu import errors
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from superfs.chukonu.errors import RuntimeException


class Fault(IntEnum):
    OVERFLOW = 1
    DIVIDE_BY_ZERO = 2
    CAST_OVERFLOW = 3
    CAST_NUMBER = 4
    CAST_BOOLEAN = 5
    CAST_DATE = 6
    CAST_UTF8 = 7
    ARRAY_INDEX = 8
    ELEMENT_AT = 9
    INDEX_ZERO = 10
    DATE_RANGE = 11
    RAISED = 12
    REMAINDER_BY_ZERO = 13
    PARAMETER = 14
    BINARY_OVERFLOW = 15
    CAST_TIMESTAMP = 16
    PARSE_TIMESTAMP = 17
    MAP_KEY_NULL = 18
    MAP_KEY_TWICE = 19
    MAP_SIZES = 20
    OUT_OF_RANGE = 21


_EXCEPTIONS: dict[Fault, tuple[type[RuntimeException], str, str]] = {
    Fault.OVERFLOW: (errors.ArithmeticException, "ARITHMETIC_OVERFLOW", "the result does not fit"),
    Fault.BINARY_OVERFLOW: (
        errors.ArithmeticException,
        "BINARY_ARITHMETIC_OVERFLOW",
        "the result does not fit",
    ),
    Fault.PARAMETER: (errors.RuntimeException, "INVALID_PARAMETER_VALUE", "not allowed"),
    Fault.DIVIDE_BY_ZERO: (errors.ArithmeticException, "DIVIDE_BY_ZERO", "division by zero"),
    Fault.REMAINDER_BY_ZERO: (errors.ArithmeticException, "REMAINDER_BY_ZERO", "by zero"),
    Fault.CAST_OVERFLOW: (errors.ArithmeticException, "CAST_OVERFLOW", "the type is too small"),
    Fault.CAST_NUMBER: (errors.NumberFormatException, "CAST_INVALID_INPUT", "not a number"),
    Fault.CAST_BOOLEAN: (errors.RuntimeException, "CAST_INVALID_INPUT", "not a boolean"),
    Fault.CAST_DATE: (errors.DateTimeException, "CAST_INVALID_INPUT", "not a date"),
    Fault.CAST_TIMESTAMP: (errors.DateTimeException, "CAST_INVALID_INPUT", "not a timestamp"),
    Fault.PARSE_TIMESTAMP: (
        errors.DateTimeException,
        "CANNOT_PARSE_TIMESTAMP",
        "not written as the format says",
    ),
    Fault.OUT_OF_RANGE: (
        errors.ArithmeticException,
        "NUMERIC_VALUE_OUT_OF_RANGE",
        "more digits than the type has",
    ),
    Fault.MAP_KEY_NULL: (errors.RuntimeException, "NULL_MAP_KEY", "a key is null"),
    Fault.MAP_KEY_TWICE: (errors.RuntimeException, "DUPLICATED_MAP_KEY", "a key is there twice"),
    Fault.MAP_SIZES: (
        errors.RuntimeException,
        "CHUKONU_MAP_SIZES",
        "more keys than values, or less",
    ),
    Fault.CAST_UTF8: (errors.RuntimeException, "CHUKONU_INVALID_UTF8", "bytes are not UTF-8"),
    Fault.ARRAY_INDEX: (
        errors.ArrayIndexOutOfBoundsException,
        "INVALID_ARRAY_INDEX",
        "there is no such element",
    ),
    Fault.ELEMENT_AT: (
        errors.ArrayIndexOutOfBoundsException,
        "INVALID_ARRAY_INDEX_IN_ELEMENT_AT",
        "there is no such element",
    ),
    Fault.INDEX_ZERO: (errors.RuntimeException, "INVALID_INDEX_OF_ZERO", "indices begin with 1"),
    Fault.DATE_RANGE: (
        errors.DateTimeException,
        "CHUKONU_DATE_RANGE",
        "not in the years 1 to 9999",
    ),
    Fault.RAISED: (errors.RuntimeException, "USER_RAISED_EXCEPTION", "raise_error"),
}
assert _EXCEPTIONS.keys() == set(Fault)


def exception(number: int, where: str) -> RuntimeException:
    kind, condition, detail = _EXCEPTIONS[Fault(number)]
    return kind(condition, f"{detail}, in {where}")


def fault_where(condition: Any, fault: Fault) -> Any:  # noqa: ANN401
    """A column: `fault` where `condition` holds, null elsewhere."""
    return pl.when(condition).then(pl.lit(int(fault), pl.UInt8))
