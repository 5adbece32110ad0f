"""How exclusive leases end: recalled, with the connection, with the session, by a refusal."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from superfs.client.delegation import state as limits
from superfs.core.errors import Code, FsError
from superfs.core.namespace.txn import Ref
from superfs.rpc.pending import Pending, run_sync
from superfs.v1 import meta_pb2
from unit.delegation_world import ROOT_REF, Client, Server

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from superfs.core.namespace.outcome import Outcome

FILE = stat.S_IFREG | 0o644


class Scene:
    """A client with a directory of its own."""

    def __init__(self) -> None:
        self.server = Server()
        self.client = Client(self.server)
        self.meta, self.state = self.client.meta, self.client.state
        attr = run_sync(self.meta.mkdir(ROOT_REF, b"mine", 0o755)).attr
        assert attr is not None
        self.mine = Ref(attr.ino, attr.generation, attr.ino)

    def create(self, name: bytes) -> Outcome:
        return run_sync(self.meta.create(self.mine, name, FILE), timeout_s=5)

    def recall(self, *, whole: bool = False) -> list[bool]:
        confirmed: list[bool] = []
        message = meta_pb2.Invalidate(number=1)
        message.recalls.add(lease=self.mine.ino, exclusive=not whole, whole=whole)
        self.client.shipping.recalled(message, lambda: confirmed.append(True))
        return confirmed

    def names(self) -> list[bytes]:
        return list(self.server.store.names.get(self.mine.ino, []))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_is_done_here_costs_no_message_until_it_is_shipped(scene: Scene) -> None:
    before = scene.server.messages
    for name in (b"a", b"b", b"c"):
        scene.create(name)
    assert scene.server.messages == before
    assert scene.names() == []
    run_sync(scene.meta.sync(), timeout_s=5)
    assert scene.server.messages == before + 1
    assert scene.names() == [b"a", b"b", b"c"]


def test_a_recall_is_confirmed_when_everything_is_shipped(scene: Scene) -> None:
    scene.create(b"a")
    scene.server.held = []
    confirmed = scene.recall()
    assert not confirmed
    scene.server.let_go()
    assert confirmed
    assert scene.names() == [b"a"]


def test_a_lease_that_is_recalled_whole_is_shipped_first_and_then_forgotten(scene: Scene) -> None:
    scene.create(b"a")
    scene.server.held = []
    confirmed = scene.recall(whole=True)
    assert not scene.client.holder.told
    scene.server.let_go()
    assert confirmed
    assert scene.client.holder.told[-1].recalls[0].whole


def test_after_a_recall_the_daemon_is_asked(scene: Scene) -> None:
    assert scene.recall()
    before = scene.server.messages
    scene.create(b"a")
    assert scene.server.messages == before + 1
    assert scene.names() == [b"a"]


def test_an_operation_elsewhere_comes_after_what_was_done_here(scene: Scene) -> None:
    scene.create(b"a")
    run_sync(scene.meta.create(ROOT_REF, b"elsewhere", FILE), timeout_s=5)
    assert scene.names() == [b"a"]


def test_a_question_about_it_comes_after_what_was_done_here(scene: Scene) -> None:
    scene.create(b"a")
    outcome = run_sync(scene.meta.read_dir(scene.mine), timeout_s=5)
    assert [entry.name for entry in outcome.entries] == [b"a"]


def test_nothing_is_done_here_when_the_lease_may_have_ended(scene: Scene) -> None:
    scene.client.clock += 20
    before = scene.server.messages
    scene.create(b"a")
    assert scene.server.messages == before + 1


def test_after_a_broken_connection_the_log_is_shipped_and_everything_begins_anew(
    scene: Scene,
) -> None:
    scene.create(b"a")
    scene.client.shipping.broken()
    scene.server.held = []
    scene.client.hello()
    settled = scene.client.settled
    assert scene.names() == []
    scene.server.let_go()
    assert scene.client.settled == settled + 1
    assert scene.names() == [b"a"]
    before = scene.server.messages
    scene.create(b"b")
    assert scene.server.messages == before + 1, "it is not ours any more"


@pytest.mark.allow_log("lost: ")
def test_what_was_done_under_a_session_that_has_expired_is_lost_and_said(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.create(b"first")
    scene.create(b"second")
    scene.client.shipping.broken()
    scene.client.hello(session=2)
    assert scene.names() == []
    assert scene.state.losses.files == 2
    assert "b'first'" in caplog.text
    assert "b'second'" in caplog.text
    assert scene.mine.ino in {r.lease for m in scene.client.holder.told for r in m.recalls}


@pytest.mark.allow_log("lost: ")
@pytest.mark.parametrize("code", [Code.LOG_REFUSED, Code.NO_SPACE])
def test_a_refused_log_is_lost_with_all_that_comes_after_it(
    scene: Scene, caplog: pytest.LogCaptureFixture, code: Code
) -> None:
    made = scene.create(b"first").attr
    with scene.state.lock:
        scene.state.seal()
    scene.create(b"second")
    scene.server.refuses = code
    with pytest.raises(FsError) as caught:
        run_sync(scene.meta.sync(), timeout_s=5)
    assert caught.value.code is Code.IO, "who waits for it is told"
    assert made is not None
    assert made.ino in scene.client.holder.gone
    scene.server.refuses = None
    assert scene.state.losses.files == 2
    assert scene.server.buried == (1 if code is Code.LOG_REFUSED else 2)
    assert caplog.text.count("lost: file") == 2
    assert scene.names() == []
    assert not scene.state.exclusive
    assert scene.create(b"third").number == 1, "and life goes on"
    assert scene.names() == [b"third"]


def test_who_wants_more_than_the_log_takes_waits(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_ENTRIES", 3)
    scene.server.held = []
    for name in (b"a", b"b", b"c"):
        scene.create(name)
    coro: Coroutine[Any, Any, Outcome] = scene.meta.create(scene.mine, b"d", FILE)
    waits_for = coro.send(None)
    assert isinstance(waits_for, Pending)
    assert not waits_for.done
    scene.server.let_go()
    assert waits_for.done
    with pytest.raises(StopIteration):
        coro.send(None)


def test_a_directory_that_is_being_asked_about_is_left_alone(scene: Scene) -> None:
    scene.server.held = []
    listing = scene.meta.read_dir(scene.mine)
    listing.send(None)
    making = scene.meta.create(scene.mine, b"a", FILE)
    making.send(None)
    assert len(scene.server.held) == 2, "both are asked"
    scene.server.let_go()
    for coro in (listing, making):
        with pytest.raises(StopIteration):
            coro.send(None)


def test_numbers_are_never_used_twice(scene: Scene) -> None:
    first = scene.create(b"a").attr
    run_sync(scene.meta.unlink(scene.mine, b"a"), timeout_s=5)
    second = scene.create(b"a").attr
    assert first is not None
    assert second is not None
    assert first.ino != second.ino


def test_a_rule_that_refuses_leaves_nothing(scene: Scene) -> None:
    scene.create(b"a")
    with pytest.raises(FsError) as caught:
        scene.create(b"a")
    assert caught.value.code is Code.EXISTS
    run_sync(scene.meta.sync(), timeout_s=5)
    assert scene.names() == [b"a"]


def test_what_cannot_be_done_at_once_is_not_done(scene: Scene) -> None:
    scene.create(b"a")
    inside = run_sync(scene.meta.mkdir(scene.mine, b"d", 0o755)).attr
    assert inside is not None
    below = Ref(inside.ino, inside.generation, inside.ino)
    run_sync(scene.meta.create(below, b"x", FILE))
    before = scene.server.messages
    assert scene.meta.rename_here(scene.mine, b"d", scene.mine, b"e") is None
    assert scene.server.messages == before
    run_sync(scene.meta.rename(scene.mine, b"d", scene.mine, b"e"), timeout_s=5)
    assert scene.names() == [b"a", b"e"]
    assert list(scene.server.store.names[below.ino]) == [b"x"]


def test_what_was_done_in_a_directory_that_is_forgotten_is_still_shipped(scene: Scene) -> None:
    scene.create(b"a")
    with scene.state.lock:
        scene.state.forget([scene.mine.ino])
    run_sync(scene.meta.sync(), timeout_s=5)
    assert scene.names() == [b"a"]


def test_what_was_used_longest_ago_is_let_go_when_it_is_too_much(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENTRIES_MAX", 4)
    attr = run_sync(scene.meta.mkdir(ROOT_REF, b"other", 0o755)).attr
    assert attr is not None
    other = Ref(attr.ino, attr.generation, attr.ino)
    for name in (b"a", b"b", b"c"):
        scene.create(name)
    run_sync(scene.meta.sync(), timeout_s=5)
    for name in (b"a", b"b"):
        run_sync(scene.meta.create(other, name, FILE))
    run_sync(scene.meta.sync(), timeout_s=5)
    assert scene.mine.ino not in scene.state.exclusive
    assert other.ino in scene.state.exclusive
    before = scene.server.messages
    scene.create(b"d")
    assert scene.server.messages == before + 1, "it is asked again"


def test_a_directory_that_was_emptied_removed_and_made_again_in_one_part(scene: Scene) -> None:
    sub = run_sync(scene.meta.mkdir(scene.mine, b"sub", 0o755)).attr
    assert sub is not None
    into = Ref(sub.ino, sub.generation, sub.ino)
    run_sync(scene.meta.create(into, b"old", FILE))
    run_sync(scene.meta.sync(), timeout_s=5)
    run_sync(scene.meta.unlink(into, b"old"))
    run_sync(scene.meta.rmdir(scene.mine, b"sub"))
    again = run_sync(scene.meta.mkdir(scene.mine, b"sub", 0o755)).attr
    assert again is not None
    assert (again.ino, again.generation) != (sub.ino, sub.generation)
    run_sync(scene.meta.create(Ref(again.ino, again.generation, again.ino), b"new", FILE))
    run_sync(scene.meta.sync(), timeout_s=5)
    assert list(scene.server.store.names[again.ino]) == [b"new"]
