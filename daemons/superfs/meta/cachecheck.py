"""Whether the indexes of bounded cache directories say what the namespace says. Part of fsck.

While a directory that came to a cache or left it is still walked, its files may be here or there:
then only what is in the index is compared.
"""

from __future__ import annotations

import stat
from collections import Counter
from typing import TYPE_CHECKING

from superfs.core.attrs import Flag, unpack_attr
from superfs.core.cachedirs import CACHE_XATTR, is_temporary
from superfs.core.namespace.check import Finding
from superfs.meta import keys, records
from superfs.meta.cacheindex import ranks
from superfs.meta.keys import Order, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.meta.records import Cache, CacheFile
    from superfs.meta.table import Records


def check_caches(rows: Records) -> Iterator[Finding]:
    counts = rows.state.counts
    if not any(counts[t] for t in (Table.CACHE, Table.CACHED, Table.CACHEFILE, Table.CACHERANK)):
        return
    check = _Check(rows)
    yield from check.directories()
    yield from check.files()
    yield from check.sums()
    if not counts[Table.CACHEWALK]:
        yield from check.all_there()


class _Check:
    def __init__(self, rows: Records) -> None:
        self._rows = rows
        self._caches: dict[int, Cache] = {
            keys.parse_id(key): records.unpack_cache(record)
            for key, record in rows.scan(Table.CACHE, b"")
        }
        self._roots = {
            keys.parse_id(key): records.unpack_id(record)
            for key, record in rows.scan(Table.CACHED, b"")
        }
        self._bytes: Counter[int] = Counter()
        self._small: Counter[int] = Counter()
        self._files: Counter[int] = Counter()

    def directories(self) -> Iterator[Finding]:
        for ino, root in self._roots.items():
            record = self._rows.get(Table.DIRECTORY, keys.pack_id(ino))
            if record is None:
                yield Finding("cached-without-directory", f"inode {ino:#x}")
                continue
            if root not in self._caches:
                yield Finding("cached-without-cache", f"inode {ino:#x}", f"root {root:#x}")
            if not records.unpack_directory(record).attr.flags & Flag.CACHED:
                yield Finding("cached-not-marked", f"inode {ino:#x}")
        for root, cache in self._caches.items():
            settings = self._rows.get(Table.XATTR, keys.pack_xattr(root, root, CACHE_XATTR))
            if bool(cache.bytes_max) != (settings is not None):
                yield Finding("cache-not-as-set", f"inode {root:#x}", f"{settings!r}")

    def files(self) -> Iterator[Finding]:
        wanted = 0
        for key, record in self._rows.scan(Table.CACHEFILE, b""):
            place, ino = keys.parse_inode(key)
            file = records.unpack_cache_file(record)
            self._count(file)
            yield from self._file(place, ino, file)
            for order, rank in ranks(file):
                wanted += 1
                place_of = self._rows.get(
                    Table.CACHERANK, keys.pack_rank(file.root, order, rank, ino)
                )
                if place_of is None or records.unpack_id(place_of) != place:
                    yield Finding("cachefile-without-rank", f"inode {ino:#x}", order.name.lower())
        if wanted != self._rows.state.counts[Table.CACHERANK]:
            yield Finding("cacherank-without-file", "cacherank", f"{wanted} files ask for ranks")

    def _count(self, file: CacheFile) -> None:
        self._files[file.root] += 1
        self._bytes[file.root] += file.size
        if any(order is Order.SMALL for order, _ in ranks(file)):
            self._small[file.root] += file.size

    def _file(self, place: int, ino: int, file: CacheFile) -> Iterator[Finding]:
        name = f"inode {ino:#x}"
        record = self._rows.get(Table.INODE, keys.pack_inode(place, ino))
        if record is None:
            yield Finding("cachefile-without-inode", name, f"under {place:#x}")
            return
        attr = unpack_attr(record)
        dentry = self._rows.get(Table.DENTRY, keys.pack_dentry(place, file.name))
        if dentry is None or records.unpack_dentry(dentry).ino != ino:
            yield Finding("cachefile-wrong-name", name, repr(file.name))
        if attr.size != file.size:
            yield Finding("cachefile-wrong-size", name, f"{file.size}, not {attr.size}")
        if file.temporary != is_temporary(file.name):
            yield Finding("cachefile-wrong-rank", name, repr(file.name))

    def sums(self) -> Iterator[Finding]:
        for root, cache in self._caches.items():
            found = (self._bytes[root], self._files[root], self._small[root])
            if found != (cache.bytes, cache.files, cache.small_bytes):
                yield Finding("cache-wrong-sum", f"inode {root:#x}", f"{cache}: is {found}")

    def all_there(self) -> Iterator[Finding]:
        """Nothing is missing, and nothing is in a cache that it does not belong to."""
        for key, record in self._rows.scan(Table.DIRECTORY, b""):
            ino, directory = keys.parse_id(key), records.unpack_directory(record)
            root = self._roots.get(ino)
            if bool(directory.attr.flags & Flag.CACHED) != (root is not None):
                yield Finding("cached-not-marked", f"inode {ino:#x}")
            if ino != directory.parent and root not in (ino, self._roots.get(directory.parent)):
                yield Finding("cached-not-as-parent", f"inode {ino:#x}")
            if root is not None:
                yield from self._directory(ino, root)
        for key, record in self._rows.scan(Table.CACHEFILE, b""):
            place, ino = keys.parse_inode(key)
            if self._roots.get(place) != records.unpack_cache_file(record).root:
                yield Finding("cachefile-of-another", f"inode {ino:#x}", f"under {place:#x}")

    def _directory(self, ino: int, root: int) -> Iterator[Finding]:
        prefix = keys.pack_id(ino)
        for key, record in self._rows.scan(Table.INODE, prefix, prefix):
            if not stat.S_ISREG(unpack_attr(record).mode) or key == prefix + prefix:
                continue
            if self._rows.get(Table.CACHEFILE, key) is None:
                file = keys.parse_inode(key)[1]
                yield Finding("file-not-in-cache", f"inode {file:#x}", f"root {root:#x}")
