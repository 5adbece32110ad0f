"""`CachingTxn`: a transaction that keeps the index of bounded cache directories true.

It notes which files and directories were written, and in the end (`settle`) makes the index say
what the namespace says by then. So the order of a rule's writes does not matter, and what was
undone was never there.

To which cache a directory belongs is a record of its own (`cached`), which `mkdir` passes on. A
directory that comes to a cache with what it holds, or leaves it, is walked, in parts, each in a
transaction of its own (`walk`): its record changes first, so what changes in it meanwhile is
already filed where it belongs, and each entry the walk comes to is settled like one that was
written. A directory that is a cache itself stays its own, wherever it lies.
"""

from __future__ import annotations

import contextlib
import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from superfs.core.attrs import Flag
from superfs.core.cachedirs import CACHE_XATTR, POLICIES, parse_settings
from superfs.core.errors import Code, FsError
from superfs.core.limits import CACHES_MAX, PROMISE_BYTES_MAX
from superfs.core.namespace.bits import MULTI
from superfs.meta import keys, records
from superfs.meta.cacheindex import CacheIndex, Ghosts
from superfs.meta.keys import Table
from superfs.meta.records import Cache, Walk
from superfs.meta.store import LmdbTxn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Dentry, Directory

CACHED = int(Flag.CACHED)
WALK_ENTRIES = 512


@dataclass(slots=True)
class Left:
    """What a transaction leaves to be done (caches.py). `recall`: directories that are held
    exclusively, of caches that need the room; `again`: roots that are still over their bound."""

    recall: set[int] = field(default_factory=set)
    again: set[int] = field(default_factory=set)
    walks: bool = False

    def __bool__(self) -> bool:
        return bool(self.recall or self.again or self.walks)


