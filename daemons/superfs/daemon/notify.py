"""sd_notify: what systemd is told over the socket it names in NOTIFY_SOCKET.

Without that variable every call does nothing: the daemon was not started by systemd.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


STARTING_S = 20.0


class Notifier:
    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environment)
        """How often systemd wants to hear WATCHDOG=1 at least; 0: not at all."""

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={status}")

    async def starting(self) -> None:
        """A store is read from end to end before it is served, and that takes as long as it takes:
        systemd is told that we are at it. Until it is cancelled."""
        while True:
            self._send(f"EXTEND_TIMEOUT_USEC={int(3 * STARTING_S * 1_000_000)}")
            await asyncio.sleep(STARTING_S)

    async def watch(self) -> None:
        """Keeps the watchdog quiet for as long as the event loop turns."""
        while self.watchdog_s > 0:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 3)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # Nothing to be done about a systemd that does not listen; the daemon serves all the same.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.connect(self._address)
            sender.send(message.encode())


def _watchdog_s(environment: Mapping[str, str]) -> float:
    usec = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 1_000_000
