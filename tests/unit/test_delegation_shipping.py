"""One part of a log is on its way at a time; whoever asks meanwhile shares the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.errors import Code, FsError
from superfs.rpc.pending import run_sync
from unit.test_delegation_ends import Scene
from unit.test_delegation_in_flight import finish

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
