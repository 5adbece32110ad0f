"""superfs-datad: wires the store, its tasks and the service to the daemon base."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from superfs.daemon.app import run_daemon
from superfs.daemon.membership import Membership, fetch_map
from superfs.data import recovery
from superfs.data.config import DatadConfig
from superfs.data.daemon import DataDaemon
from superfs.rpc.memory import keep_large_buffers
from superfs.v1 import cluster_pb2

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from superfs.daemon.world import World

SWITCH_INTERVAL_S = 0.001
"""How long a thread may keep the interpreter from the event loop (Python's default: 5 ms)."""


class Datad(DataDaemon):
    """A data daemon that is a member of a cluster."""

    async def start(self, group: asyncio.TaskGroup) -> None:
        await super().start(group)
        membership = Membership(
            self.config.daemon,
            cluster_pb2.ROLE_DATA,
            self.world,
            cluster_id=self.store.identity.cluster,
        )
        await membership.join(group)


def format_store(config: DatadConfig, world: World) -> None:
    cluster_id = fetch_map(config.daemon, world).cluster_id
    common = config.daemon
    recovery.format_store(common.state_dir, cluster_id, common.node_id, config.store, world)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_large_buffers()
    run_daemon(recovery.ROLE, DatadConfig, Datad, argv, format=format_store)


if __name__ == "__main__":
    main()
