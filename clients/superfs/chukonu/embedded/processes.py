"""Python functions in processes of their own, as many at once as there are threads that call them.

They are forked from one that has loaded the functions, and the modules that these need, before
(forkserver.py), and stay for as long as jobs come with the same functions. A function that cannot
be sent there, or is lost there, is an error that says so: nothing is quietly done here instead.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import socket
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu.embedded import forkserver, wire
from superfs.chukonu.errors import RuntimeException, UnsupportedError
from superfs.chukonu.native import pl
from superfs.chukonu.plan import logical as p

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BYTES_MIN, ROWS_MIN = 1 << 20, 10_000
"""Of input, or rows of the program: a job with less runs its functions in this process."""
SETS_MAX = 4
"""Sets of functions whose processes are kept for the next job."""
_HERE = "chukonu.python.processes = 0 runs it in this process"
Frame = Any


@dataclass(frozen=True)
class Remote:
    """In place of a function: `number` among those of a set."""

    workers: Workers
    number: int
    name: str

    def column(self, columns: list[Any], dtype: Any) -> Any:  # noqa: ANN401
        """`columns`: as kernels get them (udfs.py), the last one says how many rows there are."""
        height = columns[-1].len()
        if not height:
            return pl.Series([], dtype=dtype)
        given = [columns[-1], *columns[:-1]]
        whole = [c if len(c) == height else c.new_from_index(0, height) for c in given]
        frame = pl.DataFrame([c.alias(str(n)) for n, c in enumerate(whole)])
        with self.workers.one(self.name) as worker:
            data = worker.call(self.number, wire.bytes_of(frame))
        return wire.frame_of(data).to_series()

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        """As the function of a mapInArrow."""
        with self.workers.one(self.name) as worker:
            yield from worker.map(self.number, batches)


class Worker:
    def __init__(self, link: socket.socket, owner: Workers, name: str) -> None:
        self._link = link
        self._owner = owner
        self._name = name
        self.idle = False

    def __enter__(self) -> Worker:
        self.idle = False
        return self

    def __exit__(self, *_: object) -> None:
        if self.idle:
            self._owner.free(self._link)
        else:
            self._link.close()  # nobody knows how far it is: it ends

    def _send(self, kind: int, number: int = 0, data: Any = b"") -> None:  # noqa: ANN401
        try:
            wire.send(self._link, kind, number, data)
        except OSError:
            raise self._lost() from None

    def _answer(self) -> wire.Message:
        try:
            found = wire.receive(self._link)
        except OSError:
            found = None
        if found is None:
            raise self._lost()
        if found.kind in (wire.DONE, wire.ERROR):
            self.idle = True
            self._owner.used(found.number / 1e6)
        if found.kind == wire.ERROR:
            raise loaded(found.data)
        return found

    def _lost(self) -> RuntimeException:
        return RuntimeException(
            "CHUKONU_PYTHON_PROCESS",
            f"the process of {self._name} has ended while it was at work (killed, for want of "
            f"memory perhaps, or by the function itself); {_HERE}",
        )

    def call(self, number: int, data: Any) -> bytearray:  # noqa: ANN401
        self._send(wire.CALL, number, data)
        return self._answer().data

    def map(self, number: int, batches: Iterator[Any]) -> Iterator[Any]:
        self._send(wire.MAP, number)
        while (found := self._answer()).kind != wire.DONE:
            if found.kind == wire.BATCH:
                yield from wire.batches_of(found.data)
            elif (batch := next(batches, None)) is not None:
                self._send(wire.BATCH, data=wire.bytes_of_batch(batch))
            else:
                self._send(wire.DONE)


class Workers:
    """Of one set of functions: those that are free, and as many more as it takes."""

    def __init__(self, server: Server, number: int, functions: list[Any], used: Used) -> None:
        self._server = server
        self._number = number
        self.functions = functions  # their ids are theirs while they live
        self.used = used
        self._free: list[socket.socket] = []
        self._lock = threading.Lock()
        self._over = False
        weakref.finalize(self, _dropped, server, number, self._free)

    def one(self, name: str) -> Worker:
        with self._lock:
            link = self._free.pop() if self._free else None
        return Worker(link or self._server.fork(self._number), self, name)

    def free(self, link: socket.socket) -> None:
        with self._lock:
            if not self._over:
                self._free.append(link)
                return
        link.close()

    def close(self) -> None:
        """Those that are free end now, the others when they are done."""
        with self._lock:
            self._over = True
            while self._free:
                self._free.pop().close()

    def prepare(self, count: int) -> None:
        while len(self._free) < count:
            self.free(self._server.fork(self._number))


def _dropped(server: Server, number: int, links: list[socket.socket]) -> None:
    for link in links:
        link.close()
    server.drop(number)


class Used:
    """CPU seconds of all processes of an executor."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    def __call__(self, seconds: float) -> None:
        with self._lock:
            self.seconds += seconds


