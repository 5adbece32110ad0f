"""Data types under PySpark's names. What a type is called in a schema string is `simpleString`.

Types are values: equal when they look the same. Nullability is not tracked: all is nullable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class DataType:
    name: ClassVar[str] = ""

    def simpleString(self) -> str:
        return self.name

    @classmethod
    def typeName(cls) -> str:
        return cls.name

    def sql(self) -> str:
        """As it stands in the name of a column: CAST(a AS INT)."""
        return self.simpleString().upper()


class NullType(DataType):
    name = "void"


class BooleanType(DataType):
    name = "boolean"


class StringType(DataType):
    name = "string"


class BinaryType(DataType):
    name = "binary"


class DateType(DataType):
    name = "date"


class TimestampType(DataType):
    """A moment, in microseconds; written and taken apart in UTC, which is the zone of sessions."""

    name = "timestamp"


class NumericType(DataType):
    pass


class IntegralType(NumericType):
    bits: ClassVar[int] = 0

    @property
    def smallest(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def largest(self) -> int:
        return (1 << (self.bits - 1)) - 1


class ByteType(IntegralType):
    name, bits = "tinyint", 8


class ShortType(IntegralType):
    name, bits = "smallint", 16


class IntegerType(IntegralType):
    name, bits = "int", 32


class LongType(IntegralType):
    name, bits = "bigint", 64


class FractionalType(NumericType):
    pass


@dataclass(frozen=True)
class DecimalType(FractionalType):
    precision: int = 10
    """Digits in all, 38 at most."""
    scale: int = 0
    """Of them, those behind the point."""

    def simpleString(self) -> str:
        return f"decimal({self.precision},{self.scale})"

    @classmethod
    def typeName(cls) -> str:
        return "decimal"


class FloatType(FractionalType):
    name = "float"


class DoubleType(FractionalType):
    name = "double"


@dataclass(frozen=True)
class ArrayType(DataType):
    elementType: DataType
    containsNull: bool = field(default=True, compare=False)

    def simpleString(self) -> str:
        return f"array<{self.elementType.simpleString()}>"


@dataclass(frozen=True)
class MapType(DataType):
    keyType: DataType
    valueType: DataType
    valueContainsNull: bool = field(default=True, compare=False)

    def simpleString(self) -> str:
        return f"map<{self.keyType.simpleString()},{self.valueType.simpleString()}>"

    @property
    def entry(self) -> StructType:
        """What a map is a list of, in frames."""
        return StructType([StructField("key", self.keyType), StructField("value", self.valueType)])


@dataclass(frozen=True)
class StructField:
    name: str
    dataType: DataType
    nullable: bool = field(default=True, compare=False)

    def simpleString(self) -> str:
        return f"{self.name}:{self.dataType.simpleString()}"


class StructType(DataType):
    name = "struct"

    def __init__(self, fields: list[StructField] | None = None) -> None:
        object.__setattr__(self, "fields", list(fields or ()))

    fields: list[StructField]

    def add(
        self,
        field: StructField | str,
        data_type: DataType | str | None = None,
        nullable: bool = True,
    ) -> StructType:
        if isinstance(field, str):
            if isinstance(data_type, str):
                from superfs.chukonu.ddl import parse_type

                data_type = parse_type(data_type)
            assert data_type is not None, "add(name, type)"
            field = StructField(field, data_type, nullable)
        self.fields.append(field)
        return self

    @property
    def names(self) -> list[str]:
        return [f.name for f in self.fields]

    def fieldNames(self) -> list[str]:
        return self.names

    def simpleString(self) -> str:
        return f"struct<{','.join(f.simpleString() for f in self.fields)}>"

    def sql(self) -> str:
        inner = ", ".join(f"{f.name}: {f.dataType.sql()}" for f in self.fields)
        return f"STRUCT<{inner}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StructType) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(tuple(self.fields))

    def __iter__(self) -> Iterator[StructField]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401
        if isinstance(key, str):
            return next(f for f in self.fields if f.name == key)
        return self.fields[key]

    def __repr__(self) -> str:
        return f"StructType({self.fields!r})"


NULL, BOOLEAN, STRING, BINARY, DATE, TIMESTAMP = (
    NullType(),
    BooleanType(),
    StringType(),
    BinaryType(),
    DateType(),
    TimestampType(),
)
BYTE, SHORT, INT, LONG = ByteType(), ShortType(), IntegerType(), LongType()
FLOAT, DOUBLE = FloatType(), DoubleType()

INTEGRALS: tuple[IntegralType, ...] = (BYTE, SHORT, INT, LONG)
NUMBERS: tuple[DataType, ...] = (*INTEGRALS, FLOAT, DOUBLE)
DECIMAL = DecimalType()
"""Stands for all of them in `Kinds`."""
DIGITS_MAX = 38


class Kinds(tuple[DataType, ...]):
    """Types among which a decimal of any precision is, if one is."""

    __slots__ = ()

    def __contains__(self, kind: object) -> bool:
        return super().__contains__(DECIMAL if isinstance(kind, DecimalType) else kind)


ATOMS = Kinds((NULL, BOOLEAN, STRING, BINARY, DATE, TIMESTAMP, *NUMBERS, DECIMAL))
_DIGITS: dict[DataType, int] = {BYTE: 3, SHORT: 5, INT: 10, LONG: 20}


def as_decimal(kind: DataType) -> DecimalType | None:
    """What Spark makes of an integral type beside a decimal."""
    if isinstance(kind, DecimalType):
        return kind
    return DecimalType(_DIGITS[kind], 0) if kind in _DIGITS else None


def bounded(precision: int, scale: int) -> DecimalType:
    return DecimalType(min(precision, DIGITS_MAX), min(scale, DIGITS_MAX))


def _wider_decimal(left: DataType, right: DataType) -> DataType | None:
    if FLOAT in (left, right) or DOUBLE in (left, right):
        return DOUBLE
    one, other = as_decimal(left), as_decimal(right)
    if one is None or other is None:
        return None
    scale = max(one.scale, other.scale)
    return bounded(max(one.precision - one.scale, other.precision - other.scale) + scale, scale)


def wider(left: DataType, right: DataType) -> DataType | None:
    """The type that both can be cast to without asking, by Spark's rules under ANSI."""
    if left == right or right == NULL:
        return left
    if left == NULL:
        return right
    if {left, right} == {DATE, TIMESTAMP}:
        return TIMESTAMP
    if isinstance(left, DecimalType) or isinstance(right, DecimalType):
        return _wider_decimal(left, right)
    if left in INTEGRALS and right in INTEGRALS:
        return max(left, right, key=INTEGRALS.index)
    if left in NUMBERS and right in NUMBERS:
        # Under ANSI an integral type and a float meet in double, so that no digits are lost.
        return DOUBLE
    if isinstance(left, ArrayType) and isinstance(right, ArrayType):
        inner = wider(left.elementType, right.elementType)
        return None if inner is None else ArrayType(inner)
    return None
