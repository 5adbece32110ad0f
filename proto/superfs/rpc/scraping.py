"""The end of the HTTP server of a process's metrics, which prometheus-client starts."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socketserver import TCPServer


def close_http(server: TCPServer) -> None:
    """At once. Its loop looks whether it is to end every half a second, and after a connection."""
    host, port = server.server_address[:2]
    ending = threading.Thread(target=server.shutdown)
    ending.start()
    while ending.is_alive():
        with contextlib.suppress(OSError):
            socket.create_connection((str(host), port), timeout=1.0).close()
        ending.join(0.01)
    server.server_close()
