"""A Unix socket in front of another one that delivers everything later: a network's latency."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART_BYTES = 1 << 16


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late_s: float) -> None:
    """In order, each part `late_s` after it came; parts do not wait for each other."""
    loop = asyncio.get_running_loop()
    parts: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await parts.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                break
            writer.write(data)
        with contextlib.suppress(OSError):
            writer.write_eof()

    delivering = asyncio.create_task(deliver())
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(PART_BYTES):
            parts.put_nowait((loop.time() + late_s, data))
    parts.put_nowait((0.0, b""))
    await delivering


@contextlib.contextmanager
def slow_socket(target: Path, path: Path, late_s: float) -> Iterator[Path]:
    """A socket at `path`; each direction takes `late_s` longer."""
    ready = threading.Event()
    stop: list[asyncio.Event] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        tasks: set[asyncio.Task[None] | None] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.current_task())
            there, back = await asyncio.open_unix_connection(str(target))
            await asyncio.gather(_pump(reader, back, late_s), _pump(there, writer, late_s))
            for end in (writer, back):
                end.close()
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()

        server = await asyncio.start_unix_server(accept, str(path))
        stop.append(asyncio.Event())
        loops.append(asyncio.get_running_loop())
        ready.set()
        await stop[0].wait()
        server.close()
        if tasks:
            await asyncio.wait([task for task in tasks if task is not None], timeout=5)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="slow socket")
    thread.start()
    assert ready.wait(10), "the slow socket does not open"
    try:
        yield path
    finally:
        loops[0].call_soon_threadsafe(stop[0].set)
        thread.join(10)
