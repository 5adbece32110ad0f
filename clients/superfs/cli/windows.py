"""The mounts of this machine that can be asked what they do (superfs.client.windows)."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from superfs.cli import mounts
from superfs.cli.output import CliError
from superfs.client import windows
from superfs.client.mounted import mount_table

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT_S = 5.0
CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class Window:
    """One mount, connected. `hello`: its first counters."""

    path: Path
    _socket: socket.socket
    _waiting: bytearray = field(default_factory=bytearray)
    hello: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Window | None:
        """None: nobody is there any more. OSError: it may not be asked."""
        try:
            connection = windows.connect(path, TIMEOUT_S)
        except (ConnectionError, FileNotFoundError):
            return None
        window = cls(path, connection)
        try:
            window.hello = window.stats()
        except ConnectionError:
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return window

    @property
    def mountpoint(self) -> str:
        return str(self.hello["mountpoint"])

    @property
    def cluster(self) -> set[str]:
        return set(self.hello["cluster"])

    def stats(self) -> dict[str, Any]:
        self._ask("stats")
        return self._line()

    def watch(self) -> Iterator[dict[str, Any]]:
        """What happens, every moment, until the mount ends."""
        self._ask("watch")
        while True:
            try:
                yield self._line()
            except ConnectionError:
                return

    def sync(self, timeout_s: float) -> tuple[int, int]:
        """Until everything done through this mount is on disk: how many files could not be written,
        and of how many files and directories changes were lost that no sync has told of yet."""
        self._socket.settimeout(timeout_s)
        self._ask("sync")
        answer = self._line()
        return int(answer["unwritten"]), int(answer["lost"])

    def close(self) -> None:
        self._socket.close()

    def _ask(self, what: str) -> None:
        self._socket.sendall(json.dumps({"ask": what}).encode() + b"\n")

    def _line(self) -> dict[str, Any]:
        while (end := self._waiting.find(b"\n")) < 0:
            data = self._socket.recv(CHUNK_BYTES)
            if not data:
                raise ConnectionResetError("the mount has ended")
            self._waiting += data
        line = bytes(self._waiting[:end])
        del self._waiting[: end + 1]
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise CliError(message["error"])
        return message


def open_all() -> list[Window]:
    """Every mount that this user may ask, by mount point. What dead ones have left is removed."""
    found = []
    for path in windows.all_sockets():
        with contextlib.suppress(OSError):
            window = Window.open(path)
            if window is not None:
                found.append(window)
            elif path.stat().st_uid == os.geteuid():
                path.unlink()
    return sorted(found, key=lambda window: window.mountpoint)


def open_at(path: Path) -> Window:
    """The mount that `path` is in; else what is wrong with it."""
    point = point_of(path)
    if point is None:
        raise CliError(
            f"{path} is in no SuperFS mount",
            hint="`superfs stats` without an argument shows those of this machine",
        )
    for window in open_all():
        if window.mountpoint == str(point):
            return window
        window.close()
    if mounts.is_dead(point):
        raise CliError(
            f"the mount at {point} is dead: its process has ended",
            hint=f"take it off with `umount -l {point}`, or mount with -o recover",
        )
    raise CliError(
        f"the mount at {point} does not answer to this user",
        hint="be root or the user who mounted it; in a container, look from inside",
    )


def point_of(path: Path) -> Path | None:
    """Without touching what may be dead."""
    place = mounts.resolve_mount_point(path)
    ours = {mounted.path for mounted in mount_table() if mounted.is_superfs}
    return next((p for p in (place, *place.parents) if p in ours), None)
