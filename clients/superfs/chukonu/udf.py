"""Python functions in a plan: `F.udf` of single rows, `F.arrow_udf` of whole Arrow arrays.

They see None for null, and every row: a condition around them does not keep rows away, as in Spark.
In place of a function a class may be given: the embedded executor makes as many objects of it as
threads work at once, a Python process of Spark one, and these are called; what is expensive to set
up, a model say, is done in `__init__`. One that has raised an error is not called again.
"""

from __future__ import annotations

import inspect
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.column import Column, column
from superfs.chukonu.ddl import parse_type
from superfs.chukonu.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

_known: dict[str, PerWorker] = {}
"""Of this process, those that came from another one: every task of a job brings its own copy."""
KNOWN_MAX = 64


class PerWorker:
    """A class as a function: called, it is an object of the class that nobody else calls now. There
    come to be as many as work at once, and they stay as long as this."""

    def __init__(self, made: Callable[[], Any], key: str) -> None:
        self._made = made
        self._key = key
        self._free: deque[Any] = deque()
        self.__name__ = getattr(made, "__name__", "udf")

    def __call__(self, *args: Any) -> Any:  # noqa: ANN401
        try:
            worker = self._free.pop()
        except IndexError:
            worker = self._made()
        found = worker(*args)
        self._free.append(worker)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _here, (self._made, self._key)


def _here(made: Callable[[], Any], key: str) -> PerWorker:
    if key not in _known:
        while len(_known) >= KNOWN_MAX:
            del _known[next(iter(_known))]
        _known[key] = PerWorker(made, key)
    return _known[key]


class UserDefinedFunction:
    def __init__(self, func: Callable[..., Any], kind: t.DataType, *, batch: bool = False) -> None:
        name = getattr(func, "__name__", "udf")
        if inspect.isclass(func):
            func = PerWorker(func, uuid.uuid4().hex)
        self.func = func
        self.returnType = kind
        self.batch = batch
        self.__name__ = name

    def __call__(self, *args: Column | str) -> Column:
        inner = tuple(column(arg) for arg in args)
        if self.batch and not inner:
            raise UnsupportedError("arrow_udf without arguments")
        return Column(e.PythonUDF(self.__name__, self.func, inner, self.returnType, self.batch))


def udf(f: Any = None, returnType: t.DataType | str = t.STRING) -> Any:  # noqa: ANN401
    """`udf(f, type)`, `@udf(type)`, `@udf(returnType=type)` or `@udf`. What it returns must be of
    the type: Spark makes some other values null, here they are errors. `f` may be a class."""
    return _made(f, returnType, batch=False)


def arrow_udf(
    f: Any = None,  # noqa: ANN401
    returnType: t.DataType | str | None = None,
    functionType: int | None = None,
) -> Any:  # noqa: ANN401
    """`arrow_udf(f, type)` or `@arrow_udf(type)`: `f` gets a pyarrow.Array for each argument and
    returns one of as many values, of the type or one that Arrow casts to it safely. `f` may be a
    class. Functions of iterators and of groups are refused."""
    if functionType not in (None, 250):  # PySpark's ArrowUDFType.SCALAR
        raise UnsupportedError("arrow_udf that is not scalar")
    return _made(f, returnType, batch=True)


def _made(f: Any, returnType: Any, *, batch: bool) -> Any:  # noqa: ANN401
    if f is None or isinstance(f, (str, t.DataType)):
        kind = returnType if f is None else f
        return lambda func: _made(func, kind, batch=batch)
    if returnType is None:
        raise UnsupportedError("arrow_udf without a return type")
    if batch:
        _refuse_iterators(f)
    kind = parse_type(returnType) if isinstance(returnType, str) else returnType
    return UserDefinedFunction(f, kind, batch=batch)


def _refuse_iterators(f: Any) -> None:  # noqa: ANN401
    called = f.__call__ if inspect.isclass(f) else f
    hints = getattr(called, "__annotations__", {})
    if any("Iterator" in str(hint) for hint in hints.values()):
        raise UnsupportedError("arrow_udf of iterators", "a class is set up once for each worker")
