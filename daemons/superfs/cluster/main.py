"""superfs-clusterd: wires the store, the service and the handshake socket to the daemon base."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import TYPE_CHECKING, NoReturn

from superfs.cluster import store
from superfs.cluster.admission import Admission
from superfs.cluster.config import ClusterdConfig
from superfs.cluster.handshake import HandshakeSocket
from superfs.cluster.issue import IssueToken
from superfs.cluster.service import ClusterService
from superfs.daemon.app import run_daemon
from superfs.daemon.statedir import Identity, read_identity, write_identity
from superfs.rpc.handshake import socket_path
from superfs.v1 import cluster_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from superfs.daemon.world import World
    from superfs.rpc.server import GrpcServer

ROLE = "clusterd"


class Clusterd:
    def __init__(self, config: ClusterdConfig, world: World) -> None:
        self._config = config
        self._world = world
        self._store: store.LmdbStore | None = None
        self._service: ClusterService | None = None

    async def start(self, group: asyncio.TaskGroup) -> None:
        common, world = self._config.daemon, self._world
        identity = read_identity(
            common.state_dir, role=ROLE, node_id=common.node_id, format_version=store.FORMAT
        )
        self._store = await asyncio.to_thread(
            store.LmdbStore, common.state_dir, identity, world.failpoints
        )
        admission = Admission(
            world.authority, world.rng, self._config.handshake.session_token_s, os.geteuid()
        )
        self._service = ClusterService(self._store, admission, world)
        for address in common.listen:
            if address.startswith("unix:"):
                await self._open_handshake(socket_path(address), group)
                break

    def register(self, server: GrpcServer) -> None:
        assert self._service is not None
        cluster_pb2_grpc.add_ClusterServicer_to_server(self._service, server.grpc)

    async def stop(self) -> None:
        assert self._service is not None
        assert self._store is not None
        await self._service.finish()
        self._store.close()

    async def _open_handshake(self, path: Path, group: asyncio.TaskGroup) -> None:
        assert self._service is not None
        started = asyncio.Event()
        handshakes = HandshakeSocket(path, self._service.handshake, self._world)
        group.create_task(handshakes.serve(started), name="handshake")
        await started.wait()


def format_store(config: ClusterdConfig, world: World) -> None:
    """A new cluster: an id of its own and an empty map."""
    common = config.daemon
    identity = Identity(uuid.uuid4().hex, ROLE, common.node_id, store.FORMAT)
    store.create(common.state_dir, identity)
    write_identity(common.state_dir, identity)
    world.log.info("formatted", cluster_id=identity.cluster_id, state_dir=str(common.state_dir))


def main(argv: Sequence[str] | None = None) -> NoReturn:
    run_daemon(
        ROLE,
        ClusterdConfig,
        Clusterd,
        argv,
        format=format_store,
        command=IssueToken(),
        makes_key=True,
    )


if __name__ == "__main__":
    main()
