"""The cluster map as a client keeps it: slot -> metad, chain -> datad, node -> addresses."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.ids import slot_of

if TYPE_CHECKING:
    from superfs.v1 import cluster_pb2


class ClusterMap:
    def __init__(self, message: cluster_pb2.ClusterMap) -> None:
        self.cluster_id: str = message.cluster_id
        self.epoch: int = message.epoch
        self.nodes = {node.node_id: node for node in message.nodes}
        ranges = sorted((r.first, r.last, r.node_id) for r in message.slots)
        self._firsts = [first for first, _, _ in ranges]
        self._ranges = ranges
        self._chains = {chain.chain_id: tuple(chain.node_ids) for chain in message.chains}

    @property
    def chain_ids(self) -> tuple[int, ...]:
        return tuple(sorted(self._chains))

    def chains_on(self, host_id: str) -> list[int]:
        """Those whose head is on that host."""
        heads = {chain: self.nodes.get(nodes[0]) for chain, nodes in self._chains.items() if nodes}
        return [chain for chain, node in heads.items() if node and node.host_id == host_id]

    @property
    def metads(self) -> int:
        """How many metadata daemons share the slots."""
        return len({node_id for _, _, node_id in self._ranges})

    def meta_node(self, ino: int) -> int:
        """The metadata daemon of an id's slot."""
        slot = slot_of(ino)
        index = bisect_right(self._firsts, slot) - 1
        if index >= 0:
            _, last, node_id = self._ranges[index]
            if slot <= last:
                return node_id
        raise FsError(Code.UNAVAILABLE, f"no metadata daemon owns slot {slot} yet")

    def data_node(self, chain_id: int) -> int:
        """The head of a chain."""
        nodes = self._chains.get(chain_id)
        if not nodes:
            raise FsError(Code.UNAVAILABLE, f"no data daemon holds chain {chain_id} yet")
        return nodes[0]

    def addresses(self, node_id: int) -> tuple[str, ...]:
        node = self.nodes.get(node_id)
        if node is None:
            raise FsError(Code.UNAVAILABLE, f"node {node_id} is not in the cluster map")
        return tuple(node.addresses)
