"""The cluster map on the wire."""

from __future__ import annotations

from superfs.cluster.placement import Map, Node, Role
from superfs.core.errors import Code, FsError
from superfs.v1 import cluster_pb2


def node_from_wire(node: cluster_pb2.Node) -> Node:
    try:
        role = Role(node.role)
    except ValueError:
        raise FsError(Code.INVALID, "a node is a metadata daemon or a data daemon") from None
    return Node(node.node_id, role, tuple(node.addresses), node.host_id)


def map_to_wire(found: Map) -> cluster_pb2.ClusterMap:
    answer = cluster_pb2.ClusterMap(cluster_id=found.cluster_id, epoch=found.epoch)
    for node in found.nodes:
        answer.nodes.add(
            node_id=node.node_id,
            role=cluster_pb2.ROLE_META if node.role is Role.META else cluster_pb2.ROLE_DATA,
            addresses=node.addresses,
            host_id=node.host_id,
        )
    for share in found.slots:
        answer.slots.add(first=share.first, last=share.last, node_id=share.node_id)
    for chain in found.chains:
        answer.chains.add(chain_id=chain.chain_id, node_ids=chain.node_ids)
    return answer
