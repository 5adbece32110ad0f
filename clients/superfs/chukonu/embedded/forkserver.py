"""The process that those of Python functions are forked from: begun before anything has threads.

On its socket come messages (wire.py): `LOAD n` with pickled functions, which are loaded here, once,
and with them the modules that they need; `FORK n` with the descriptor of a socket, for which a
worker is forked that has them already; `DROP n`. A worker answers `CALL` and serves `MAP` until its
socket is closed. This process ends when its own is.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import time
import traceback
from typing import TYPE_CHECKING, Any

from superfs.chukonu.embedded import wire
from superfs.chukonu.embedded.udfs import batches, rows
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Iterator


def main(descriptor: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever began us decides
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers
    with socket.socket(fileno=descriptor) as control:
        serve(control)


def serve(control: socket.socket) -> None:
    known: dict[int, list[Any]] = {}
    while (found := wire.receive(control, descriptors=1)) is not None:
        if found.kind == wire.LOAD:
            try:
                known[found.number] = pickle.loads(found.data)
            except BaseException as error:
                wire.send(control, wire.ERROR, data=described(error))
            else:
                gc.collect()
                gc.freeze()  # what is there stays shared with what is forked
                wire.send(control, wire.DONE)
        elif found.kind == wire.DROP:
            known.pop(found.number, None)
        elif found.kind == wire.FORK:
            link = socket.socket(fileno=found.descriptors[0])
            if os.fork() == 0:
                forked(control, link, known[found.number])
            link.close()


def forked(control: socket.socket, link: socket.socket, functions: list[Any]) -> None:
    try:
        control.close()
        work(link, functions)
    except OSError:
        pass  # whoever asked has gone
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def work(link: socket.socket, functions: list[Any]) -> None:
    kernels: list[Any] = [
        one if isinstance(one, wire.Mapped) else batches(one) if one.batch else rows(one)
        for one in functions
    ]
    while (found := wire.receive(link)) is not None:
        kernel = kernels[found.number]
        began = time.process_time()
        kind, data = wire.DONE, memoryview(b"")
        try:
            if found.kind == wire.MAP:
                mapped(link, kernel.run)
            else:
                data = called(kernel, found.data)
        except BaseException as error:
            kind, data = wire.ERROR, memoryview(described(error))
        used = int((time.process_time() - began) * 1e6)
        wire.send(link, kind, used, data)


def called(kernel: Any, data: bytearray) -> memoryview:  # noqa: ANN401
    columns = wire.frame_of(data).get_columns()
    found = kernel([*columns[1:], columns[0]])  # the first one says how many rows there are
    return wire.bytes_of(pl.DataFrame({"": found}))


def mapped(link: socket.socket, run: Any) -> None:  # noqa: ANN401
    def given() -> Iterator[Any]:
        while True:
            wire.send(link, wire.MORE)
            found = wire.receive(link)
            if found is None:
                os._exit(0)  # nobody wants more
            if found.kind == wire.DONE:
                return
            yield from wire.batches_of(found.data)

    for batch in run(given()):
        wire.send(link, wire.BATCH, data=wire.bytes_of_batch(batch))


def described(error: BaseException) -> bytes:
    """The exception, as far as another process can have it, and where it came from."""
    text = "".join(traceback.format_exception(error))
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:
        data = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return pickle.dumps((data, text))
