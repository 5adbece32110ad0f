"""One part of a log is on its way at a time; whoever asks meanwhile shares the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.errors import Code, FsError
from superfs.rpc.pending import run_sync
from unit.test_delegation_ends import FILE, Scene
from unit.test_delegation_in_flight import finish, ref

if TYPE_CHECKING:
    from collections.abc import Coroutine


@pytest.fixture
def scene() -> Scene:
    """The server does not answer logs."""
    scene = Scene()
    run_sync(scene.meta.sync(), timeout_s=5)
    scene.server.logs = 0
    scene.server.held, scene.server.held_verbs = [], frozenset(["log"])
    return scene


def begin_sync(scene: Scene) -> Coroutine[Any, Any, Any]:
    syncing = scene.meta.sync()
    syncing.send(None)
    return syncing


def test_who_syncs_while_a_log_is_under_way_shares_the_next_one(scene: Scene) -> None:
    syncing = []
    for number in range(8):
        scene.create(b"%d" % number)
        syncing.append(begin_sync(scene))
    assert scene.server.held is not None
    assert len(scene.server.held) == 1
    scene.server.let_go()
    for one in syncing:
        finish(one)
    assert scene.server.logs == 2
    assert sorted(scene.names()) == [b"%d" % number for number in range(8)]


def test_who_has_nothing_of_his_own_waits_for_what_is_under_way(scene: Scene) -> None:
    scene.create(b"a")
    first, second = begin_sync(scene), begin_sync(scene)
    scene.server.let_go()
    finish(first)
    finish(second)
    assert scene.server.logs == 1


def test_what_was_removed_before_its_turn_is_waited_for_by_nobody(scene: Scene) -> None:
    scene.create(b"a")
    first = begin_sync(scene)
    scene.create(b"b")
    second = begin_sync(scene)
    run_sync(scene.meta.unlink(scene.mine, b"b"), timeout_s=5)
    scene.server.let_go()
    finish(first)
    finish(second)
    assert scene.state.is_synced
    assert scene.names() == [b"a"]


@pytest.mark.allow_log("lost: ")
def test_all_who_share_a_part_that_is_refused_are_told(scene: Scene) -> None:
    scene.create(b"a")
    first = begin_sync(scene)
    scene.create(b"b")
    others = [begin_sync(scene), begin_sync(scene)]
    held, scene.server.held = scene.server.held, []
    assert held is not None
    scene.server.answer(held[0])
    finish(first)
    scene.server.refuses = Code.LOG_REFUSED
    scene.server.let_go()
    for one in others:
        with pytest.raises(FsError) as raised:
            one.send(None)
        assert raised.value.code is Code.IO
    assert scene.names() == [b"a"]


@pytest.mark.allow_log("lost: ")
def test_who_syncs_right_behind_a_loss_waits_until_all_have_heard_of_it(scene: Scene) -> None:
    """Whoever has a file open that is lost would be told that it is durable."""
    scene.client.holder.late = []
    scene.create(b"a")
    first = begin_sync(scene)
    scene.server.refuses = Code.LOG_REFUSED
    scene.server.let_go()
    later = begin_sync(scene)
    assert scene.state.is_synced
    assert not scene.meta.is_synced, "not that anybody may be told"
    for heard in scene.client.holder.late:
        heard()
    assert scene.meta.is_synced
    finish(later)
    with pytest.raises(FsError) as raised:
        first.send(None)
    assert raised.value.code is Code.IO


def test_what_is_not_granted_goes_back_when_all_that_was_done_there_is_shipped(
    scene: Scene,
) -> None:
    """Until then the daemon keeps it from others: what they changed would have it refused."""
    scene.server.grants_logged = False
    below = ref(run_sync(scene.meta.mkdir(scene.mine, b"d", 0o755)).attr)
    first = begin_sync(scene)
    run_sync(scene.meta.create(below, b"a", FILE))
    assert scene.server.held is not None
    scene.server.answer(scene.server.held.pop())
    finish(first)
    assert below.ino not in scene.state.exclusive
    assert len(scene.server.held) == 1
    assert below.ino not in scene.server.given_back
    scene.server.let_go()
    assert below.ino in scene.server.given_back
    assert not scene.state.leaving
    assert scene.state.losses.files == 0


def test_who_waits_for_several_parts_waits_as_long_as_something_is_shipped(scene: Scene) -> None:
    """A data daemon that is away again and again lets one part through each time."""
    client, held = scene.client, scene.server.held
    assert held is not None
    client.retry_timeout_s = 30.0

    def later(seconds: float) -> None:
        client.clock += seconds
        scene.state.extended(client.clock + 20)
        timers, client.background.timers = client.background.timers, []
        for ring in timers:
            ring()

    scene.create(b"a")
    first = begin_sync(scene)
    scene.create(b"b")
    last = scene.meta.sync()
    waits = last.send(None)
    later(20)
    scene.server.answer(held.pop())
    finish(first)
    assert waits.done
    waits = last.send(None)
    later(20)
    assert not waits.done
    later(11)
    assert waits.done
    with pytest.raises(FsError, match=r"nothing .* is shipped in 30"):
        last.send(None)
    scene.server.let_go()
