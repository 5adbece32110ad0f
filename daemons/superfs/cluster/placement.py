"""The cluster map and its rules: pure functions, no IO.

* A node is one daemon; its number is its for ever, and so is its role.
* The first metadata daemon owns all slots. A second one is refused in this version.
* Every data daemon is the one node of one chain. Chain numbers are never reused.
* The epoch grows by one with every change, and with nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from superfs.core.errors import Code, FsError
from superfs.core.ids import SLOTS

NODES_MAX = 1024
NODE_ID_MAX = (1 << 16) - 1
ADDRESSES_PER_NODE_MAX = 8
ADDRESS_BYTES_MAX = 255
HOST_ID_BYTES_MAX = 64


class Role(IntEnum):
    """As in cluster.proto."""

    META = 1
    DATA = 2


@dataclass(frozen=True, slots=True)
class Node:
    node_id: int
    role: Role
    addresses: tuple[str, ...]
    host_id: str = ""

    def __post_init__(self) -> None:
        """FsError INVALID: a node is what a peer says it is."""
        if not 1 <= self.node_id <= NODE_ID_MAX:
            raise FsError(Code.INVALID, f"a node's number is from 1 to {NODE_ID_MAX}")
        if not 1 <= len(self.addresses) <= ADDRESSES_PER_NODE_MAX:
            raise FsError(Code.INVALID, f"a node has 1 to {ADDRESSES_PER_NODE_MAX} addresses")
        for address in self.addresses:
            if not 0 < len(address.encode()) <= ADDRESS_BYTES_MAX or not address.isprintable():
                raise FsError(Code.INVALID, "an address is printable, up to 255 bytes")
        if len(self.host_id.encode()) > HOST_ID_BYTES_MAX or not self.host_id.isprintable():
            raise FsError(Code.INVALID, "a host id is printable, up to 64 bytes")


@dataclass(frozen=True, slots=True)
class SlotRange:
    first: int
    last: int  # inclusive
    node_id: int


@dataclass(frozen=True, slots=True)
class Chain:
    chain_id: int
    node_ids: tuple[int, ...]  # head first


@dataclass(frozen=True, slots=True)
class Map:
    cluster_id: str
    epoch: int = 1
    nodes: tuple[Node, ...] = ()  # each part in the order of its numbers
    slots: tuple[SlotRange, ...] = ()
    chains: tuple[Chain, ...] = ()

    def node(self, node_id: int) -> Node | None:
        return next((n for n in self.nodes if n.node_id == node_id), None)


def register(old: Map, node: Node) -> Map:
    """The map with this node in it. Idempotent: the same node again changes nothing."""
    known = old.node(node.node_id)
    if known == node:
        return old
    if known is not None and known.role != node.role:
        raise FsError(
            Code.WRONG_IDENTITY,
            f"node {node.node_id} is a {known.role.name.lower()} daemon, "
            f"not a {node.role.name.lower()} daemon; give the new one another node_id",
        )
    new = _moved(old, node) if known is not None else _joined(old, node)
    new = replace(new, epoch=old.epoch + 1)
    assert not faults(new), faults(new)
    return new


def _moved(old: Map, node: Node) -> Map:
    """Other addresses, same daemon."""
    nodes = tuple(node if n.node_id == node.node_id else n for n in old.nodes)
    return replace(old, nodes=nodes)


def _joined(old: Map, node: Node) -> Map:
    if len(old.nodes) >= NODES_MAX:
        raise FsError(Code.TOO_LARGE, f"a cluster has at most {NODES_MAX} daemons")
    nodes = tuple(sorted((*old.nodes, node), key=lambda n: n.node_id))
    if node.role is Role.DATA:
        last = old.chains[-1].chain_id if old.chains else 0
        return replace(old, nodes=nodes, chains=(*old.chains, Chain(last + 1, (node.node_id,))))
    if old.slots:
        raise FsError(
            Code.WRONG_IDENTITY,
            f"node {node.node_id} cannot join: this version has one metadata daemon, "
            f"and node {old.slots[0].node_id} is it; stop this one",
        )
    return replace(old, nodes=nodes, slots=(SlotRange(0, SLOTS - 1, node.node_id),))


def faults(found: Map) -> list[str]:
    """What cannot be in a map; empty for every map these rules make."""
    wrong = []
    if not found.cluster_id or found.epoch < 1:
        wrong.append("no cluster id or no epoch")
    roles = {n.node_id: n.role for n in found.nodes}
    if list(roles) != sorted(roles) or len(roles) != len(found.nodes):
        wrong.append("nodes out of order")
    following = 0
    for share in found.slots:
        if share.first != following or share.last < share.first:
            wrong.append(f"slots {share.first} to {share.last} do not follow {following - 1}")
        if roles.get(share.node_id) is not Role.META:
            wrong.append(f"slots of node {share.node_id}, which is no metadata daemon")
        following = share.last + 1
    if found.slots and following != SLOTS:
        wrong.append(f"slots end at {following}, not {SLOTS}")
    chain_ids = [c.chain_id for c in found.chains]
    if chain_ids != sorted(set(chain_ids)):
        wrong.append("chains out of order")
    for chain in found.chains:
        if not chain.node_ids or len(set(chain.node_ids)) != len(chain.node_ids):
            wrong.append(f"chain {chain.chain_id} names a node twice, or none")
        if any(roles.get(node_id) is not Role.DATA for node_id in chain.node_ids):
            wrong.append(f"chain {chain.chain_id} has a node that is no data daemon")
    return wrong
