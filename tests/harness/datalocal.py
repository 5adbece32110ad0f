"""The other end of a data daemon's local socket, in the test's process."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from harness import datastore
from harness.datastore import HOST, KEY, Served, capability, serving
from superfs.core.tokens import Authority, Grant, Purpose
from superfs.data.config import LocalConfig
from superfs.rpc import packets
from superfs.v1.data_pb2 import LocalHello, LocalReply, LocalRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


def token(grant: Grant) -> bytes:
    return Authority(KEY).issue(Purpose.SESSION, grant)


class Client:
    """The other end; what blocks happens in a thread."""

    def __init__(self, path: Path) -> None:
        self.socket = packets.local_socket()
        self.socket.settimeout(10)
        self.socket.connect(os.fspath(path))
        self.descriptors: list[int] = []

    async def ask(self, **body: Any) -> LocalReply | None:  # noqa: ANN401
        """None: it has hung up."""
        return await self.send(LocalRequest(tag=5, **body).SerializeToString())

    async def send(self, message: bytes, descriptors: list[int] | None = None) -> LocalReply | None:
        packets.send(self.socket, message, descriptors)
        return await self.hear()

    async def hear(self) -> LocalReply | None:
        try:
            message, found = await asyncio.to_thread(packets.receive, self.socket, 16)
        except ConnectionError:
            return None
        self.descriptors += found
        return LocalReply.FromString(message) if message else None

    async def hello(self, grant: Grant = HOST, right: Grant | None = None) -> LocalReply | None:
        return await self.ask(
            hello=LocalHello(token=token(grant), capability=capability(right or grant))
        )

    def close(self) -> None:
        self.socket.close()
        packets.close_all(self.descriptors)
        self.descriptors = []


def run(
    tmp_path: Path,
    test: Callable[[Served, Callable[[], Client]], Awaitable[None]],
    **limits: Any,  # noqa: ANN401
) -> None:
    async def main() -> None:
        async with serving(tmp_path / "d", local=LocalConfig(**limits)) as served:
            clients: list[Client] = []

            def client() -> Client:
                assert served.daemon.local is not None
                clients.append(Client(served.daemon.local.path))
                return clients[-1]

            try:
                await test(served, client)
            finally:
                for each in clients:
                    each.close()

    datastore.make(tmp_path / "d")
    asyncio.run(main())
