"""Group commit: one thread applies every waiting job in one LMDB transaction and syncs once.

A job is answered only after its commit is durable. Jobs of one transaction run in the order they
were submitted; an exception inside one operation is that operation's own business (batch.py), and
what reaches this file is one of three things:

* `Spoiled`: an operation failed after it had changed something. The transaction is given up and
  all its jobs run again; the job has noted the result of the spoiler and does not run it again.
* the map is full, or a rule finds too little room: it grows by a step; where the disk has none, the
  jobs run again without room, in which the rules only remove and shrink.
* anything else of LMDB or the disk: nobody knows any more what a later commit would make durable
  (the kernel forgets a failed write). The process ends at once, status 75; the next start checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import lmdb

from superfs.core.errors import Code, FsError
from superfs.core.limits import LOG_ROOM_BYTES, MIB
from superfs.meta.cacheindex import Ghosts
from superfs.meta.cachetxn import CachingTxn
from superfs.meta.environment import PAGE_BYTES
from superfs.meta.evicting import make_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.daemon.world import World
    from superfs.meta.cachetxn import Left
    from superfs.meta.environment import Environment
    from superfs.meta.lessor import Lessor
    from superfs.meta.metrics import MetaMetrics
    from superfs.meta.numbers import Outside
    from superfs.meta.records import Debt
    from superfs.meta.store import LmdbTxn, Touched
    from superfs.meta.table import Records
    from superfs.meta.told import Telling

T = TypeVar("T")

COMMIT_WEIGHT_MAX = 4096
"""Operations of one transaction; with the limits of a message this bounds its dirty pages."""
COMMIT_BYTES_MAX = 64 * MIB
QUEUE_BYTES_MAX = 256 * MIB
"""Of the requests that wait. More would be memory for the asking: a client may try again."""
GROW_RETRY_S = 1.0


class Spoiled(Exception):
    """An operation failed after a change."""


@contextlib.contextmanager
def full_store_is_no_end() -> Iterator[None]:
    """Around what a task of the daemon itself does from time to time: without a page left for it
    (the writer has said so) it is done another time."""
    try:
        yield
    except FsError as error:
        if error.code is not Code.NO_SPACE:
            raise


class Job(Protocol):
    """Something to be done in a write transaction. `apply` may run several times, each time on a
    transaction that knows nothing of the earlier ones; it runs in the writer thread, the other
    two in the event loop, exactly one of them and once."""

    weight: int
    size_bytes: int
    telling: Telling | None
    """What its answer tells a client; None: there is no client."""

    def apply(self, txn: LmdbTxn) -> None: ...
    def committed(self, commit: int) -> None: ...
    def failed(self, error: FsError) -> None: ...


class Call(Job):
    """A function as a job, its result as a future."""

    def __init__(self, function: Callable[[LmdbTxn], Any], weight: int) -> None:
        self.weight = weight
        self.size_bytes = 0
        self.telling = None
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._function = function
        self._result: Any = None
        self._error: FsError | None = None

    def apply(self, txn: LmdbTxn) -> None:
        if self._error is not None:
            return
        txn.next_operation()
        before = txn.changes
        try:
            self._result = self._function(txn)
        except FsError as error:
            self._error = error
            if txn.changes != before:
                raise Spoiled from error

    def committed(self, commit: int) -> None:
        if self._error is not None:
            self.failed(self._error)
        elif not self.future.done():
            self.future.set_result(self._result)

    def failed(self, error: FsError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Evictions(Job):
    """The last of every transaction: what was done is in the indexes of caches, and what is too
    much in them goes."""

    weight = 0
    size_bytes = 0
    telling = None

    def apply(self, txn: LmdbTxn) -> None:
        assert isinstance(txn, CachingTxn)
        txn.settle()
        if txn.due:
            make_room(txn, txn.due)

    def committed(self, commit: int) -> None:
        pass

    def failed(self, error: FsError) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Room:
    """When the store grows, and what only removals may use."""

    grow_below_bytes: int
    grow_step_bytes: int
    reserve_bytes: int
    map_bytes_max: int


class Committer:
    def __init__(
        self,
        environment: Environment,
        outside: Outside,
        room: Room,
        world: World,
        metrics: MetaMetrics,
        lessor: Lessor,
        owe: Callable[[dict[bytes, Debt]], None],
    ) -> None:
        """`owe` gets, in the event loop, the new debts to data daemons of every commit."""
        self._environment = environment
        self._outside = outside
        self._room = room
        self._world = world
        self._metrics = metrics
        self._lessor = lessor
        self._owe = owe
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._grow_not_before = 0.0
        self._submitted_bytes = 0  # of all time; the event loop counts these, the writer those
        self._taken_bytes = 0
        self._stopping = False
        self.broken = False
        self.busy = False
        """Whether a transaction runs. A reader that sees False after it has registered something
        knows that every transaction from now on sees the registration."""
        self.free_bytes = 0
        self.ghosts = Ghosts()
        self.written: Callable[[int], bool] = lambda _: False
        """Whether somebody has an inode open for writing."""
        self.look_after: Callable[[Left], None] = lambda _: None
        """Gets, in the event loop, what a transaction has left of caches to be done."""
        self.respoiled = 0
        """How often a transaction had to run again for an operation that failed half-way."""

    def start(self) -> None:
        with self._environment.reading() as rows:
            self._room_of(rows)
            self._lessor.announced = rows.state.commit
        self._thread.start()

    def stop(self) -> None:
        """Everything submitted before is committed when it returns."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def submit(self, job: Job) -> None:
        if self._stopping or self.broken:
            job.failed(FsError(Code.UNAVAILABLE, "the daemon is stopping"))
            return
        waiting = self._submitted_bytes - self._taken_bytes
        if waiting and waiting + job.size_bytes > QUEUE_BYTES_MAX:
            job.failed(FsError(Code.BUSY, "too much waits for the writer: ask again"))
            return
        self._submitted_bytes += job.size_bytes
        self._queue.put(job)

    async def run(self, function: Callable[[LmdbTxn], T], *, weight: int = 1) -> T:
        call = Call(function, weight)
        self.submit(call)
        result: T = await call.future
        return result

    # ---- the writer thread

    def _run(self) -> None:
        going = True
        while going:
            jobs, going = self._take()
            if self.broken:
                self._fail(jobs, FsError(Code.UNAVAILABLE, "the store is not usable"))
                continue
            if not jobs:
                continue
            try:
                self._commit(jobs)
            except Exception as error:
                # A bug, or the disk: either way nothing of these jobs may be called durable.
                self.broken = True
                self._world.log.critical("commit failed", error=repr(error), exc_info=error)
                try:
                    self._world.fatal(f"commit failed: {error}")
                finally:
                    self._fail(jobs, FsError(Code.UNAVAILABLE, "the store is not usable"))

    def _take(self) -> tuple[list[Job], bool]:
        """All that waits, up to the limits of one transaction; False with the last of all."""
        job = self._queue.get()
        jobs: list[Job] = []
        weight = size = 0
        while job is not None:
            jobs.append(job)
            weight += job.weight
            size += job.size_bytes
            self._taken_bytes += job.size_bytes
            if weight >= self._weight_max() or size >= COMMIT_BYTES_MAX:
                return jobs, True
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _weight_max(self) -> int:
        """Near the end of the room small transactions: each needs pages before it frees any."""
        return COMMIT_WEIGHT_MAX if self.free_bytes > 2 * self._room.reserve_bytes else 64

    def _commit(self, jobs: Sequence[Job]) -> None:
        if self.free_bytes < self._room.grow_below_bytes:
            self._grow()
        self.busy = True
        full, may_grow = False, True
        while True:
            try:
                with self._metrics.commit_seconds.time():
                    txn, done, touched = self._transaction(jobs, full, may_grow)
                break
            except Spoiled:
                self.respoiled += 1
                self._metrics.spoiled.inc()
            except lmdb.MapFullError:
                if self._grow():
                    continue
                if may_grow:
                    may_grow = False  # rules that find no room say so
                    continue
                if full and len(jobs) > 1:
                    for job in jobs:
                        self._commit([job])
                    return
                if full:
                    self.busy = False
                    self._fail(jobs, FsError(Code.NO_SPACE, "the metadata store is full"))
                    return
                full = True
        self.busy = False
        self._world.failpoints.hit("metad.commit.after")
        self._metrics.commit_operations.observe(sum(job.weight for job in jobs))
        self._call(self._committed, done, txn, touched)

    def _transaction(
        self, jobs: Sequence[Job], full: bool, may_grow: bool
    ) -> tuple[CachingTxn, list[Job], list[Touched]]:
        """And the jobs, what caches made of them included, with what each touched."""
        done: list[Job] = []
        touched: list[Touched] = []
        with self._environment.begin() as writing:
            txn = CachingTxn(
                writing.rows,
                self._outside,
                writable=True,
                room_bytes=self._room_of(writing.rows),
                may_grow=may_grow,
                held=self._lessor.exclusives.held,
                ghosts=self.ghosts,
                written=self.written,
            )
            if full:
                txn.close_room()
            for job in (*jobs, Evictions()):
                txn.touched, txn.session = [], None
                job.apply(txn)
                done.append(job)
                touched.append(txn.touched)
            if txn.untouched:
                return txn, done, touched
            txn.finish()
            self._world.failpoints.hit("metad.commit.before")
            writing.commit()
        self._lessor.exclusives.add(txn.granted)
        for act in txn.after_commit:
            act()
        if txn.evicted:
            self._metrics.evicted_files.inc(len(txn.evicted))
            self._metrics.evicted_bytes.inc(sum(txn.evicted))
        return txn, done, touched

    def _room_of(self, rows: Records) -> int:
        """What rules may still write, by half: B-tree pages are far from full on average."""
        self.free_bytes = self._environment.map_bytes - rows.pages() * PAGE_BYTES
        return (self.free_bytes - self._room.reserve_bytes) // 2

    def can_promise(self, clients: int) -> bool:
        """Whether there is room for the logs of so many, in the map or on the disk."""
        needed = self._room.reserve_bytes + clients * LOG_ROOM_BYTES
        if self.free_bytes >= needed:
            return True
        if self._world.clock.monotonic() < self._grow_not_before:
            return False
        map_bytes = self._environment.map_bytes
        growth = min(self._environment.disk_free_bytes(), self._room.map_bytes_max - map_bytes)
        return self.free_bytes + growth - self._room.grow_step_bytes >= needed

    def _grow(self) -> bool:
        if self._world.clock.monotonic() < self._grow_not_before:
            return False
        wanted = self._environment.map_bytes + self._room.grow_step_bytes
        if wanted <= self._room.map_bytes_max and self._environment.grow(
            self._room.grow_step_bytes
        ):
            self._world.log.info("grew", map_bytes=self._environment.map_bytes)
            return True
        self._grow_not_before = self._world.clock.monotonic() + GROW_RETRY_S
        self._world.log.warning(
            "the metadata store cannot grow: its disk is full, or meta.map_max_bytes is reached",
            map_bytes=self._environment.map_bytes,
            free_bytes=self.free_bytes,
        )
        return False

    # ---- the event loop

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            assert self._loop.is_closed()  # nobody is left to be told

    def _committed(self, jobs: Sequence[Job], txn: CachingTxn, touched: Sequence[Touched]) -> None:
        self._world.failpoints.hit("metad.reply.before")
        if txn.debts:
            self._owe(txn.debts)
        commit = txn.commit if not txn.untouched else txn.commit - 1
        self._lessor.announce(commit, jobs, touched, txn.removed)
        for job in jobs:
            job.committed(commit)
        if txn.left:
            self.look_after(txn.left)

    def _fail(self, jobs: Sequence[Job], error: FsError) -> None:
        def fail() -> None:
            for job in jobs:
                job.failed(error)

        self._call(fail)
