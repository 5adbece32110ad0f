"""What was written to one file and is not published yet, and what went wrong with it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from superfs.client.age import Age
from superfs.client.dirty import DirtyExtents
from superfs.client.readahead import Readahead
from superfs.client.retry import TRY_LATER
from superfs.client.tenure import Tenure
from superfs.core.errors import Code, FsError
from superfs.core.namespace.txn import Ref
from superfs.rpc.pending import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.client.connection import Connection
    from superfs.client.dirty import Extent
    from superfs.client.wire import Reply
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller
    from superfs.rpc.pending import Pending

log = logging.getLogger("superfs.client")

DIRTY_AGE_S = 1.0


class Told(Protocol):
    losses: int  # `Unpublished.losses` when it was opened, or last told


class Unpublished(ABC):
    def __init__(
        self, connection: Connection, attr: Attr, *, inline: bytes | None, capability: bytes
    ) -> None:
        assert attr.is_regular, attr
        self._connection = connection
        self._meta = connection.meta
        self._data = connection.data
        self._capability = capability
        self._turn = Lock()
        self._state = threading.Lock()
        self._attr = attr
        self._age = Age()
        if inline is None and not attr.size:
            inline = b""
        self._inline = inline if attr.is_inline else None
        self._inline_change = attr.change
        self._dirty = DirtyExtents()
        self._flying: list[Extent] = []
        self._unpublished: list[Extent] = []
        self._unpublished_bytes = 0
        self._answers: list[Pending[Reply]] = []
        self._readahead = Readahead(connection.data)
        self._written_end = 0  # behind the last byte that is unpublished
        self._mtime_ns = 0  # of the last write that is not published; 0: none
        self._tenure = Tenure(connection)
        self._dirty_since_s = 0.0
        self._kill_priv = False
        self._caller: Caller | None = None
        self._failure: FsError | None = None
        self._last_loss = FsError(Code.IO)
        self.losses = 0  # how often written bytes had to be dropped
        self._rewrites = 0

    @property
    def ref(self) -> Ref:
        a = self._attr
        return Ref(a.ino, a.generation, a.place)

    @property
    def size(self) -> int:
        with self._state:
            return self._size()

    @property
    def attr(self) -> Attr:
        """As this client sees it: the server's, with what was written here on top. A copy."""
        with self._state:
            attr = self._attr.copy()
            attr.size = self._size()
            if self._mtime_ns:
                attr.mtime_ns = self._mtime_ns
                attr.ctime_ns = max(attr.ctime_ns, self._mtime_ns)
            return attr

    @property
    def settled(self) -> tuple[int, bytes] | None:
        """The version (Attr.change) and the contents of a small file, where they are known here and
        nothing is to be written."""
        with self._state:
            if self.is_dirty or self._inline is None or self._inline_change != self._attr.change:
                return None
            return self._attr.change, self._inline

    @abstractmethod
    async def flush_aged(self) -> None:
        """What is old by now is published."""

    @property
    def is_dirty(self) -> bool:
        """Whether anything written here is not published yet."""
        return self._mtime_ns != 0

    @property
    def is_settled(self) -> bool:
        """Nothing is to be written, and no error of the background is to be told."""
        return self._mtime_ns == 0 and self._failure is None

    def aged(self, now_s: float) -> bool:
        return self.is_dirty and now_s - self._dirty_since_s >= DIRTY_AGE_S

    # ---- state: called with _state held

    def _size(self) -> int:
        if not self.is_dirty:
            return self._attr.size
        flying = self._flying[-1][0] + len(self._flying[-1][1]) if self._flying else 0
        return max(self._attr.size, self._dirty.end, flying, self._written_end)

    def _observe(self, attr: Attr, *, own: bool = False) -> None:
        if attr.change < self._attr.change or attr.generation != self._attr.generation:
            return
        if attr.change > self._attr.change and not own:
            self._readahead.drop()
            self._tenure.changed()
        if attr.data_generation != self._attr.data_generation:
            self._readahead.drop()
        self._attr = attr
        self._age.told()

    def _note_write(self, kill_priv: bool, caller: Caller | None) -> None:
        if not self.is_dirty:
            self._dirty_since_s = time.monotonic()
            self._tenure.begin()
            self._connection.writeback.note(self)
        self._mtime_ns = time.time_ns()
        self._kill_priv |= kill_priv
        self._caller = caller or self._caller

    def _overlapping(self, offset: int, length: int) -> list[Extent]:
        """Oldest first. What is unpublished can be read back from the data daemons."""
        if not self.is_dirty:
            return []
        end = offset + length
        flying = [(o, d) for o, d in self._flying if o < end and o + len(d) > offset]
        return flying + self._dirty.overlapping(offset, length)

    # ---- failures

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise FsError(failure.code, failure.detail)

    def lose(self, error: FsError) -> None:
        """What was published is not so, after all: every handle is told, once. Any answer is newer
        than what is known here."""
        self._last_loss = error
        self.losses += 1
        with self._state:
            self._attr = self._attr.copy()
            self._attr.change = 0
            self._inline = None
            self._readahead.drop()
            self._age.recalls += 1

    def _fail(self, error: FsError) -> None:
        """In the background. What is only late is still dirty, and will be tried again."""
        if error.code in TRY_LATER:
            log.warning("inode %x: written bytes have to wait: %s", self._attr.ino, error)
        else:
            self._failure = error

    @contextlib.contextmanager
    def telling(self, handle: Told) -> Iterator[None]:
        """Around what a handle asks for: bytes that were dropped are an error of each, once."""
        try:
            yield
            if self.losses != handle.losses:
                raise FsError(self._last_loss.code, self._last_loss.detail)
        except FsError:
            handle.losses = self.losses
            raise

    def _drop_writes(self) -> None:
        with self._state:
            self._dirty.clear()
            self._flying = []
            self._forget_unpublished()
            self._readahead.drop()

    def _forget_unpublished(self) -> None:
        self._unpublished = []
        self._unpublished_bytes = 0
        self._written_end = 0
        if self._dirty or self._flying:
            self._dirty_since_s = time.monotonic()
        else:
            self._mtime_ns = 0
            self._kill_priv = False
