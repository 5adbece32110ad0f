"""A daemon's membership in the cluster: it announces itself to clusterd and keeps the map fresh.

    membership = Membership(config.daemon, cluster_pb2.ROLE_DATA, world)
    await membership.join(group)       # waits for clusterd; then membership.map is set
    membership.map                     # the newest cluster map
    await membership.changed(epoch)    # until a map newer than that epoch is here

Once it is known the map outlives clusterd: a daemon goes on without it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from superfs.core.errors import Code, FsError
from superfs.core.tokens import Authority, Grant, Purpose
from superfs.rpc.channel import open_aio_channel, open_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.rpc.host import host_id
from superfs.v1 import cluster_pb2, cluster_pb2_grpc

if TYPE_CHECKING:
    from superfs.daemon.common import CommonConfig
    from superfs.daemon.world import World

REFRESH_S = 2.0
CALL_S = 5.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
DAEMON_TOKEN_S = 3600


def daemon_token(authority: Authority, now_ns: int, name: str) -> bytes:
    """What a daemon shows to other daemons: it holds the key, so it signs its own."""
    expires_ns = now_ns + DAEMON_TOKEN_S * 1_000_000_000
    return authority.issue(Purpose.SESSION, Grant("daemon", name, expires_ns=expires_ns))


def fetch_map(common: CommonConfig, world: World) -> cluster_pb2.ClusterMap:
    """One blocking call, for `--format`, which needs the cluster's id. UNAVAILABLE without it."""
    token = daemon_token(world.authority, world.clock.now_ns(), f"node {common.node_id}")
    with open_channel(common.cluster) as channel:
        try:
            found: cluster_pb2.ClusterMap = cluster_pb2_grpc.ClusterStub(channel).GetMap(
                cluster_pb2.GetMapRequest(), metadata=token_metadata(token), timeout=CALL_S
            )
        except grpc.RpcError as error:
            raise _explained(from_rpc(error), common) from None
    return found


class Membership:
    def __init__(
        self,
        common: CommonConfig,
        role: cluster_pb2.Role,
        world: World,
        *,
        cluster_id: str,
    ) -> None:
        """`cluster_id`: of the identity on disk; another cluster's clusterd ends the daemon."""
        self._common = common
        self._role = role
        self._world = world
        self._cluster_id = cluster_id
        self._map: cluster_pb2.ClusterMap | None = None
        self._news = asyncio.Condition()

    @property
    def map(self) -> cluster_pb2.ClusterMap:
        assert self._map is not None, "join first"
        return self._map

    async def join(self, group: asyncio.TaskGroup) -> None:
        """Registers, however long clusterd takes to come up, and keeps the map fresh."""
        delay_s, told = RETRY_FIRST_S, False
        while self._map is None:
            try:
                await self._register()
            except FsError as error:
                if not error.retryable:
                    raise
                if not told:
                    self._world.log.warning("waiting for clusterd", error=str(error))
                told = True
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)
        group.create_task(self._refresh(), name="cluster map")

    async def changed(self, epoch: int) -> cluster_pb2.ClusterMap:
        async with self._news:
            await self._news.wait_for(lambda: self.map.epoch > epoch)
        return self.map

    async def _register(self) -> None:
        node = cluster_pb2.Node(
            node_id=self._common.node_id,
            role=self._role,
            addresses=self._common.advertised,
            host_id=host_id(),
        )
        async with open_aio_channel(self._common.cluster) as channel:
            stub = cluster_pb2_grpc.ClusterStub(channel)
            try:
                fresh = await stub.Register(
                    cluster_pb2.RegisterRequest(node=node),
                    metadata=token_metadata(self._token()),
                    timeout=CALL_S,
                )
            except grpc.aio.AioRpcError as error:
                raise _explained(from_rpc(error), self._common) from None
        await self._take(fresh)

    async def _refresh(self) -> None:
        async with open_aio_channel(self._common.cluster) as channel:
            stub = cluster_pb2_grpc.ClusterStub(channel)
            while True:
                await asyncio.sleep(REFRESH_S)
                try:
                    fresh = await stub.GetMap(
                        cluster_pb2.GetMapRequest(known_epoch=self.map.epoch),
                        metadata=token_metadata(self._token()),
                        timeout=CALL_S,
                    )
                except grpc.aio.AioRpcError as error:
                    self._world.log.debug("no fresh map", error=str(from_rpc(error)))
                    continue
                await self._take(fresh)

    async def _take(self, fresh: cluster_pb2.ClusterMap) -> None:
        if fresh.cluster_id != self._cluster_id:
            raise FsError(
                Code.WRONG_IDENTITY,
                f"{self._common.state_dir}: clusterd at {', '.join(self._common.cluster)} serves "
                f"cluster {fresh.cluster_id}, this daemon's data belongs to {self._cluster_id}. "
                "Nothing was changed: correct `cluster` or `state_dir` in its configuration",
            )
        if self._map is None or fresh.epoch > self._map.epoch:
            async with self._news:
                self._map = fresh
                self._news.notify_all()

    def _token(self) -> bytes:
        name = f"node {self._common.node_id}"
        return daemon_token(self._world.authority, self._world.clock.now_ns(), name)


def _explained(error: FsError, common: CommonConfig) -> FsError:
    if error.code is Code.UNAUTHENTICATED:
        # The clusterd there has another key: waiting does not help.
        where = ", ".join(common.cluster)
        return FsError(
            Code.WRONG_IDENTITY, f"clusterd at {where} does not know our key ({common.key_file})"
        )
    if error.code is Code.UNAVAILABLE:
        where = ", ".join(common.cluster)
        return FsError(error.code, f"no clusterd answers at {where}: {error.detail}")
    return error
