"""superfs-metad: wires the node and the service to the daemon base."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from superfs.daemon.app import run_daemon
from superfs.daemon.membership import Membership, fetch_map
from superfs.daemon.statedir import Identity, read_identity, write_identity
from superfs.meta.chains import Layout
from superfs.meta.config import MetadConfig
from superfs.meta.environment import ROLE
from superfs.meta.node import MetaNode, make_empty
from superfs.meta.records import FORMAT_VERSION
from superfs.meta.service import MetaService
from superfs.v1 import cluster_pb2, meta_pb2_grpc

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from superfs.daemon.world import World
    from superfs.rpc.server import GrpcServer


class Metad:
    def __init__(self, config: MetadConfig, world: World) -> None:
        self._config = config
        self._world = world
        self._node: MetaNode | None = None

    async def start(self, group: asyncio.TaskGroup) -> None:
        common = self._config.daemon
        identity = read_identity(
            common.state_dir, role=ROLE, node_id=common.node_id, format_version=FORMAT_VERSION
        )
        self._node = node = MetaNode(self._config, identity, self._world)
        await node.open()
        membership = Membership(
            common, cluster_pb2.ROLE_META, self._world, cluster_id=identity.cluster_id
        )
        await membership.join(group)
        node.set_layout(Layout.of(membership.map, common.node_id))
        node.start(group)
        group.create_task(self._follow(membership, node), name="cluster map")

    async def _follow(self, membership: Membership, node: MetaNode) -> None:
        while True:
            fresh = await membership.changed(node.layout.epoch)
            node.set_layout(Layout.of(fresh, self._config.daemon.node_id))

    def register(self, server: GrpcServer) -> None:
        assert self._node is not None
        service = MetaService(self._node, self._config.daemon.state_dir)
        meta_pb2_grpc.add_MetaServicer_to_server(service, server.grpc)

    async def stop(self) -> None:
        assert self._node is not None
        await self._node.stop()


def format_store(config: MetadConfig, world: World) -> None:
    """An empty file system, of the cluster that clusterd says it is."""
    common = config.daemon
    cluster_id = fetch_map(common, world).cluster_id
    identity = Identity(cluster_id, ROLE, common.node_id, FORMAT_VERSION)
    make_empty(config, identity, world)
    write_identity(common.state_dir, identity)
    world.log.info("formatted", cluster_id=cluster_id, state_dir=str(common.state_dir))


def main(argv: Sequence[str] | None = None) -> NoReturn:
    run_daemon(ROLE, MetadConfig, Metad, argv, format=format_store)


if __name__ == "__main__":
    main()
