"""The window of a mount: whoever is its user, or root, may look in and see what it does.

A Unix socket in a private directory (superfs.client.windows says where, and what is spoken). One
that cannot be opened is done without: nothing of the file system depends on it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import trio

from superfs.client import windows
from superfs.core.errors import Code, FsError
from superfs.mount.accesses import Accesses, Paths

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.mount.desk.device import Device
    from superfs.mount.figures import Figures
    from superfs.mount.services import Services

LOOKERS_MAX = 16
WATCH_S = 0.1
ACCESSES_A_LINE = 2000

log = logging.getLogger("superfs.mount.window")


class Window:
    def __init__(self, services: Services, device: Device, figures: Figures) -> None:
        self._services = services
        self._mounted = services.mounted
        self._device = device
        self._figures = figures
        self._lookers = 0
        self._losses_told = 0

    async def run(self) -> None:
        """Until cancelled."""
        path = windows.socket_of(os.getpid())
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            if not windows.is_private(path.parent, os.geteuid()):
                raise OSError(f"{path.parent} is not a private directory of this user")
            listener = await _listen(path)
        except OSError as error:
            log.warning("`superfs stats` will not see this mount: %s", error)
            return
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    stream, _ = await listener.accept()
                    nursery.start_soon(self._serve, trio.SocketStream(stream))
        finally:
            listener.close()
            with contextlib.suppress(OSError):
                path.unlink()

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            self._lookers += 1
            try:
                try:
                    await self._answer(stream)
                except* (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # who asked has gone
            except Exception:
                log.exception("a bug in the window of the mount")
            finally:
                self._lookers -= 1

    async def _answer(self, stream: trio.SocketStream) -> None:
        if windows.uid_of(stream.socket) not in (0, os.geteuid()):
            await _say(stream, {"error": "this mount is another user's"})
            return
        if self._lookers > LOOKERS_MAX:
            await _say(stream, {"error": f"{LOOKERS_MAX} others are looking already"})
            return
        waiting = b""
        while True:
            line, newline, waiting = waiting.partition(b"\n")
            if not newline:
                waiting = line + await stream.receive_some(windows.LINE_BYTES_MAX)
                if len(waiting) == len(line):
                    return
                if len(waiting) > windows.LINE_BYTES_MAX and b"\n" not in waiting:
                    await _say(stream, {"error": "that line is too long"})
                    return
                continue
            ask = _asked(line)
            if ask == "stats":
                await _say(stream, self._figures.now())
            elif ask == "sync":
                losses, answer = await self._sync()
                await _say(stream, answer)
                self._losses_told = max(self._losses_told, losses)  # whoever asked has heard it
            elif ask == "watch":
                await self._watch(stream)
                return
            else:
                await _say(stream, {"error": "ask for stats, watch or sync"})

    async def _sync(self) -> tuple[int, dict[str, Any]]:
        """Up to which loss is told, and the answer. Each is told once, to who syncs next, whether
        or not it came in between."""
        try:
            unwritten = await self._services.sync()
        except FsError as error:
            is_loss = error.code is Code.IO
            told = self._mounted.lost.count if is_loss else self._losses_told
            return told, {"error": f"not everything is on disk: {error}"}
        losses = self._mounted.lost.count
        return losses, {"unwritten": unwritten, "lost": losses - self._losses_told}

    async def _watch(self, stream: trio.SocketStream) -> None:
        """Until whoever watches hangs up, also while nothing happens."""
        if self._device.watcher is not None:
            await _say(stream, {"error": "somebody else is watching this mount already"})
            return
        self._device.watcher = accesses = Accesses()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, stream, accesses)
                while await stream.receive_some(windows.LINE_BYTES_MAX):
                    pass
                nursery.cancel_scope.cancel()
        finally:
            self._device.watcher = None

    async def _send(self, stream: trio.SocketStream, accesses: Accesses) -> None:
        paths = Paths(self._mounted)
        while True:
            found = accesses.take(ACCESSES_A_LINE)
            directories = [paths.directory_of(access) for access in found]
            message = {
                "lost": accesses.lost,
                "paths": {number: paths.path_of(number) for number in set(directories)},
                "accesses": [
                    {
                        "operation": access.operation,
                        "directory": directory,
                        "inode": access.number,
                        "name": access.name.decode(errors="backslashreplace"),
                        "pid": access.pid,
                        "command": access.command,
                        "uid": access.uid,
                        "started_ns": access.started_ns,
                        "duration_ns": access.duration_ns,
                        "errno": access.errno,
                        "bytes": access.bytes,
                    }
                    for access, directory in zip(found, directories, strict=True)
                ],
            }
            await _say(stream, message)
            if len(found) < ACCESSES_A_LINE:
                await trio.sleep(WATCH_S)


async def _listen(path: Path) -> trio.socket.SocketType:
    """Who finds the socket finds somebody listening: one where nobody does is taken for dead."""
    new = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await listener.bind(os.fspath(new))
        listener.listen(LOOKERS_MAX)
        new.chmod(0o600)
        new.replace(path)
    except BaseException:
        listener.close()
        raise
    return listener


def _asked(line: bytes) -> object:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message.get("ask") if isinstance(message, dict) else None


async def _say(stream: trio.SocketStream, message: dict[str, Any]) -> None:
    await stream.send_all(json.dumps(message, separators=(",", ":")).encode() + b"\n")
