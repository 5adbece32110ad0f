"""One open file at random against an array of bytes, across inline, spill and truncation, with
lost races and a second client in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harness.memclient import MemConnection
from superfs.client.file import OpenInode
from superfs.core.errors import Code, FsError
from superfs.core.limits import INLINE_BYTES_MAX
from superfs.rpc.pending import run_sync

if TYPE_CHECKING:
    from superfs.client.connection import Connection

EDGES = [0, 1, 100, INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 9000]
offsets = st.one_of(st.sampled_from(EDGES), st.integers(0, 12_000))
lengths = st.one_of(st.sampled_from([1, 100, INLINE_BYTES_MAX, 5000]), st.integers(1, 6000))
fills = st.integers(1, 255)


class FileMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.world = MemConnection()
        connection = cast("Connection", self.world)
        attr = run_sync(self.world.new_file())
        self.file = OpenInode(connection, attr, inline=b"")
        self.other = OpenInode(connection, attr)
        self.model = bytearray()

    def put(self, offset: int, data: bytes) -> None:
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + len(data)] = data

    @rule(offset=offsets, length=lengths, fill=fills)
    def write(self, offset: int, length: int, fill: int) -> None:
        data = bytes([fill]) * length
        assert run_sync(self.file.write(offset, data)) == length
        self.put(offset, data)

    @rule(length=lengths, fill=fills)
    def append(self, length: int, fill: int) -> None:
        data = bytes([fill]) * length
        assert run_sync(self.file.append_at(data)) == len(self.model)
        self.put(len(self.model), data)

    @rule(size=offsets)
    def truncate(self, size: int) -> None:
        run_sync(self.file.truncate(size))
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    @rule(offset=offsets, length=lengths)
    def read(self, offset: int, length: int) -> None:
        wanted = bytes(self.model[offset : offset + length])
        assert run_sync(self.file.read(offset, length)) == wanted

    @rule()
    def read_in_sequence(self) -> None:
        got = b""
        while part := run_sync(self.file.read(len(got), 1500)):
            got += part
        assert got == bytes(self.model)

    @rule()
    def flush(self) -> None:
        run_sync(self.file.flush())
        assert not self.file.is_dirty
        self.server_agrees()

    @rule()
    def fsync(self) -> None:
        run_sync(self.file.fsync())
        self.server_agrees()

    @rule(verb=st.sampled_from(["publish", "append"]), times=st.integers(1, 1))
    def busy(self, verb: str, times: int) -> None:
        """The next one finds a truncation being finished."""
        self.world.meta.fail[verb] = FsError(Code.BUSY)

    @rule(offset=offsets, length=lengths, fill=fills)
    def other_client_writes(self, offset: int, length: int, fill: int) -> None:
        """Close-to-open: what is flushed here is seen there, and the other way round."""
        run_sync(self.file.flush())
        run_sync(self.other.refresh())
        data = bytes([fill]) * length
        run_sync(self.other.write(offset, data))
        run_sync(self.other.flush())
        run_sync(self.file.refresh())
        self.put(offset, data)

    @rule()
    def other_client_truncates_to_nothing(self) -> None:
        """What is not flushed here survives: it is written again under the new generation."""
        run_sync(self.file.flush())
        run_sync(self.other.truncate(0))
        self.model.clear()
        run_sync(self.file.refresh())

    @rule(offset=offsets, length=lengths, fill=fills)
    def dirty_here_while_the_other_truncates(self, offset: int, length: int, fill: int) -> None:
        run_sync(self.file.flush())
        data = bytes([fill]) * length
        run_sync(self.file.write(offset, data))
        run_sync(self.other.truncate(0))
        self.model.clear()
        self.put(offset, data)
        run_sync(self.file.flush())

    @precondition(lambda self: not self.world.meta.fail)
    @rule()
    def no_data_is_left_behind(self) -> None:
        """At most the generation in use; a lost one has been reaped."""
        run_sync(self.file.flush())
        attr = run_sync(self.world.now(self.file.attr))
        store = self.world.meta.store
        live = {key for key in self.world.data.files if key not in store.reaped}
        assert live <= {(attr.ino, attr.data_generation)}

    def server_agrees(self) -> None:
        attr = run_sync(self.world.now(self.file.attr))
        assert attr.size == len(self.model)
        fresh = OpenInode(cast("Connection", self.world), attr)
        assert run_sync(fresh.read(0, len(self.model) + 10)) == bytes(self.model)

    @invariant()
    def size_is_right(self) -> None:
        assert self.file.size == len(self.model)
        assert self.file.attr.size == len(self.model)


TestFile: Any = FileMachine.TestCase
TestFile.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
