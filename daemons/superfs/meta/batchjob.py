"""A client's batch as a job of the writer, and the part of it that has to run again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.meta.batch import Operations, failure, mutates, weight_of, what_it_does
from superfs.meta.commit import Job, Spoiled
from superfs.meta.told import Telling
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from superfs.core.tokens import Grant
    from superfs.meta.batch import Parts
    from superfs.meta.sessions import Client
    from superfs.meta.store import LmdbTxn
    from superfs.meta.told import Listener


class BatchJob(Job):
    """A batch that has mutations, or something else that must not pass the writer by."""

    def __init__(
        self,
        parts: Parts,
        grant: Grant,
        batch: meta_pb2.Batch,
        fresh: set[int],
        listener: Listener | None,
    ) -> None:
        self.telling = Telling(grant.session_id, listener)
        self.weight = max(1, sum(map(weight_of, batch.ops)))
        self.size_bytes = batch.ByteSize()
        self.future: asyncio.Future[meta_pb2.BatchReply] = (
            asyncio.get_running_loop().create_future()
        )
        self.waits: dict[int, list[bytes]] = {}
        self._parts = parts
        self._grant = grant
        self.batch = batch
        self.changes, _ = what_it_does(batch)
        self.is_log = all(op.WhichOneof("verb") == "log" for op in batch.ops)
        self._fresh = fresh
        self._results: list[meta_pb2.Result] = []
        self._spoilers: dict[int, tuple[meta_pb2.Result, set[int]]] = {}
        self.delegated: dict[int, set[int]] = {}
        """Operations that others stand in the way of, and what these hold."""

    def apply(self, txn: LmdbTxn) -> None:
        sessions, ops = self._parts.sessions, self.batch.ops
        self._results = []
        self.waits = {}
        self.delegated = {}
        self.telling.clear()
        txn.session = self._grant.session_id
        txn.next_operation()
        try:
            client = sessions.enter(txn, self._grant)
        except FsError as error:
            self._results = [failure(error)] * len(ops)
            return
        sessions.acknowledge(txn, client, self.batch.acked_below)
        run = Operations(self._parts, self._grant, txn, self._fresh, self.telling)
        for index in range(len(ops)):
            spoiler = self._spoilers.get(index)
            if spoiler is None:
                result, closed = self._run(run, client, index, txn)
            else:
                result, closed = spoiler
            if result.code == Code.DELEGATED:
                self.delegated[index] = closed
            self._results.append(result)

    def _run(
        self, run: Operations, client: Client, index: int, txn: LmdbTxn
    ) -> tuple[meta_pb2.Result, set[int]]:
        op = self.batch.ops[index]
        try:
            result = run.mutate(client, op) if mutates(op) else run.read(op)
        except Spoiled as spoiled:
            self._spoilers[index] = spoiled.args[0], txn.delegated.copy()
            raise
        if run.waits:
            self.waits[index], run.waits = run.waits, []
        return result, txn.delegated.copy()

    def again(self) -> BatchJob:
        """With the operations that were not done; the others have had their answers."""
        ops = [self.batch.ops[index] for index in self.delegated]
        rest = meta_pb2.Batch(batch=self.batch.batch, acked_below=self.batch.acked_below, ops=ops)
        return BatchJob(self._parts, self._grant, rest, set(), self.telling.listener)

    def committed(self, commit: int) -> None:
        self._parts.opens.take_back(self._grant.session_id, self._fresh)
        reply = meta_pb2.BatchReply(
            batch=self.batch.batch,
            commit=commit,
            results=self._results,
            leases=self.telling.granted,
            exclusive=self.telling.confirmed,
        )
        if not self.future.done():
            self.future.set_result(reply)

    def failed(self, error: FsError) -> None:
        self._parts.opens.take_back(self._grant.session_id, self._fresh)
        results = [failure(error)] * len(self.batch.ops)
        reply = meta_pb2.BatchReply(batch=self.batch.batch, results=results)
        if not self.future.done():
            self.future.set_result(reply)
