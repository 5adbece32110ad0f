"""What the pool says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.v1 import kvcache_pb2 as pb

if TYPE_CHECKING:
    from superfs.data.kvcache.pool import Pool


def stats(pool: Pool, number: int) -> pb.KvStats:
    """Of one namespace, or with 0 of all."""
    spaces = [pool.space(number)] if number else list(pool.spaces.values())
    shelves = [space.shelf for space in spaces if space.shelf is not None]
    tier = pool.tier
    found = pb.KvStats(
        capacity_bytes=spaces[0].made.quota_bytes if number else pool.capacity_bytes,
        used_bytes=sum(s.table.used for s in spaces),
        blocks=sum(len(s.table) for s in spaces),
        pending=sum(1 for put in pool.puts.values() if put.space in spaces),
        leases=sum(1 for lease in pool.leases.values() if lease.space in spaces),
        pinned_bytes=sum(s.pinned_bytes for s in spaces),
        evicted=sum(s.evicted for s in spaces),
        asked_blocks=sum(s.asked for s in spaces),
        found_blocks=sum(s.found for s in spaces),
        dropped=sum(s.dropped for s in spaces),
        damaged=pool.damaged,
        promoted=sum(s.promoted for s in spaces),
    )
    if tier is not None:
        found.disk_capacity_bytes = tier.config.disk_bytes
        if number:
            found.disk_capacity_bytes = sum(shelf.table.capacity for shelf in shelves)
        found.disk_used_bytes = sum(shelf.table.used for shelf in shelves)
        found.disk_blocks = sum(len(shelf.table) for shelf in shelves)
        found.disk_evicted = sum(shelf.evicted for shelf in shelves)
        found.unwritten, found.waiting = tier.unwritten, len(tier.dirty)
        found.disk_damaged = tier.damaged
    return found
