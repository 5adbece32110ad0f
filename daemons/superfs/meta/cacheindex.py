"""The files of bounded cache directories, in the order in which they would go: records only.

Every regular file with one name in a directory of a cache has a `CacheFile`, and unless it is
temporary one `cacherank` for its last use and one for its policy. All of it is derived from the
namespace and brought up to date in the transaction that changes that (cachetxn.py), so that nothing
is ever looked for: the next to go is the first of a range of keys.

    lru       used: the one whose last use is longest ago
    lfu       uses: the one used least often, then LRU
    s3-fifo   small, main: what is new enters the small queue (a tenth of the room), what the ghost
              remembers the main one. Who comes up unused goes; who was used moves to the main
              queue, or there to its end with one use less. (As core/kvcache/s3fifo.py.)

A use is a read that a mount has told of. What was written, renamed or changed counts as fresh, too.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from superfs.core.attrs import Attr, unpack_attr
from superfs.core.cachedirs import POLICIES, is_temporary
from superfs.meta import keys, records
from superfs.meta.keys import Order, Table
from superfs.meta.records import Cache, CacheFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.meta.table import Records

LRU, LFU, S3_FIFO = range(len(POLICIES))
USES_MAX = (1 << 32) - 1
HEAT_MAX = 3
GHOSTS_MAX = 1 << 18
_PRESENT = {LRU: (), LFU: (Order.USES,), S3_FIFO: (Order.SMALL, Order.MAIN)}


class Ghosts:
    """Names that have left a small queue, of all caches. Of the writer's thread; a restart forgets
    them."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, None] = OrderedDict()

    def add(self, root: int, place: int, name: bytes) -> None:
        self._seen[_ghost(root, place, name)] = None
        if len(self._seen) > GHOSTS_MAX:
            self._seen.popitem(last=False)

    def __contains__(self, file: tuple[int, int, bytes]) -> bool:
        return _ghost(*file) in self._seen


def _ghost(root: int, place: int, name: bytes) -> int:
    return xxh3_64_intdigest(keys.pack_inode(root, place) + name)


def used_ns(attr: Attr, now_ns: int) -> int:
    """No clock of a client makes a file stay for ever."""
    return max(0, min(max(attr.atime_ns, attr.ctime_ns), now_ns))