class CachingTxn(LmdbTxn):
    """`written`: whether somebody has an inode open for writing."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        ghosts: Ghosts,
        written: Callable[[int], bool],
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **options)
        self.is_written = written
        self._caches: dict[int, Cache | None] = {}
        self._caches_dirty: set[int] = set()
        self._noted: dict[tuple[int, int], bytes | None] = {}
        """(place, number) of files that were written, and a name where one was."""
        self._declared: set[int] = set()
        """Directories whose settings were."""
        self._roots: dict[int, int | None] = {}
        self.index = CacheIndex(self.rows, self.changed_cache, ghosts)
        self.ghosts = ghosts
        self.due: set[int] = set()
        """Roots from which something may have to go."""
        self.evicted: list[int] = []
        """Sizes of files that have left caches."""
        self.left = Left()

    # ---- what is written

    def put_dentry(self, directory: int, name: bytes, dentry: Dentry) -> None:
        super().put_dentry(directory, name, dentry)
        if stat.S_ISREG(dentry.mode) and not dentry.flags & MULTI and self._matters(directory):
            self._noted[directory, dentry.ino] = name

    def put_inode(self, attr: Attr) -> None:
        super().put_inode(attr)
        if self._matters(attr.place):
            self._noted.setdefault((attr.place, attr.ino))

    def delete_inode(self, place: int, ino: int) -> None:
        super().delete_inode(place, ino)
        if self._matters(place):
            self._noted[place, ino] = None

    def put_new_files(
        self,
        directory: int,
        names: Sequence[bytes],
        inos: Sequence[int],
        dentries: Sequence[bytes],
        inodes: Sequence[bytes],
        contents: Sequence[bytes],
    ) -> None:
        super().put_new_files(directory, names, inos, dentries, inodes, contents)
        if self._matters(directory):
            self._noted.update(
                ((directory, ino), name) for ino, name in zip(inos, names, strict=True)
            )

    def put_xattr(self, place: int, ino: int, name: bytes, value: bytes) -> None:
        if name == CACHE_XATTR:
            if self._counts(Table.CACHE) >= CACHES_MAX and self.get_cache(ino) is None:
                raise FsError(Code.NO_SPACE, f"there are {CACHES_MAX} caches already")
            self._declared.add(ino)
        super().put_xattr(place, ino, name, value)

    def delete_xattr(self, place: int, ino: int, name: bytes) -> None:
        if name == CACHE_XATTR:
            self._declared.add(ino)
        super().delete_xattr(place, ino, name)

    def put_directory(self, directory: Directory) -> None:
        if self._counts(Table.CACHED):
            self._adopt(directory)
        super().put_directory(directory)

    def _adopt(self, directory: Directory) -> None:
        """A new one belongs where its parent does; one that was moved is walked."""
        attr, parent = directory.attr, directory.parent
        before = self.get_directory(attr.ino)
        root = self.root_of(attr.ino)
        if before is None and attr.ino != parent:
            root = self.root_of(parent)
            self._set_root(attr.ino, root)
        elif before is not None and before.parent != parent and root != attr.ino:
            root = self.root_of(parent)
            if root != self.root_of(attr.ino):  # else one that is under way goes there, too
                self._begin_walk(attr.ino, root)
        _flag(attr, root)

    def delete_directory(self, ino: int) -> None:
        super().delete_directory(ino)
        if self._counts(Table.CACHED) or self._counts(Table.CACHEWALK):
            if self.root_of(ino) == ino:
                self._declared.add(ino)
            self._set_root(ino, None)
            self._delete_if_there(Table.CACHEWALK, keys.pack_id(ino))

    def _delete_if_there(self, table: Table, key: bytes) -> None:
        if self.rows.exists(table, key):
            self.rows.delete(table, key)

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        noted, declared = self._noted.copy(), self._declared.copy()
        try:
            with super().all_or_nothing():
                yield
        except BaseException:
            self._noted, self._declared = noted, declared
            self._roots.clear()
            raise

    # ---- which cache

    def _counts(self, table: Table) -> int:
        return self.rows.state.counts[table]

    def _matters(self, place: int) -> bool:
        """While a directory is walked, also one that is in no cache any more."""
        if self._counts(Table.CACHEWALK):
            return True
        return bool(self._counts(Table.CACHED)) and self.root_of(place) is not None

    def root_of(self, directory: int) -> int | None:
        """Of the cache that it belongs to."""
        if not self._counts(Table.CACHED):
            return None
        if directory not in self._roots:
            record = self.rows.get(Table.CACHED, keys.pack_id(directory))
            self._roots[directory] = None if record is None else records.unpack_id(record)
        return self._roots[directory]

    def _set_root(self, directory: int, root: int | None) -> None:
        key = keys.pack_id(directory)
        if root is None:
            self._delete_if_there(Table.CACHED, key)
        else:
            self.rows.put(Table.CACHED, key, records.pack_id(root))
        self._roots[directory] = root

    def get_cache(self, root: int) -> Cache | None:
        if root not in self._caches:
            record = self.rows.get(Table.CACHE, keys.pack_id(root))
            self._caches[root] = None if record is None else records.unpack_cache(record)
        return self._caches[root]

    def changed_cache(self, root: int) -> Cache:
        cache = self.get_cache(root)
        assert cache is not None, root
        self._caches_dirty.add(root)
        return cache

    def is_crowded(self, place: int) -> bool:
        """Whether its cache may need the room soon: then nobody changes anything in it without
        asking, for what a client ships later comes to more at a time."""
        root = self.root_of(place)
        cache = None if root is None else self.get_cache(root)
        if cache is None:
            return False
        ahead = max(cache.bytes_max // 8, min(cache.bytes_max // 2, PROMISE_BYTES_MAX))
        return cache.bytes > cache.bytes_max - ahead

    def is_held(self, place: int) -> bool:
        return place in self._held or place in self.granted

    # ---- the index

    def settle(self) -> None:
        """What was written so far is in the index."""
        noted, self._noted = self._noted, {}
        for (place, ino), name in noted.items():
            root = self.root_of(place)
            self.index.settle(root, place, ino, name, self.now_ns)
            if root is not None:
                self.due.add(root)
                if self.is_held(place) and self.is_crowded(place):
                    self.left.recall.add(place)
        declared, self._declared = self._declared, set()
        for directory in declared:
            self._declare(directory)

    def finish(self) -> None:
        for root in self._caches_dirty:
            cache = self._caches[root]
            if cache is not None:
                self.rows.put(Table.CACHE, keys.pack_id(root), records.pack_cache(cache))
        self.left.walks = bool(self._counts(Table.CACHEWALK))
        super().finish()

    # ---- settings

    def _declare(self, ino: int) -> None:
        """A record without bytes is one that ends: it goes when no file is in it any more."""
        cache = self.get_cache(ino)
        directory = self.get_directory(ino)
        value = None if directory is None else self.get_xattr(ino, ino, CACHE_XATTR)
        if directory is None or value is None:
            if cache is not None:
                self.changed_cache(ino).bytes_max = 0
                if directory is not None:
                    parent = directory.parent
                    self._begin_walk(ino, self.root_of(parent) if parent != ino else None)
                    self._mark(ino)
                elif not self._counts(Table.CACHEWALK):
                    self._end_caches()
            return
        settings = parse_settings(value)
        policy = POLICIES.index(settings.policy)
        if cache is None:
            cache = self._caches[ino] = Cache(settings.bytes_max, policy)
            # On record at once: who looks may ask how many there are.
            self.rows.put(Table.CACHE, keys.pack_id(ino), records.pack_cache(cache))
        again = cache.policy != policy
        cache.bytes_max, cache.ttl_s, cache.policy = settings.bytes_max, settings.ttl_s, policy
        cache.uid, cache.gid = directory.attr.uid, directory.attr.gid
        self._caches_dirty.add(ino)
        self.due.add(ino)
        if again or self.root_of(ino) != ino:
            self._begin_walk(ino, ino, again=again)
            self._mark(ino)

    # ---- directories that come with what they hold, or leave

    def _begin_walk(self, ino: int, root: int | None, *, again: bool = False) -> None:
        self._set_root(ino, root)
        walk = records.pack_walk(Walk(root or 0, again))
        self.rows.put(Table.CACHEWALK, keys.pack_id(ino), walk)

    def _mark(self, ino: int) -> None:
        """Those who read in it are told whether they shall say so."""
        directory = self.get_directory(ino)
        assert directory is not None, ino
        attr = directory.attr
        attr.change = max(self.commit, attr.change + 1)
        _flag(attr, self.root_of(ino))
        super().put_directory(directory)

    def walk(self) -> bool:
        """Some entries of the first directory that waits; whether that was all there is."""
        for key, record in self.rows.scan(Table.CACHEWALK, b""):
            self._walk_on(keys.parse_id(key), records.unpack_walk(record))
            break
        self.settle()
        if self._counts(Table.CACHEWALK):
            return False
        self._end_caches()
        return True

    def _walk_on(self, ino: int, walk: Walk) -> None:
        key = keys.pack_id(ino)
        entries = self.list_dentries(ino, walk.after, WALK_ENTRIES)
        for name, dentry in entries:
            if stat.S_ISDIR(dentry.mode):
                self._walk_into(dentry.ino, walk)
            elif stat.S_ISREG(dentry.mode) and not dentry.flags & MULTI:
                self._noted[ino, dentry.ino] = name
        if len(entries) < WALK_ENTRIES:
            self.rows.delete(Table.CACHEWALK, key)
        else:
            rest = replace(walk, after=entries[-1][0])
            self.rows.put(Table.CACHEWALK, key, records.pack_walk(rest))

    def _walk_into(self, ino: int, walk: Walk) -> None:
        """Where a directory belongs there already, so does what is below it, or a walk of its own
        is about to see to that: record and walk of a directory always name the same cache."""
        root = self.root_of(ino)
        if root == ino:
            return
        if walk.again or (root or 0) != walk.root:
            self._begin_walk(ino, walk.root or None, again=walk.again)
            self._mark(ino)

    def _end_caches(self) -> None:
        """Nothing is walked any more: of those that were unset no file is left."""
        for root in [keys.parse_id(key) for key in self.rows.keys(Table.CACHE, b"")]:
            cache = self.get_cache(root)
            if cache is None or cache.bytes_max:
                continue
            assert not cache.files, (root, cache)
            self.rows.delete(Table.CACHE, keys.pack_id(root))
            self._caches[root] = None
            self._caches_dirty.discard(root)


def _flag(attr: Attr, root: int | None) -> None:
    attr.flags = attr.flags & ~CACHED | (CACHED if root is not None else 0)
