"""What a data daemon has of one client's numbers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from harness import datastore
from harness.datastore import HOST, Stub, serving
from superfs.core.errors import Code, FsError
from superfs.core.ids import RANGE_FILES_MAX, delegated_file_id
from superfs.v1.data_pb2 import DataListRequest, Reap, ReapItem, Write

if TYPE_CHECKING:
    from pathlib import Path


def piece(ino: int, chunk: int = 0) -> Write:
    return Write(ino=ino, data_generation=1, chunk=chunk, data=b"x")


def test_list_of_a_range(tmp_path: Path) -> None:
    """What a client has written under numbers of its own, above the last that became a file."""

    datastore.make(tmp_path / "d")

    async def run() -> None:
        async with serving(tmp_path / "d") as served:
            service = served.daemon.service
            mine = [delegated_file_id(slot, 5, counter) for slot, counter in
                    ((0, 4), (0, 5), (7, 9), (4095, RANGE_FILES_MAX))]  # fmt: skip
            others = [1, delegated_file_id(7, 4, 9), delegated_file_id(7, 6, 9)]
            for ino in (*mine, *others):
                await served.ask(write=piece(ino))
                await served.ask(write=piece(ino, chunk=3))
            for used, found in ((0, mine), (4, mine[1:]), (9, mine[3:])):
                request = DataListRequest(number_range=5, used=used)
                pages = [page async for page in service.ListData(request, Stub(HOST))]
                inos = b"".join(page.inos for page in pages)
                assert inos == b"".join(ino.to_bytes(8, "little") for ino in found)
            await served.ask(reap=Reap(items=[ReapItem(ino=mine[2], data_generation=1)]))
            request = DataListRequest(number_range=5, used=5)
            pages = [page async for page in service.ListData(request, Stub(HOST))]
            assert [page.inos for page in pages] == [mine[3].to_bytes(8, "little")]
            request = DataListRequest(number_range=1 << 31)
            with pytest.raises(FsError) as caught:
                _ = [page async for page in service.ListData(request, Stub(HOST))]
            assert caught.value.code is Code.BAD_REQUEST

    asyncio.run(run())
