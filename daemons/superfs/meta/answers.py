"""From a batch to its answer: read at once, or through the writer, and again where another client
had it exclusively and has shipped meanwhile. In the event loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import lmdb

from superfs.core.errors import Code, FsError
from superfs.meta.batch import Operations, check_batch, failure, leases_of, what_it_does
from superfs.meta.batchjob import BatchJob
from superfs.meta.columns import encode_attr
from superfs.meta.sessions import check_session
from superfs.meta.store import LmdbTxn
from superfs.meta.subtrees import below
from superfs.meta.told import Telling
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.core.tokens import Grant
    from superfs.daemon.world import World
    from superfs.meta.batch import Parts
    from superfs.meta.node import MetaNode
    from superfs.meta.told import Listener

READ_SLICE_S = 0.005
"""How long a batch of reads may keep the event loop."""
TRIES_MAX = 16
"""How often an operation is run that finds what it needs held exclusively; then its client is told
to ask again."""


class Answers:
    def __init__(self, node: MetaNode, parts: Parts, world: World) -> None:
        self._node = node
        self._parts = parts
        self._world = world
        self._lessor = node.lessor
        self._sessions = node.sessions
        self._opens = node.opens

    def submit(
        self,
        grant: Grant,
        batch: meta_pb2.Batch,
        listener: Listener | None,
        settles: Callable[[], None] | None,
    ) -> asyncio.Future[meta_pb2.BatchReply]:
        check_batch(batch)
        self._sessions.heard(grant.session_id)
        fresh = self._register(grant, batch)
        changes, opens = what_it_does(batch)
        once = _Once(settles)
        # Opening may not overtake a transaction that runs right now, and may have asked already
        # who has the inode open.
        known = self._sessions.get(grant.session_id) is not None
        if not changes and (not opens or (known and not self._node.committer.busy)):
            return asyncio.ensure_future(self._read(grant, batch, fresh, listener, once))
        check_session(grant)
        job = BatchJob(self._parts, grant, batch, fresh, listener)
        closed = self._closed(grant, batch)
        waits = bool(closed) or self._submit(job)
        return asyncio.ensure_future(self._change(job, closed, once, waits=waits))

    def _register(self, grant: Grant, batch: meta_pb2.Batch) -> set[int]:
        """What the batch opens, before it is read; what of it was not open already. A session
        that is not known here, new or ended, has to pass the writer first."""
        fresh: set[int] = set()
        if self._sessions.get(grant.session_id) is None:
            return fresh
        for op in batch.ops:
            if op.WhichOneof("verb") == "open":
                ino = op.open.inode.ino
                if not self._opens.is_open(grant.session_id, ino):
                    try:
                        self._opens.open(grant.session_id, ino)
                    except FsError:
                        continue  # too many: the operation will be told
                    fresh.add(ino)
        return fresh

    # ---- through the writer

    def _submit(self, job: BatchJob) -> bool:
        """Now, or after the grace: then it waits. What the grace is waiting for does not."""
        grace = self._node.grace
        session = job.telling.session
        logs = job.is_log and grace.may_log(session)
        if grace.active and not logs and (job.changes or not grace.may_read(session)):
            grace.hold(job)
            return True
        self._node.committer.submit(job)
        return False

    def _closed(self, grant: Grant, batch: meta_pb2.Batch) -> set[int]:
        """To the session, as far as the operations say what they are about."""
        exclusives, session = self._lessor.exclusives, grant.session_id
        if not exclusives:
            return set()
        return {lease for lease in leases_of(batch) if exclusives.closed(lease, session)}

    async def _change(
        self, job: BatchJob, closed: set[int], settles: _Once, *, waits: bool
    ) -> meta_pb2.BatchReply:
        session = job.telling.session
        if waits:
            settles()  # what is waited for may come behind it
        if closed:
            await self._lessor.opened(closed, session)
            self._submit(job)
        reply = await self._finish(job, settles)
        where = list(range(len(reply.results)))
        for _ in range(TRIES_MAX - 1):
            if not job.delegated:
                break
            settles()
            await self._lessor.opened(self._in_the_way(job), session)
            where, job = [where[index] for index in job.delegated], job.again()
            self._submit(job)
            _merge(reply, where, await self._finish(job, settles))
        self._lessor.recheck(session, reply)
        return reply

    def _in_the_way(self, job: BatchJob) -> set[int]:
        """What is held exclusively of what its operations need. Of a tree that is to be removed
        all at once."""
        found: set[int] = set()
        for index, closed in job.delegated.items():
            found |= closed
            op = job.batch.ops[index]
            if op.WhichOneof("verb") == "remove_tree":
                with self._node.environment.reading() as rows:
                    txn = LmdbTxn(rows, self._node)
                    found |= below(txn, op.remove_tree, self._lessor.exclusives.held)
        return found

    async def _finish(self, job: BatchJob, settles: _Once) -> meta_pb2.BatchReply:
        reply = await job.future
        pending = job.telling.pending
        if pending is not None or job.waits:
            settles()
        if pending is not None:
            await pending
        for index, debts in job.waits.items():
            for debt in debts:
                attr = await self._node.reaper.settled(debt)
                if attr is not None:
                    reply.results[index].attr.CopyFrom(encode_attr(attr))
        await self._lessor.ready(job.telling, reply.commit)
        return reply

    # ---- reads

    async def _read(
        self,
        grant: Grant,
        batch: meta_pb2.Batch,
        fresh: set[int],
        listener: Listener | None,
        settles: _Once,
    ) -> meta_pb2.BatchReply:
        """In slices, each on a transaction of its own, so that others get their turn."""
        reply = meta_pb2.BatchReply(batch=batch.batch)
        telling = Telling(grant.session_id, listener)
        room: int | None = None
        tries = 0
        if not self._node.grace.may_read(grant.session_id):
            settles()
            await self._node.grace.others_settled(grant.session_id)
        closed = self._closed(grant, batch)
        if closed:
            settles()
            await self._lessor.opened(closed, grant.session_id)
        while True:
            try:
                room, closed = self._slice(reply, grant, batch, fresh, telling, room)
            except lmdb.Error as error:
                self._world.fatal(f"the store cannot be read: {error}")
            self._lessor.grant(telling)
            tries = tries + 1 if closed else 0
            if closed and tries < TRIES_MAX:
                del reply.results[-1]
                settles()
                await self._lessor.opened(closed, grant.session_id)
                continue
            if len(reply.results) == len(batch.ops):
                self._opens.take_back(grant.session_id, fresh)
                if self._lessor.is_behind(reply.commit):
                    await self._lessor.ready(telling, reply.commit)
                reply.leases.extend(telling.granted)
                return reply
            await asyncio.sleep(0)

    def _slice(
        self,
        reply: meta_pb2.BatchReply,
        grant: Grant,
        batch: meta_pb2.Batch,
        fresh: set[int],
        telling: Telling,
        room: int | None,
    ) -> tuple[int, set[int]]:
        """What room is left, and what the last operation has found closed: it ends the slice."""
        until = time.monotonic() + READ_SLICE_S
        ops, done = batch.ops, len(reply.results)
        with self._node.environment.reading() as rows:
            txn = LmdbTxn(rows, self._node, held=self._lessor.exclusives.held)
            txn.session = grant.session_id
            reply.commit = rows.state.commit
            if self._sessions.has_ended(rows, grant.session_id):
                error = FsError(Code.SESSION_EXPIRED, "the session has ended")
                reply.results.extend(failure(error) for _ in ops[done:])
                done = len(ops)
            tell = telling if self._lessor.needs(telling, reply.commit) else None
            run = Operations(self._parts, grant, txn, fresh, tell, room)
            while done < len(ops):
                reply.results.append(run.read(ops[done]))
                done += 1
                if txn.delegated or time.monotonic() > until:
                    break
            return run.room, txn.delegated


class _Once:
    """Says once that a batch makes room for the next."""

    def __init__(self, settles: Callable[[], None] | None) -> None:
        self._settles = settles

    def __call__(self) -> None:
        settles, self._settles = self._settles, None
        if settles is not None:
            settles()


def _merge(reply: meta_pb2.BatchReply, indexes: list[int], later: meta_pb2.BatchReply) -> None:
    """The answers of operations that ran again, in the places of their first ones."""
    for index, result in zip(indexes, later.results, strict=True):
        reply.results[index].CopyFrom(result)
    reply.commit = max(reply.commit, later.commit)
    reply.leases[:] = sorted({*reply.leases, *later.leases})
    reply.exclusive[:] = sorted({*reply.exclusive, *later.exclusive})