class Server:
    """The process that others are forked from, from the first function on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link, there = socket.socketpair()
        here = f"import sys; sys.path[:] = {sys.path!r}\n"
        here += f"from {forkserver.__name__} import main; main({there.fileno()})"
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-c", here],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "POLARS_MAX_THREADS": "1"},
            )
        self.close = weakref.finalize(self, _ended, self._link, self._process)

    def load(self, number: int, data: bytes) -> None:
        """Raises what loading raised there."""
        with self._lock:
            found = self._asked(wire.LOAD, number, data)
        if found.kind == wire.ERROR:
            error = loaded(found.data)
            raise UnsupportedError(
                "a Python function that other processes cannot load:", f"{error!r}; {_HERE}"
            ) from error

    def fork(self, number: int) -> socket.socket:
        link, there = socket.socketpair()
        with there, self._lock:
            try:
                wire.send(self._link, wire.FORK, number, descriptors=[there.fileno()])
            except OSError:
                link.close()
                raise self._lost() from None
        return link

    def drop(self, number: int) -> None:
        with self._lock, contextlib.suppress(OSError):  # it may have gone
            wire.send(self._link, wire.DROP, number)

    def _asked(self, kind: int, number: int, data: bytes) -> wire.Message:
        try:
            wire.send(self._link, kind, number, data)
            found = wire.receive(self._link)
        except OSError:
            found = None
        if found is None:
            raise self._lost()
        return found

    def _lost(self) -> RuntimeException:
        what = f"the process that runs Python functions has ended: status {self._process.wait()}"
        return RuntimeException("CHUKONU_PYTHON_PROCESS", f"{what}; {_HERE}")


def _ended(link: socket.socket, process: subprocess.Popen[bytes]) -> None:
    link.close()
    process.wait()


def loaded(data: bytes | bytearray) -> BaseException:
    """An exception that forkserver.described has written."""
    inner, text = pickle.loads(data)
    error: BaseException = pickle.loads(inner)
    error.add_note(f"In the process of the function:\n{text}")
    return error


class Processes:
    """Of an executor. Nothing is started before the first job that has functions and is not small:
    what is read for that is less than these need to begin."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._server: Server | None = None
        self._sets: dict[tuple[Any, ...], Workers] = {}
        self._numbers = itertools.count()
        self._used = Used()

    @property
    def cpu_seconds(self) -> float:
        return self._used.seconds

    def close(self) -> None:
        while self._sets:
            self._sets.popitem()[1].close()
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def shipped(self, plan: p.Node) -> p.Node:
        """The plan with its functions sent, if it is large enough for that."""
        functions = list({_identity(one): one for one in _functions(plan)}.values())
        if not self._count or not functions or not _large(plan):
            return plan
        key = tuple(_identity(one) for one in functions)
        workers = self._sets.pop(key, None) or self._loaded(functions)
        self._sets[key] = workers
        while len(self._sets) > SETS_MAX:
            del self._sets[next(iter(self._sets))]
        workers.prepare(self._count)
        numbers = {identity: number for number, identity in enumerate(key)}
        return _replaced(plan, lambda one: Remote(workers, numbers[_identity(one)], _name(one)))

    def _loaded(self, functions: list[Any]) -> Workers:
        try:
            import cloudpickle
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"Python functions need {error.name}: pip install 'superfs[chukonu]' ({_HERE})",
                name=error.name,
            ) from None
        if self._server is None:
            self._server = Server()
        try:
            data = cloudpickle.dumps(functions)
        except Exception as error:
            raise UnsupportedError(
                "a Python function that cannot be sent to other processes:", f"{error}; {_HERE}"
            ) from error
        number = next(self._numbers)
        self._server.load(number, data)
        return Workers(self._server, number, functions, self._used)


def _identity(one: e.PythonUDF | wire.Mapped) -> tuple[Any, ...]:
    """What it depends on. The ids are theirs while the set lives."""
    if isinstance(one, wire.Mapped):
        return (id(one.run),)
    kinds = [one.dtype, *(e.dtype_of(arg) for arg in one.args)]
    return (id(one.function), one.batch, *(kind.simpleString() for kind in kinds))


def _name(one: e.PythonUDF | wire.Mapped) -> str:
    return getattr(one.run, "__name__", "function") if isinstance(one, wire.Mapped) else one.name


def _functions(node: p.Node) -> Iterator[e.PythonUDF | wire.Mapped]:
    """In the order of the plan: PythonUDFs, whose arguments have types alone, and Mapped."""
    for child in node.children:
        yield from _functions(child)
    match node:
        case p.Project(_, columns):
            exprs = [expr for _, expr in columns]
        case p.Filter(_, condition):
            exprs = [condition]
        case p.MapBatches(_, run):
            yield wire.Mapped(run)
            return
        case _:
            return
    for expr in exprs:
        for part in expr.walk():
            if isinstance(part, e.PythonUDF):
                args = tuple(e.Ref(0, "", e.dtype_of(arg)) for arg in part.args)
                yield replace(part, args=args)


def _large(node: p.Node) -> bool:
    if isinstance(node, p.Scan):
        return sum(split.bytes for split in node.source.splits) > BYTES_MIN
    if isinstance(node, p.Local):
        return bool(node.frame.height > ROWS_MIN)
    return any(_large(child) for child in node.children)


def _replaced(node: p.Node, remote: Callable[[Any], Remote]) -> p.Node:
    def change(expr: e.Expr) -> e.Expr:
        made = expr.rebuild(change)
        if isinstance(made, e.PythonUDF):
            return replace(made, function=remote(made))
        return made

    node = node.over(*(_replaced(child, remote) for child in node.children))
    match node:
        case p.Project(_, columns):
            return replace(node, columns=tuple((ref, change(expr)) for ref, expr in columns))
        case p.Filter(_, condition):
            return replace(node, condition=change(condition))
        case p.MapBatches(_, run):
            return replace(node, run=remote(wire.Mapped(run)))
    return node
