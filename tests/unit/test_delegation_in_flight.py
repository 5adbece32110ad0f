"""What is on its way to the daemon while directories are held, learned and let go of: no copy of
ours may be older than what was answered, or the next log is refused and what it made is lost."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from superfs.client.delegation import state as limits
from superfs.core.attrs import Attr, Set
from superfs.core.errors import Code, FsError
from superfs.core.namespace.txn import Ref
from superfs.rpc.pending import run_sync
from unit.delegation_world import ROOT_REF, WHO, Client, Server
from unit.test_delegation_ends import FILE, Scene

if TYPE_CHECKING:
    from collections.abc import Coroutine


@pytest.fixture
def scene() -> Scene:
    return Scene()


def ref(attr: Attr | None) -> Ref:
    assert attr is not None
    return Ref(attr.ino, attr.generation, attr.place)


def finish(coro: Coroutine[Any, Any, Any]) -> None:
    """One more step, which is the last."""
    with pytest.raises(StopIteration):
        coro.send(None)


class Foreign:
    """A directory with a file that somebody else has made, granted to this client."""

    def __init__(self) -> None:
        self.server = server = Server()
        self.client = Client(server)
        self.meta, self.state = self.client.meta, self.client.state
        self.dir = ref(server.store.do("mkdir", WHO, ROOT_REF, b"theirs", 0o755).attr)
        self.old = ref(server.store.do("create", WHO, ROOT_REF, b"f", FILE).attr)
        server.store.do("rename", WHO, ROOT_REF, b"f", self.dir, b"f")
        self.file = Ref(self.old.ino, self.old.generation, self.dir.ino)
        server.grant(self.dir.ino)

    def create(self, *names: bytes) -> None:
        for name in names:
            run_sync(self.meta.create(self.dir, name, FILE), timeout_s=5)

    def chmod(self, mode: int, *, old: bool = False) -> Coroutine[Any, Any, Any]:
        """`old`: by where it was before."""
        return self.meta.setattr(self.old if old else self.file, int(Set.MODE), mode=mode)

    @property
    def is_known(self) -> bool:
        return self.dir.ino in self.state.overlay.groups

    def mode(self) -> int:
        attr = self.server.store.get_inode(self.dir.ino, self.file.ino)
        assert attr is not None
        return stat.S_IMODE(attr.mode)


@pytest.fixture
def foreign() -> Foreign:
    return Foreign()


def test_a_directory_is_learned_after_some_changes(foreign: Foreign) -> None:
    foreign.create(b"a", b"b")
    assert foreign.is_known
    before = foreign.server.messages
    run_sync(foreign.chmod(0o600))
    assert foreign.server.messages == before
    run_sync(foreign.meta.sync(), timeout_s=5)
    assert foreign.mode() == 0o600


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("gives_up", [False, True])
def test_nothing_is_learned_that_is_being_changed(
    foreign: Foreign, *, gives_up: bool, old: bool
) -> None:
    server = foreign.server
    server.held, server.held_verbs = [], frozenset(["setattr"])
    changing = foreign.chmod(0o640, old=old)
    changing.send(None)
    if gives_up:
        changing.close()  # whoever asked was killed
    foreign.create(b"a", b"b")
    assert not foreign.is_known, "what was read of the file is from before"
    server.let_go()
    if not gives_up:
        finish(changing)
    foreign.create(b"c", b"d")
    assert foreign.is_known, "it is tried again"
    run_sync(foreign.chmod(0o644 | stat.S_ISUID))
    run_sync(foreign.meta.sync(), timeout_s=5)
    assert foreign.mode() == 0o644 | stat.S_ISUID


def test_nothing_is_learned_that_was_changed_while_it_was_read(foreign: Foreign) -> None:
    server = foreign.server
    foreign.create(b"a")
    server.held, server.held_verbs = [], frozenset(["read_dir"])
    second = foreign.meta.create(foreign.dir, b"b", FILE)
    second.send(None)  # it reads the directory first
    page, server.held = server.held[0], None
    run_sync(foreign.chmod(0o640))
    server.answer(page)
    finish(second)
    assert not foreign.is_known


def test_nothing_is_learned_that_was_recalled_meanwhile(foreign: Foreign) -> None:
    server = foreign.server
    foreign.create(b"a")
    server.held, server.held_verbs = [], frozenset(["read_dir"])
    second = foreign.meta.create(foreign.dir, b"b", FILE)
    second.send(None)
    with foreign.state.lock:
        foreign.state.spoil([foreign.dir.ino])
    server.grant(foreign.dir.ino)  # and back again
    server.let_go()
    finish(second)
    assert not foreign.is_known


def test_the_newest_answer_counts_not_the_last(scene: Scene) -> None:
    file = ref(scene.create(b"a").attr)
    run_sync(scene.meta.sync(), timeout_s=5)
    scene.server.held = []
    listing = scene.meta.read_dir(scene.mine)
    listing.send(None)  # so that both are asked
    first, second = (scene.meta.setattr(file, int(Set.MODE), mode=m) for m in (0o600, 0o640))
    first.send(None)
    second.send(None)
    scene.server.let_go()
    for coro in (second, first, listing):
        finish(coro)
    known = scene.state.overlay.groups[scene.mine.ino].inodes[file.ino]
    assert stat.S_IMODE(known.mode) == 0o640
    run_sync(scene.meta.publish(file, 0, writes=[(0, b"x")]))
    run_sync(scene.meta.sync(), timeout_s=5)
    assert scene.state.losses.files == 0


def test_what_a_reference_with_an_old_place_is_about_is_left_alone(scene: Scene) -> None:
    made = run_sync(scene.meta.create(ROOT_REF, b"a", FILE), timeout_s=5)
    old = ref(made.attr)
    run_sync(scene.meta.rename(ROOT_REF, b"a", scene.mine, b"a"), timeout_s=5)
    scene.server.grant(scene.mine.ino)
    for name in (b"b", b"c"):
        scene.create(name)
    now = Ref(old.ino, old.generation, scene.mine.ino)
    assert now.ino in scene.state.overlay.groups[scene.mine.ino].inodes
    run_sync(scene.meta.sync(), timeout_s=5)
    scene.server.held = []
    late = scene.meta.setattr(old, int(Set.MODE), mode=0o600)
    late.send(None)
    other = scene.meta.setattr(now, int(Set.UID), uid=7)
    other.send(None)
    assert len(scene.server.held) == 2, "it is not done here meanwhile"
    scene.server.let_go()
    finish(late)
    finish(other)
    known = scene.state.overlay.groups[scene.mine.ino].inodes[now.ino]
    assert (stat.S_IMODE(known.mode), known.uid) == (0o600, 7)


def test_a_new_mode_of_a_directory_is_about_where_its_name_is_too(scene: Scene) -> None:
    below = ref(run_sync(scene.meta.mkdir(scene.mine, b"d", 0o755)).attr)
    run_sync(scene.meta.sync(), timeout_s=5)
    run_sync(scene.meta.setattr(below, int(Set.MODE), mode=0o700))
    scene.server.held = []
    confirmed = scene.recall()
    assert not confirmed
    scene.server.let_go()
    assert confirmed


def test_a_mode_that_the_daemon_has_set_is_known_where_the_name_is(foreign: Foreign) -> None:
    below = ref(foreign.server.store.do("mkdir", WHO, foreign.dir, b"d", 0o755).attr)
    foreign.create(b"a", b"b")
    run_sync(foreign.meta.setattr(below, int(Set.MODE), mode=0o700), timeout_s=5)
    entry = foreign.state.overlay.groups[foreign.dir.ino].entries[b"d"]
    assert stat.S_IMODE(entry.mode) == 0o700


@pytest.mark.allow_log("lost: ")
def test_what_is_not_shipped_when_all_ends_is_said(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.create(b"a")
    scene.client.shipping.closed()
    assert scene.state.losses.files == 1
    assert "b'a'" in caplog.text


def test_nothing_is_said_when_everything_is_shipped(scene: Scene) -> None:
    scene.create(b"a")
    run_sync(scene.meta.sync(), timeout_s=5)
    scene.client.shipping.closed()
    assert scene.state.losses.files == 0


@pytest.mark.allow_log("lost: ")
@pytest.mark.parametrize("code", [Code.SESSION_EXPIRED, Code.LOG_REFUSED])
def test_the_end_of_a_session_that_is_told_late_is_not_about_the_next(
    scene: Scene, code: Code
) -> None:
    scene.create(b"old")
    scene.server.held = []
    with scene.state.lock:
        scene.state.seal()
        scene.client.shipping.kick()
    (sent,), scene.server.held = scene.server.held, None
    assert sent.bound is scene.client.session
    scene.client.shipping.broken()
    scene.client.hello(session=2)
    assert scene.state.losses.files == 1
    mine = ref(run_sync(scene.meta.mkdir(ROOT_REF, b"new", 0o755), timeout_s=5).attr)
    run_sync(scene.meta.create(mine, b"a", FILE))
    sent.pending.fail(FsError(code, "too late"))
    run_sync(scene.meta.sync(), timeout_s=5)
    assert list(scene.server.store.names[mine.ino]) == [b"a"]
    assert scene.state.losses.files == 1
    assert scene.server.buried == 0


def test_those_who_wait_share_a_timer(scene: Scene) -> None:
    scene.create(b"a")
    before = len(scene.client.background.timers)
    for number in range(20):
        scene.create(b"%d" % number)
        scene.server.held = []
        shipping = scene.meta.sync()
        shipping.send(None)
        scene.server.let_go()
        finish(shipping)
    assert len(scene.client.background.timers) <= before + 2


def test_a_directory_that_the_daemon_does_not_grant_is_not_ours(scene: Scene) -> None:
    scene.server.grants_logged = False
    below = ref(run_sync(scene.meta.mkdir(scene.mine, b"d", 0o755)).attr)
    run_sync(scene.meta.create(below, b"a", FILE))
    run_sync(scene.meta.sync(), timeout_s=5)
    assert below.ino not in scene.state.exclusive
    assert below.ino in {r.lease for m in scene.client.holder.told for r in m.recalls}
    assert scene.mine.ino in scene.state.exclusive
    before = scene.server.messages
    run_sync(scene.meta.create(below, b"b", FILE), timeout_s=5)
    assert scene.server.messages == before + 1


def test_what_is_let_go_of_stays_shared(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ENTRIES_MAX", 2)
    other = ref(run_sync(scene.meta.mkdir(ROOT_REF, b"other", 0o755)).attr)
    for name in (b"a", b"b", b"c"):
        scene.create(name)
    run_sync(scene.meta.create(other, b"a", FILE))
    run_sync(scene.meta.sync(), timeout_s=5)
    assert scene.mine.ino not in scene.server.exclusive
    assert scene.mine.ino not in scene.server.given_back
    assert not scene.state.leaving


def test_an_answer_from_before_it_was_let_go_of_grants_nothing(scene: Scene) -> None:
    scene.server.held = []
    listing = scene.meta.read_dir(scene.mine)
    listing.send(None)
    making = scene.meta.create(scene.mine, b"a", FILE)
    making.send(None)
    scene.meta.return_leases([scene.mine.ino])
    scene.client.shipping.granted([scene.mine.ino], 0)
    assert scene.mine.ino not in scene.state.exclusive
    scene.server.let_go()
    finish(listing)
    finish(making)
    scene.server.grant(scene.mine.ino)
    assert scene.mine.ino in scene.state.exclusive
