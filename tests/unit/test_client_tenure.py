"""What was written in a session that is over: decision 20."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.memclient import MemConnection, again, opened
from superfs.client.file import OpenInode
from superfs.core.errors import Code, FsError
from superfs.rpc.pending import run_sync

if TYPE_CHECKING:
    from superfs.client.connection import Connection
    from superfs.core.namespace.outcome import Outcome


@pytest.fixture
def world() -> MemConnection:
    return MemConnection()


@pytest.mark.parametrize("capability", [b"", b"of one inode"])
@pytest.mark.allow_log("written bytes are lost")
def test_bytes_outlive_the_session_of_a_host(world: MemConnection, capability: bytes) -> None:
    attr = run_sync(world.new_file())
    file = OpenInode(cast("Connection", world), attr, inline=b"", capability=capability)
    run_sync(file.write(0, b"x" * 10_000))
    world.data.lose.append(FsError(Code.SESSION_EXPIRED, "fenced"))
    if capability:
        with pytest.raises(FsError):
            run_sync(file.fsync())
        assert not file.is_dirty
    else:
        run_sync(file.fsync())
        assert world.slept == 1
        assert run_sync(again(world, file).read(0, 20_000)) == b"x" * 10_000


@pytest.mark.parametrize("size", [100, 10_000])
@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.allow_log("written bytes are lost")
def test_bytes_of_a_session_that_is_over(world: MemConnection, size: int, changed: bool) -> None:
    """Written before what others have written since; so they come only where nobody has."""
    file = opened(world)
    run_sync(file.write(0, b"a" * size))
    run_sync(file.flush())
    run_sync(file.write(0, b"z"))
    world.session = object()
    if changed:
        other = again(world, file)
        run_sync(other.write(0, b"b"))
        run_sync(other.flush())
        file.observe(run_sync(world.now(file.attr)))  # whoever sees it first
        with pytest.raises(FsError, match="others have changed the file"):
            run_sync(file.flush())
        assert file.losses == 1
        assert not file.is_dirty
    else:
        run_sync(file.flush())
    assert run_sync(again(world, file).read(0, 2)) == (b"ba" if changed else b"za")
    run_sync(file.write(1, b"y"))
    run_sync(file.flush())
    assert run_sync(file.read(0, 2)) == (b"by" if changed else b"zy")


def test_an_append_belongs_to_the_session_of_now(
    world: MemConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(world)
    run_sync(file.write(0, b"a" * 8000))
    run_sync(file.flush())
    world.session = object()
    bound: list[object] = []
    publish = world.meta.publish

    async def look(*args: Any, session: object, **options: Any) -> Outcome:  # noqa: ANN401
        bound.append(session)
        outcome: Outcome = await publish(*args, **options)
        return outcome

    monkeypatch.setattr(world.meta, "publish", look, raising=False)
    run_sync(file.append(b"b" * 1000))  # too much for the inline contents: spilled first
    run_sync(file.flush())
    assert bound == [world.session] * 2
