"""What the cluster map means to this daemon: which slots are its own, which chains take data, and
where the data daemons are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.ids import SLOTS
from superfs.v1 import cluster_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Layout:
    """One cluster map, looked at from one metadata daemon. Immutable: both threads read it."""

    epoch: int
    owned: bytes  # one byte a slot, 1: ours
    chains: tuple[int, ...]
    nodes_of: dict[int, tuple[int, ...]]  # chain -> data daemons, head first
    addresses: dict[int, tuple[str, ...]]  # data daemon -> where it listens

    @classmethod
    def of(cls, found: cluster_pb2.ClusterMap, node_id: int) -> Layout:
        owned = bytearray(SLOTS)
        for r in found.slots:
            if r.node_id == node_id and r.first <= r.last < SLOTS:
                owned[r.first : r.last + 1] = b"\1" * (r.last + 1 - r.first)
        addresses = {
            n.node_id: tuple(n.addresses) for n in found.nodes if n.role == cluster_pb2.ROLE_DATA
        }
        nodes_of = {c.chain_id: tuple(c.node_ids) for c in found.chains if c.node_ids}
        return cls(found.epoch, bytes(owned), tuple(sorted(nodes_of)), nodes_of, addresses)

    @classmethod
    def alone(cls, chains: Iterable[int] = ()) -> Layout:
        """Every slot, and chains without daemons: for tests and benchmarks without a cluster."""
        return cls(0, b"\1" * SLOTS, tuple(chains), {}, {})
