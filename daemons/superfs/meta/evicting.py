"""What leaves a bounded cache directory, in the transaction in which there is too much in it.

A file goes as if the owner of the cache had removed it: by the rule, with its checks, to the same
end for those who have it open, and everybody is told who knew of it. Passed over are files that
somebody writes to, those in directories that a client holds exclusively at present (who is asked to
ship, caches.py), and those that the owner may not remove.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from superfs.core.errors import FsError
from superfs.core.namespace.txn import Caller, Ref
from superfs.core.namespace.unlink import unlink
from superfs.meta import keys
from superfs.meta.cacheindex import S3_FIFO

if TYPE_CHECKING:
    from collections.abc import Collection

    from superfs.meta.cachetxn import CachingTxn
    from superfs.meta.keys import Order

STEPS_MAX = 2048
"""Files looked at in one transaction: others wait for the writer meanwhile."""
SECOND_NS = 10**9


def make_room(txn: CachingTxn, roots: Collection[int]) -> None:
    """In caches that have too much, or something that was not used for too long."""
    steps = STEPS_MAX
    for root in list(roots):
        steps = _Evicting(txn, root, steps).run()


class _Evicting:
    def __init__(self, txn: CachingTxn, root: int, steps: int) -> None:
        self._txn = txn
        self._root = root
        self._steps = steps

    def run(self) -> int:
        """Steps that are left."""
        txn = self._txn
        cache = txn.get_cache(self._root)
        if cache is None or not cache.bytes_max:
            return self._steps
        if cache.ttl_s:
            self._expire(max(0, txn.now_ns - cache.ttl_s * SECOND_NS))
        after: dict[Order, bytes] = {}
        while self._steps and cache.bytes > cache.bytes_max:
            key = txn.index.victim(self._root, after)
            if key is None:
                break
            self._steps -= 1
            if not (txn.index.second_chance(key) or self._goes(key)):
                after[keys.parse_rank(key)[1]] = key
        if not self._steps and txn.evicted:
            txn.left.again.add(self._root)
        return self._steps

    def _expire(self, before_ns: int) -> None:
        after = b""
        while self._steps:
            key = self._txn.index.expired(self._root, before_ns, after)
            if key is None:
                return
            self._steps -= 1
            if not self._goes(key):
                after = key

    def _goes(self, key: bytes) -> bool:
        txn, ino = self._txn, keys.parse_rank(key)[3]
        place = txn.index.place_of(key)
        if txn.is_held(place):
            txn.left.recall.add(place)
            return False
        if txn.is_written(ino):
            return False
        cache, file = txn.changed_cache(self._root), txn.index.get(place, ino)
        assert file is not None, key
        caller = Caller(cache.uid, cache.gid, frozenset((cache.gid,)), trusted=False)
        txn.next_operation()
        try:
            with txn.all_or_nothing():
                unlink(txn, caller, Ref(place, 0), file.name)
        except FsError:
            return False  # it may not go, or cannot be read: that is found where it is asked for
        txn.settle()
        cache.evicted_files += 1
        cache.evicted_bytes += file.size
        if cache.policy == S3_FIFO and not file.main:
            txn.after_commit.append(partial(txn.ghosts.add, self._root, place, file.name))
        txn.evicted.append(file.size)
        return True
