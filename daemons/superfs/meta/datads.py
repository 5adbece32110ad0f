"""The data daemons, from here: what a metadata daemon tells and asks them, and their usage."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING, Any

import grpc

from superfs.core.errors import Code, FsError, known_code
from superfs.core.namespace.outcome import FsStat
from superfs.core.tokens import Grant, Purpose
from superfs.daemon.membership import daemon_token
from superfs.rpc.channel import choose_address, open_aio_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.v1 import data_pb2, data_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from superfs.daemon.world import World
    from superfs.meta.chains import Layout
    from superfs.meta.config import MetadConfig
    from superfs.meta.sweeper import Swept


LIST_DEADLINE_S = 60.0
REAPS_MAX = 512


class DataDaemons:
    """`layout` gives the newest cluster map; a daemon that has moved is found at its new place."""

    def __init__(self, config: MetadConfig, world: World, layout: Callable[[], Layout]) -> None:
        self._config = config
        self._world = world
        self._layout = layout
        self._name = f"metad {config.daemon.node_id}"
        self._channels: dict[int, tuple[str, grpc.aio.Channel]] = {}
        self.news = asyncio.Event()
        """Set when the cluster map has changed."""
        self._usage: dict[int, data_pb2.UsageReply] = {}

    def nodes_of(self, chains: Iterable[int]) -> set[int]:
        """The data daemons that hold these chains. A chain that no map has named yet is the
        business of the daemon with that place in it: chains are never taken away."""
        layout = self._layout()
        return {node for chain in chains for node in layout.nodes_of.get(chain, ())}

    async def reap(self, node: int, items: Sequence[tuple[int, int]]) -> None:
        body = data_pb2.Reap()
        for ino, generation in items:
            body.items.add(ino=ino, data_generation=generation)
        await self.call(node, data_pb2.DataRequest(reap=body))

    async def truncate(self, node: int, ino: int, generation: int, size: int) -> None:
        body = data_pb2.Truncate(ino=ino, data_generation=generation, size=size)
        await self.call(node, data_pb2.DataRequest(truncate=body))

    async def drop_range(self, node: int, swept: Swept) -> int:
        """What an ended session has written under numbers that will never be files, after it can
        write no more. How many there were."""
        fence = data_pb2.Fence(session_id=swept.session, epoch=swept.epoch)
        await self.call(node, data_pb2.DataRequest(fence=fence))
        request = data_pb2.DataListRequest(number_range=swept.range, used=swept.used)
        found: list[tuple[int, int]] = []
        try:
            async for page in data_pb2_grpc.DataStub(self._channel(node)).ListData(
                request, metadata=self._token(), timeout=LIST_DEADLINE_S
            ):
                inos = struct.unpack(f"<{len(page.inos) // 8}Q", page.inos)
                generations = struct.unpack(f"<{len(page.generations) // 4}I", page.generations)
                found += zip(inos, generations, strict=True)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
        for start in range(0, len(found), REAPS_MAX):
            await self.reap(node, found[start : start + REAPS_MAX])
        return len(found)

    # ---- usage

    async def watch_usage(self) -> None:
        """Keeps the answer to statfs fresh. A daemon that is away counts with its last figures."""
        while True:
            for node in self._layout().addresses:
                try:
                    reply = await self.call(node, data_pb2.DataRequest(usage=data_pb2.Usage()))
                    self._usage[node] = reply.usage
                except FsError as error:
                    self._world.log.debug("no usage", node=node, error=str(error))
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.meta.usage_refresh_s):
                    await self.news.wait()

    def fs_stat(self, inodes_used: int, inodes_free: int) -> FsStat:
        total = sum(u.bytes_total for u in self._usage.values())
        free = sum(u.bytes_free for u in self._usage.values())
        return FsStat(total, free, inodes_used, inodes_free)

    def nodes(self) -> Iterable[int]:
        return self._layout().addresses

    # ---- calls

    async def call(self, node: int, request: data_pb2.DataRequest) -> data_pb2.DataReply:
        grant = Grant("daemon", self._name)
        request.capability = self._world.authority.issue(Purpose.CAPABILITY, grant)
        try:
            reply: data_pb2.DataReply = await data_pb2_grpc.DataStub(self._channel(node)).Execute(
                request, metadata=self._token(), timeout=self._config.meta.data_deadline_s
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
        if reply.code:
            raise FsError(known_code(reply.code), reply.detail)
        return reply

    def _token(self) -> Any:  # noqa: ANN401
        now_ns = self._world.clock.now_ns()
        return token_metadata(daemon_token(self._world.authority, now_ns, self._name))

    def _channel(self, node: int) -> grpc.aio.Channel:
        addresses = self._layout().addresses.get(node)
        if not addresses:
            raise FsError(Code.UNAVAILABLE, f"the cluster map has no data daemon {node}")
        address = choose_address(addresses)
        known = self._channels.get(node)
        if known is None or known[0] != address:
            known = self._channels[node] = (address, open_aio_channel([address]))
        return known[1]

    async def close(self) -> None:
        for _, channel in self._channels.values():
            await channel.close(None)
