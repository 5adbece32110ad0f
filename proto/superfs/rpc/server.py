"""The gRPC server of a daemon: limits, keep-alive, health, and the guard before every servicer.

    server = GrpcServer(listen, authority, now_ns)
    meta_pb2_grpc.add_MetaServicer_to_server(servicer, server.grpc)
    await server.start()

Addresses are gRPC targets: "unix:PATH" or "HOST:PORT".
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from superfs.core.errors import Code, FsError
from superfs.rpc.channel import Options, common_options
from superfs.rpc.guard import Guard, Observer, Received, grant_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.core.tokens import Authority

__all__ = ["GrpcServer", "grant_of"]

CONCURRENT_STREAMS_MAX = 1024
"""Calls at a time on one connection; more wait at the client."""
PING_INTERVAL_MIN_MS = 5_000
HANDSHAKE_TIMEOUT_MS = 10_000


def server_options() -> Options:
    return [
        *common_options(),
        ("grpc.max_concurrent_streams", CONCURRENT_STREAMS_MAX),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.so_reuseport", 0),  # a second daemon on the same port must fail
    ]


class GrpcServer:
    """Create and use it within one event loop."""

    def __init__(
        self,
        listen: Sequence[str],
        authority: Authority,
        now_ns: Callable[[], int],
        observe: Observer | None = None,
        received: Received | None = None,
    ) -> None:
        self._listen = tuple(listen)
        self._guard = Guard(authority, now_ns, observe, received)
        self._health = health_aio.HealthServicer()
        self.grpc = grpc.aio.server(interceptors=[self._guard], options=server_options())
        """What `add_…Servicer_to_server` takes."""
        self.addresses: tuple[str, ...] = ()
        """What it really listens on, after `start` (port 0 has become a number)."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)

    async def start(self) -> None:
        """OSError when an address cannot be had."""
        try:
            self.addresses = tuple(self._bind(address) for address in self._listen)
        except OSError:
            await self.grpc.stop(None)  # else it complains when it is collected
            raise
        await self.grpc.start()

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, ends streams at once, lets unary calls finish within `grace_s`.

        Afterwards no servicer runs any more. A client whose call was ended asks again with the
        same sequence numbers, so ending it before its answer loses nothing."""
        await self._health.enter_graceful_shutdown()
        self._guard.end_streams()
        await self.grpc.stop(grace_s)

    def _bind(self, address: str) -> str:
        if address.startswith("unix:"):
            clear_socket(Path(address.removeprefix("unix:")))
        try:
            port = self.grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        if address.startswith("unix:"):
            return address
        host, _, _ = address.rpartition(":")
        return f"{host}:{port}"


def clear_socket(path: Path) -> None:
    """Makes way for a Unix socket: the directory exists, and nobody alive listens there.

    gRPC would unlink a living daemon's socket without a word."""
    if len(os.fsencode(path)) > 107:
        raise OSError(f"the path of a Unix socket has at most 107 bytes: {path}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and not path.is_socket():
        raise OSError(f"{path} is in the way of a socket")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except OSError as error:
            raise OSError(f"{path}: {error.strerror}") from None
    raise OSError(f"another daemon already listens on {path}")


def check_target(address: str) -> str:
    """The address itself, if it can be one; FsError INVALID otherwise."""
    if address.startswith("unix:"):
        if os.path.isabs(address.removeprefix("unix:")):
            return address
        raise FsError(Code.INVALID, f"{address!r}: a Unix socket needs an absolute path")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535 or "/" in host:
        raise FsError(Code.INVALID, f"{address!r}: expected unix:/PATH or HOST:PORT")
    return address
