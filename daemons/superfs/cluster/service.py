"""The Cluster service: decode, ask the rules, encode."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from superfs.cluster.codec import map_to_wire, node_from_wire
from superfs.cluster.placement import register
from superfs.core.errors import Code, FsError
from superfs.rpc.server import grant_of
from superfs.v1 import cluster_pb2, cluster_pb2_grpc

if TYPE_CHECKING:
    from superfs.cluster.admission import Admission, Peer
    from superfs.cluster.placement import Map
    from superfs.cluster.store import MapStore
    from superfs.daemon.world import World


class ClusterService(cluster_pb2_grpc.ClusterServicer):
    def __init__(self, store: MapStore, admission: Admission, world: World) -> None:
        self._store = store
        self._admission = admission
        self._world = world
        self._map = store.load()
        self._changing = asyncio.Lock()
        self._saving: asyncio.Task[None] | None = None

    async def Handshake(
        self,
        request: cluster_pb2.HandshakeRequest,
        context: Any,  # noqa: ANN401
    ) -> cluster_pb2.HandshakeReply:
        if context.peer().startswith("unix:"):
            raise FsError(Code.FORBIDDEN, "on this host the handshake goes over handshake.sock")
        return self.handshake(request, None)

    async def GetMap(
        self,
        request: cluster_pb2.GetMapRequest,
        context: Any,  # noqa: ANN401
    ) -> cluster_pb2.ClusterMap:
        if request.known_epoch >= self._map.epoch:
            return cluster_pb2.ClusterMap(cluster_id=self._map.cluster_id, epoch=self._map.epoch)
        return map_to_wire(self._map)

    async def Register(
        self,
        request: cluster_pb2.RegisterRequest,
        context: Any,  # noqa: ANN401
    ) -> cluster_pb2.ClusterMap:
        if grant_of(context).kind != "daemon":
            raise FsError(Code.FORBIDDEN, "only daemons register")
        node = node_from_wire(request.node)
        async with self._changing:
            new = register(self._map, node)
            if new != self._map:
                await self._save(new)
                self._world.log.info(
                    "registered",
                    node_id=node.node_id,
                    role=node.role.name.lower(),
                    addresses=list(node.addresses),
                    epoch=new.epoch,
                )
            return map_to_wire(new)

    def handshake(
        self, request: cluster_pb2.HandshakeRequest, peer: Peer | None
    ) -> cluster_pb2.HandshakeReply:
        """Of either way in; `peer` only where the kernel named one."""
        admitted = self._admission.admit(
            request.token,
            self._world.clock.now_ns(),
            peer=peer,
            session_id=request.session_id,
            session_token=request.session_token,
        )
        self._world.log.info(
            "admitted",
            kind=admitted.grant.kind,
            name=admitted.grant.name,
            session_id=f"{admitted.grant.session_id:016x}",
            uid=peer.uid if peer else None,
        )
        return cluster_pb2.HandshakeReply(
            session_token=admitted.token,
            session_id=admitted.grant.session_id,
            expires_ns=admitted.grant.expires_ns,
            map=map_to_wire(self._map),
        )

    async def finish(self) -> None:
        """Waits for a write that its caller did not wait for."""
        if self._saving is not None:
            await asyncio.wait({self._saving})

    async def _save(self, new: Map) -> None:
        self._saving = asyncio.create_task(asyncio.to_thread(self._store.save, new))
        try:
            await asyncio.shield(self._saving)
        except (FsError, OSError) as error:
            if isinstance(error, FsError) and error.code is Code.NO_SPACE:
                raise
            self._world.fatal(f"the cluster map could not be written: {error}")
        self._map = new
