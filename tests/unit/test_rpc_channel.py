"""How a client makes a connection."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING

import grpc

from superfs.rpc.channel import open_channel

if TYPE_CHECKING:
    from pathlib import Path

PREFACE = b"PRI * HTTP/2.0"
BUSY_S = 0.5


def test_a_daemon_that_is_busy_has_time_to_answer(tmp_path: Path) -> None:
    """A connection is not given up because nobody has looked at it for a moment: each new one
    would only wait behind it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "busy.sock"))
    listener.listen()
    listener.settimeout(10)
    with listener, open_channel([f"unix:{tmp_path}/busy.sock"]) as channel:
        grpc.channel_ready_future(channel)
        connection, _ = listener.accept()
        with connection:
            accepted = time.monotonic()
            said = b""
            while (left := accepted + BUSY_S - time.monotonic()) > 0:
                if select.select([connection], [], [], left)[0]:
                    more = connection.recv(4096)
                    assert more, f"hung up after {time.monotonic() - accepted:.2f} s"
                    said += more
            assert said.startswith(PREFACE)
