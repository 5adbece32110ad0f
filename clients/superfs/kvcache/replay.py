"""A trace replayed on a real pool: what `simulate` says, as it happens.

Each number of the trace becomes one small block; the namespace has room for so many of them in the
memory of each data daemon, and none on disk. Whatever is read is compared with what was stored. The
namespace is dropped at the end.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.keys import Fingerprint, KeyChain
from superfs.kvcache.simulate import Rates
from superfs.kvcache.store import KVStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.client import ClientConfig
    from superfs.kvcache.trace import Request

BLOCK_BYTES = 64


def replay(
    config: ClientConfig,
    trace: Sequence[Request],
    policy: str,
    capacity_blocks: int,
    advance: Callable[[int], None] | None = None,
) -> Rates:
    salt = secrets.token_bytes(8)
    chain = KeyChain(Fingerprint("replay", "none", 1, 1, 1, block_tokens=1), salt)
    with KVStore.open(config, f"probe-{salt.hex()}", chain, disk_bytes=0) as probe:
        quota_bytes = capacity_blocks * probe.granule_bytes
        room = min(stats.capacity_bytes for stats in probe.stats())
        probe.drop()
    if quota_bytes > room:
        blocks = room * capacity_blocks // quota_bytes
        raise FsError(Code.INVALID, f"the pool has room for {blocks} blocks only")
    rates = Rates(policy, "pool", capacity_blocks)
    name = f"replay-{salt.hex()}"
    with KVStore.open(
        config, name, chain, quota_bytes=quota_bytes, policy=policy, disk_bytes=0
    ) as store:
        try:
            for request in trace:
                _request(store, chain, request, rates)
                if advance is not None:
                    advance(1)
        finally:
            store.drop()
    return rates


def _request(store: KVStore, chain: KeyChain, request: Request, rates: Rates) -> None:
    keys = chain.keys(request.blocks)
    contents = [key * (BLOCK_BYTES // len(key)) for key in keys]
    found = store.get(keys)
    if found != contents[: len(found)]:
        raise FsError(Code.DAMAGED, "the pool gave other bytes than were stored")
    rates.count(request, len(found), len(found))
    store.put(keys, contents[len(found) :], first=len(found))
