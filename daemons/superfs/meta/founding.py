"""The first transaction of a store: an empty file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.ids import SLOT_SHIFT
from superfs.core.namespace.make_root import make_root
from superfs.meta.environment import make_store
from superfs.meta.store import LmdbTxn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.daemon.statedir import Identity
    from superfs.daemon.world import World
    from superfs.meta.config import MetadConfig
    from superfs.meta.table import Records


def make_empty(config: MetadConfig, identity: Identity, world: World) -> None:
    """An empty file system. The root belongs to the daemon of its slot; here that is the one."""

    def populate(rows: Records) -> None:
        txn = LmdbTxn(rows, Founding(world), writable=True, room_bytes=1 << 40)
        make_root(txn)
        txn.finish()

    make_store(config.daemon.state_dir, identity, config.meta.map_initial_bytes, populate)


class Founding:
    """What the first transaction of a store asks: there is nobody else yet."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ns(self) -> int:
        return self._world.clock.now_ns()

    def owns(self, slot: int) -> bool:
        return slot < 1 << (64 - SLOT_SHIFT)

    def available_chains(self) -> Sequence[int]:
        return ()

    def chains_per_file(self) -> int:
        return 1

    def open_sessions(self, ino: int, place: int, txn: LmdbTxn) -> Iterable[int]:
        return ()
