"""Where bytes lie: what a data daemon says of many files, and to whom."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from harness import datastore
from harness.datalocal import Client, run
from harness.datastore import HOST, Served, capability
from superfs.core import extents
from superfs.core.errors import Code
from superfs.core.tokens import Grant
from superfs.data.keys import FileKey
from superfs.v1.data_pb2 import Locate, LocateMany, Want

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_many_files_are_located_at_once(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        store = served.daemon.store
        data = {ino: os.urandom(10_000 * ino) for ino in (1, 2, 3)}
        for ino, whole in data.items():
            datastore.write(store, ino, 0, whole)
        datastore.write(store, 2, 100, b"over it")
        store.reap(FileKey(3, 1))
        asked = LocateMany(
            inos=struct.pack("<5Q", 2, 9, 3, 0, 1), generations=struct.pack("<5I", 1, 1, 1, 1, 1)
        )
        reply = await served.ask(capability=capability(HOST), locate_many=asked)
        located = reply.located_many
        not_said = extents.NOT_SAID
        assert struct.unpack("<5I", located.counts) == (3, 0, not_said, not_said, 1)
        counts = memoryview(located.counts).cast("I")
        over, *_, first = extents.parse_many(counts, located.extents, located.crcs)
        assert [extent.offset for extent in over] == [0, 100, 107]
        peer = client()
        await peer.hello()
        await peer.ask(want=Want(segments=[first[0].segment]))
        assert os.pread(peer.descriptors[1], 10_000, first[0].place) == data[1]

    run(tmp_path, test)


def test_locate_is_not_for_users(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        own = Grant("user", "alice", uid=1000, session_id=9, epoch=1, inode=1)
        body = Locate(ino=1, data_generation=1, chunks=[0])
        for right in (own, Grant("host", "m", session_id=7, epoch=1, inode=1)):
            assert (await served.ask(own, capability=capability(right), locate=body)).code == (
                Code.FORBIDDEN
            )
        for count in (0, 65):
            body = Locate(ino=1, data_generation=1, chunks=range(count))
            reply = await served.ask(HOST, capability=capability(HOST), locate=body)
            assert reply.code == Code.INVALID
        many = LocateMany(inos=bytes(8), generations=bytes(4))
        assert (await served.ask(own, capability=capability(own), locate_many=many)).code == (
            Code.FORBIDDEN
        )
        for inos, generations in ((7, 4), (8, 8), (16, 4), (8 * 1025, 4 * 1025)):
            many = LocateMany(inos=bytes(inos), generations=bytes(generations))
            reply = await served.ask(HOST, capability=capability(HOST), locate_many=many)
            assert reply.code == Code.INVALID

    run(tmp_path, test)
