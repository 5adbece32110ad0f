"""A metadata daemon without its network: the store, the sessions, the writer, and what runs beside.

Tests and benchmarks call `execute` and `hello` directly; service.py puts them on gRPC.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import DEAD_SESSIONS_MAX, PROTOCOL_VERSION
from superfs.core.tokens import Grant, Purpose
from superfs.meta.answers import Answers
from superfs.meta.background import Background
from superfs.meta.batch import Parts
from superfs.meta.caches import Caches
from superfs.meta.chains import Layout
from superfs.meta.commit import Committer, Room
from superfs.meta.datads import DataDaemons
from superfs.meta.environment import open_checked
from superfs.meta.expiry import Expiry
from superfs.meta.grace import Grace
from superfs.meta.keys import Table
from superfs.meta.lessor import Lessor
from superfs.meta.lingering import Lingering
from superfs.meta.metrics import MetaMetrics
from superfs.meta.opens import Opens
from superfs.meta.reaper import Reaper
from superfs.meta.sessions import Sessions, check_session
from superfs.meta.sweeper import Sweeper
from superfs.meta.verify import verify_in_child
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from superfs.core.namespace.outcome import FsStat
    from superfs.daemon.statedir import Identity
    from superfs.daemon.world import World
    from superfs.meta.config import MetadConfig
    from superfs.meta.records import Debt
    from superfs.meta.store import LmdbTxn
    from superfs.meta.told import Listener

ROOM_EVERY_S = 0.5
INODE_BYTES = 1024
"""About what an inode with its name takes: how statfs counts free inodes."""


class MetaNode:
    """Create it in the event loop that it is to run in. `layout` is set as the map changes."""

    def __init__(self, config: MetadConfig, identity: Identity, world: World) -> None:
        self._config = config
        self._identity = identity
        self._world = world
        self.layout = Layout.alone()
        self.boot_id = world.rng.getrandbits(63) | 1
        self.metrics = MetaMetrics(world.metrics)
        self.opens = Opens()
        self.sessions = Sessions(self.opens, world.clock.monotonic)
        self.lessor = Lessor(world, self.metrics, config.meta.lease_timeout_s)
        self.grace = Grace(
            world, config.meta.lease_timeout_s, lambda job: self.committer.submit(job)
        )
        self.datads = DataDaemons(config, world, lambda: self.layout)
        self._parts = Parts(
            self.sessions,
            self.opens,
            self.metrics,
            world,
            self._fs_stat,
            self.capability,
            self.lessor.granting,
        )

    # ---- life

    async def open(self) -> None:
        """Checks everything, then opens. FsError DAMAGED or WRONG_IDENTITY."""
        meta, state_dir = self._config.meta, self._config.daemon.state_dir
        started = self._world.clock.monotonic()
        await asyncio.to_thread(verify_in_child, state_dir, self._identity)
        seconds = self._world.clock.monotonic() - started
        self._world.log.info("the store is sound", seconds=round(seconds, 3))
        self.environment = open_checked(state_dir)
        room = Room(
            meta.grow_below_bytes, meta.map_step_bytes, meta.reserve_bytes, meta.map_max_bytes
        )
        self.lessor.granting.room = lambda clients: self.committer.can_promise(clients)
        self.committer = Committer(
            self.environment, self, room, self._world, self.metrics, self.lessor, self._owe
        )
        self.committer.written = self.opens.is_written
        self.caches = Caches(self, self._world)
        self.committer.look_after = self.caches.look_after
        self.reaper = Reaper(self.datads, self.committer, self._world)
        self.sweeper = Sweeper(self.datads, self.committer, self._world)
        self.answers = Answers(self, self._parts, self._world)
        self.expiry = Expiry(self, meta, self._world)
        self.lingering = Lingering(self.lessor, self.opens, self.committer, self._world)

    def start(self, group: asyncio.TaskGroup) -> None:
        with self.environment.reading() as rows:
            self.sessions.load(rows)
        self.grace.start(self.sessions.leased, self.sessions.exclusive)
        self.committer.start()
        with self.environment.reading() as rows:
            self.reaper.start(group, rows)
        self.background = Background(group)
        self.expiry.start(self.background)
        self.background.start(self.datads.watch_usage(), "usage")
        self.background.start(self._watch_room(), "room for logs")
        self.sweeper.ended(self.sessions.unswept)
        self.background.start(self.sweeper.run(), "sweeping")
        self.background.start(self.lingering.run(), "removed files")
        self.caches.start(self.background)
        watch = self.metrics.watch
        watch("sessions", "Sessions", lambda: len(self.sessions))
        watch("open_inodes", "Inodes that somebody has open", lambda: len(self.opens))
        watch("queue", "Jobs that wait for the writer", lambda: self.committer.waiting)
        watch("reap_backlog", "Debts to data daemons", lambda: len(self.reaper))
        watch("orphans", "Inodes without a name", lambda: self._count(Table.ORPHAN))
        watch("caches", "Bounded cache directories", lambda: self._count(Table.CACHE))
        watch("cache_files", "Files in them", lambda: self._count(Table.CACHEFILE))
        watch("map_bytes", "Size of the store", lambda: self.environment.map_bytes)
        watch("free_bytes", "Free in the store", lambda: self.committer.free_bytes)
        watch("grace_seconds", "Wait for clients after the start", lambda: self.grace.seconds)

    async def stop(self) -> None:
        """Everything submitted is committed, and answered or forgotten by its client."""
        self.grace.stop()
        await self.background.stop()
        await self.reaper.stop()
        await asyncio.to_thread(self.committer.stop)
        await self.datads.close()
        self.environment.close()

    def set_layout(self, layout: Layout) -> None:
        self.layout = layout
        self.reaper.reroute()
        self.datads.news.set()

    # ---- what a transaction asks (numbers.Outside)

    def now_ns(self) -> int:
        return self._world.clock.now_ns()

    def owns(self, slot: int) -> bool:
        return bool(self.layout.owned[slot])

    def available_chains(self) -> Sequence[int]:
        return self.layout.chains

    def chains_per_file(self) -> int:
        return self._config.meta.chains_per_file

    def open_sessions(self, ino: int, place: int, txn: LmdbTxn) -> Iterable[int]:
        found = self.opens.sessions(ino)
        if place:
            found |= self.lingering.sessions(ino, place, txn, found)
        return found

    # ---- sessions

    async def hello(
        self, grant: Grant, hello: meta_pb2.Hello, listener: Listener | None = None
    ) -> meta_pb2.Welcome:
        """`listener`: the stream it came on, from now on the one that counts for the session."""
        if hello.protocol != PROTOCOL_VERSION:
            raise FsError(
                Code.BAD_FORMAT,
                f"the client speaks protocol {hello.protocol}, this daemon {PROTOCOL_VERSION}: "
                "use programs of one version",
            )
        check_session(grant)
        if len(hello.dead) > DEAD_SESSIONS_MAX:
            raise FsError(Code.TOO_LARGE, f"at most {DEAD_SESSIONS_MAX} dead sessions")
        if grant.kind == "host" and not grant.read_only:
            for dead in set(hello.dead) - {grant.session_id}:
                await self.expiry.end_dead(dead)
        inos = [inode.ino for inode in hello.open]
        session, leases = grant.session_id, hello.leases and listener is not None
        exclusive = leases and hello.exclusive and grant.kind == "host" and not grant.read_only

        def enter(txn: LmdbTxn) -> tuple[int, int]:
            client = self.sessions.enter(txn, grant, hello.client)
            self.sessions.claim(txn, client, inos)
            self.sessions.lease(txn, client, leases)
            return txn.commit, self.sessions.give_range(txn, client) if exclusive else 0

        self.lessor.begin(session, listener)
        try:
            commit, number_range = await self.committer.run(enter)
        except FsError:
            self.lessor.hung_up(session, listener)
            raise
        self.sessions.heard(session)
        self.lessor.welcome(session, listener, leases, exclusive)
        self.grace.back(session)
        if not exclusive:
            self.grace.settled(session)
        return meta_pb2.Welcome(
            protocol=PROTOCOL_VERSION,
            boot_id=self.boot_id,
            session_epoch=self._epoch(grant),
            capability=self.capability(grant, 0),
            expiry_ms=int(self._config.meta.session_timeout_s * 1000),
            commit=commit,
            lease_ms=int(self._config.meta.lease_s * 1000) if leases else 0,
            now_ns=self.now_ns(),
            number_range=number_range,
        )

    def keep_alive(self, grant: Grant, listener: Listener) -> None:
        self.sessions.heard(grant.session_id)
        self.lessor.keep_alive(grant.session_id, listener)

    def settled(self, grant: Grant, listener: Listener) -> None:
        if self.lessor.settled(grant.session_id, listener):
            self.grace.settled(grant.session_id)

    async def goodbye(self, grant: Grant) -> None:
        await self.expiry.end(grant.session_id)

    def capability(self, grant: Grant, ino: int) -> bytes:
        """What the client shows to data daemons. A host's is for every inode, a user's for one.
        The fence at the end of the session, whose epoch it carries, takes it back."""
        if (grant.kind == "user" and not ino) or (grant.kind != "user" and ino):
            return b""
        right = Grant(
            grant.kind,
            grant.name,
            grant.uid,
            grant.gid,
            read_only=grant.read_only,
            session_id=grant.session_id,
            epoch=self._epoch(grant),
            inode=ino,
        )
        return self._world.authority.issue(Purpose.CAPABILITY, right)

    def _epoch(self, grant: Grant) -> int:
        client = self.sessions.get(grant.session_id)
        return client.epoch if client is not None else max(grant.epoch, 1)

    async def _watch_room(self) -> None:
        """Others fill the store, too: before there is no room for what clients have not shipped,
        they are asked for it, and do nothing by themselves any more."""
        exclusives = self.lessor.exclusives
        while True:
            await asyncio.sleep(ROOM_EVERY_S)
            if exclusives and not self.committer.can_promise(exclusives.sessions):
                self._world.log.warning(
                    "the metadata store has no room for what clients do by themselves",
                    clients=exclusives.sessions,
                    free_bytes=self.committer.free_bytes,
                )
                await self.lessor.opened(list(exclusives.held), 0)

    # ---- operations

    def submit(
        self,
        grant: Grant,
        batch: meta_pb2.Batch,
        listener: Listener | None = None,
        settles: Callable[[], None] | None = None,
    ) -> asyncio.Future[meta_pb2.BatchReply]:
        """Takes its place in the order of things at once; the answer comes as a future. `settles`
        is called when the batch has to wait for others: for data daemons, for those who held
        leases on what it has changed, or hold them exclusively."""
        return self.answers.submit(grant, batch, listener, settles)

    async def execute(self, grant: Grant, batch: meta_pb2.Batch) -> meta_pb2.BatchReply:
        return await self.submit(grant, batch)

    async def recall_all(self) -> None:
        """What clients did by themselves until now is in the store afterwards."""
        await self.grace.others_settled(0)
        await self.lessor.opened(list(self.lessor.exclusives.held), 0)

    # ---- odds

    def _owe(self, debts: dict[bytes, Debt]) -> None:
        self.reaper.owe(debts)

    def _fs_stat(self, txn: LmdbTxn) -> FsStat:
        counts = txn.rows.state.counts
        disk = os.statvfs(self._config.daemon.state_dir)
        free = self.committer.free_bytes - self._config.meta.reserve_bytes
        free += disk.f_bavail * disk.f_frsize
        used = counts[Table.INODE] + counts[Table.DIRECTORY]
        return self.datads.fs_stat(used, max(free, 0) // INODE_BYTES)

    def _count(self, table: Table) -> int:
        with self.environment.reading() as rows:
            return rows.state.counts[table]
