"""The Meta service on gRPC: decodes, asks the node, encodes."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

from superfs.core.attrs import unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import FIRST_DATA_GENERATION
from superfs.meta import fsck, keys, records
from superfs.meta.keys import Table
from superfs.meta.sessionstream import SessionStream
from superfs.rpc.server import grant_of
from superfs.v1 import common_pb2, meta_pb2, meta_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from superfs.core.tokens import Grant
    from superfs.meta.node import MetaNode

LIST_ENTRIES = 8192


class MetaService(meta_pb2_grpc.MetaServicer):
    def __init__(self, node: MetaNode, state_dir: Path) -> None:
        self._node = node
        self._state_dir = state_dir

    async def Execute(
        self,
        request: meta_pb2.Batch,
        context: Any,  # noqa: ANN401
    ) -> meta_pb2.BatchReply:
        return await self._node.execute(grant_of(context), request)

    async def Session(
        self,
        requests: AsyncIterator[meta_pb2.SessionRequest],
        context: Any,  # noqa: ANN401
    ) -> None:
        grant = grant_of(context)
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("body") != "hello":
            raise FsError(Code.BAD_REQUEST, "a session stream begins with a hello")
        try:
            async with asyncio.TaskGroup() as group:
                stream = SessionStream(self._node, grant, context.write, group)
                try:
                    await stream.serve(first.hello, requests)
                finally:
                    self._node.lessor.hung_up(grant.session_id, stream)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def Check(
        self,
        request: meta_pb2.CheckRequest,
        context: Any,  # noqa: ANN401
    ) -> AsyncIterator[common_pb2.Finding]:
        _only_trusted(grant_of(context))
        await self._node.recall_all()
        try:
            async for finding in fsck.check_in_child(self._state_dir):
                yield finding
        finally:
            self._node.environment.forget_dead_readers()

    async def ListData(
        self,
        request: meta_pb2.ListDataRequest,
        context: Any,  # noqa: ANN401
    ) -> AsyncIterator[meta_pb2.DataList]:
        _only_trusted(grant_of(context))
        await self._node.recall_all()
        for table in (Table.INODE, Table.ORPHAN):
            start = b""
            while True:
                columns, start = self._list(table, start)
                if columns.inos:
                    yield columns
                if not start:
                    break
                await asyncio.sleep(0)
        for found in self._reserved():
            yield _columns(found)

    def _reserved(self) -> list[list[tuple[int, int, int]]]:
        """Numbers under which somebody may be writing a file that has no name yet, by runs."""
        with self._node.environment.reading() as rows:
            runs = [
                (keys.parse_id(key), records.unpack_run(record).first)
                for key, record in rows.scan(Table.RESERVED, b"")
            ]
        return [
            [(ino, FIRST_DATA_GENERATION, 0) for ino in range(first, last + 1)]
            for last, first in runs
        ]

    def _list(self, table: Table, start: bytes) -> tuple[meta_pb2.DataList, bytes]:
        """Up to some entries from `start`, and where to go on (b"": that was all)."""
        found: list[tuple[int, int, int]] = []
        after = b""
        with self._node.environment.reading() as rows:
            for seen, (key, record) in enumerate(rows.scan(table, start)):
                if seen == LIST_ENTRIES:
                    after = key
                    break
                attr = unpack_attr(record)
                if attr.data_generation and attr.chains:
                    found.append((attr.ino, attr.data_generation, attr.size))
        return _columns(found), after


def _columns(found: Sequence[tuple[int, int, int]]) -> meta_pb2.DataList:
    count = len(found)
    return meta_pb2.DataList(
        inos=struct.pack(f"<{count}Q", *(f[0] for f in found)),
        generations=struct.pack(f"<{count}I", *(f[1] for f in found)),
        sizes=struct.pack(f"<{count}Q", *(f[2] for f in found)),
    )


def _only_trusted(grant: Grant) -> None:
    if grant.kind == "user" and grant.uid != 0:
        raise FsError(Code.FORBIDDEN, "only for hosts, daemons and root")