class CacheIndex:
    """`cache`: the record of a root, decoded while the transaction lasts, which this changes."""

    def __init__(self, rows: Records, cache: Callable[[int], Cache], ghosts: Ghosts) -> None:
        self._rows = rows
        self._cache = cache
        self._ghosts = ghosts

    def get(self, place: int, ino: int) -> CacheFile | None:
        record = self._rows.get(Table.CACHEFILE, keys.pack_inode(place, ino))
        return None if record is None else records.unpack_cache_file(record)

    def settle(self, root: int | None, place: int, ino: int, name: bytes | None, now: int) -> None:
        """Makes the index say of (place, ino) what the namespace says. `name`: where it is known
        better than here."""
        old = self.get(place, ino)
        attr = self._file(place, ino) if root is not None else None
        name = name or (old.name if old is not None else None)
        if root is None or attr is None or name is None:
            if old is not None:
                self._drop(old, place, ino)
            return
        if old is None:
            self._put(self._new(root, place, name, attr, now), place, ino)
            return
        changed = self._changed(old, root, name, attr, now)
        if changed != old:
            self._drop(old, place, ino)
            self._put(changed, place, ino)

    def _file(self, place: int, ino: int) -> Attr | None:
        record = self._rows.get(Table.INODE, keys.pack_inode(place, ino))
        attr = None if record is None else unpack_attr(record)
        return attr if attr is not None and attr.is_regular else None

    def _new(self, root: int, place: int, name: bytes, attr: Attr, now: int) -> CacheFile:
        cache = self._cache(root)
        main = cache.policy == S3_FIFO and (root, place, name) in self._ghosts
        return CacheFile(
            root, name, attr.size, used_ns(attr, now), 0, cache.policy, is_temporary(name),
            self._next(cache), main,
        )  # fmt: skip

    def _changed(self, old: CacheFile, root: int, name: bytes, attr: Attr, now: int) -> CacheFile:
        cache = self._cache(root)
        used = used_ns(attr, now)
        read = min(attr.atime_ns, now) > old.used_ns
        queue = old.queue
        if (old.root, old.policy) != (root, cache.policy) or old.temporary != is_temporary(name):
            queue = self._next(cache)  # it is new there
        return replace(
            old, root=root, name=name, size=attr.size, used_ns=max(used, old.used_ns),
            uses=min(old.uses + read, USES_MAX), policy=cache.policy,
            temporary=is_temporary(name), queue=queue,
            main=old.main and cache.policy == S3_FIFO,
        )  # fmt: skip

    def _next(self, cache: Cache) -> int:
        cache.next += 1
        return cache.next - 1

    # ---- one file's records

    def _put(self, file: CacheFile, place: int, ino: int) -> None:
        self._rows.put(Table.CACHEFILE, keys.pack_inode(place, ino), records.pack_cache_file(file))
        cache = self._cache(file.root)
        cache.bytes += file.size
        cache.files += 1
        if _in_small(file):
            cache.small_bytes += file.size
        for order, rank in ranks(file):
            key = keys.pack_rank(file.root, order, rank, ino)
            self._rows.put(Table.CACHERANK, key, records.pack_id(place))

    def _drop(self, file: CacheFile, place: int, ino: int) -> None:
        self._rows.delete(Table.CACHEFILE, keys.pack_inode(place, ino))
        cache = self._cache(file.root)
        cache.bytes -= file.size
        cache.files -= 1
        assert cache.bytes >= 0, file
        if _in_small(file):
            cache.small_bytes -= file.size
        for order, rank in ranks(file):
            self._rows.delete(Table.CACHERANK, keys.pack_rank(file.root, order, rank, ino))

    # ---- who goes

    def oldest(self, root: int) -> int | None:
        """When the one that was used longest ago was."""
        for key in self._keys(root, Order.USED, b""):
            return keys.parse_rank(key)[2][0]
        return None

    def expired(self, root: int, before_ns: int, after: bytes) -> bytes | None:
        """The key of the first behind `after` that was not used since."""
        for key in self._keys(root, Order.USED, after):
            return key if keys.parse_rank(key)[2][0] < before_ns else None
        return None

    def victim(self, root: int, after: dict[Order, bytes]) -> bytes | None:
        """The key of the next that goes; behind `after`, of whom were passed over. None: nobody."""
        cache = self._cache(root)
        if cache.policy == S3_FIFO:
            small_first = cache.small_bytes * 10 >= cache.bytes_max
            queues: tuple[Order, ...] = (Order.SMALL, Order.MAIN)
            queues = queues if small_first else queues[::-1]
        else:
            queues = _PRESENT[cache.policy]
        # In the end by last use: a change of policy may be under way.
        for order in (*queues, Order.USED):
            for key in self._keys(root, order, after.get(order, b"")):
                return key
        return None

    def second_chance(self, key: bytes) -> bool:
        """Whether the one that came up in a queue of S3-FIFO was used, and so goes on."""
        root, order, _, ino = keys.parse_rank(key)
        if order not in (Order.SMALL, Order.MAIN):
            return False
        place = self.place_of(key)
        file = self.get(place, ino)
        assert file is not None, key
        if not file.uses:
            return False
        heat = 0 if order is Order.SMALL else min(file.uses, HEAT_MAX) - 1
        self._drop(file, place, ino)
        moved = replace(file, uses=heat, main=True, queue=self._next(self._cache(root)))
        self._put(moved, place, ino)
        return True

    def place_of(self, key: bytes) -> int:
        record = self._rows.get(Table.CACHERANK, key)
        assert record is not None, key
        return records.unpack_id(record)

    def _keys(self, root: int, order: Order, after: bytes) -> Iterator[bytes]:
        prefix = keys.pack_ranks(root, order)
        start = after + b"\0" if after else prefix
        return self._rows.keys(Table.CACHERANK, start, prefix)


def _in_small(file: CacheFile) -> bool:
    return file.policy == S3_FIFO and not file.main and not file.temporary


def ranks(file: CacheFile) -> list[tuple[Order, tuple[int, int]]]:
    if file.temporary:
        return []
    found = [(Order.USED, (file.used_ns, 0))]
    if file.policy == LFU:
        found.append((Order.USES, (file.uses, file.used_ns)))
    elif file.policy == S3_FIFO:
        found.append((Order.MAIN if file.main else Order.SMALL, (file.queue, 0)))
    return found
