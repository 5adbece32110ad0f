"""Files with several names, and files that move to another directory, under exclusive leases."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from superfs.client.delegation import state as limits
from superfs.core.attrs import Set
from superfs.core.errors import Code, FsError
from superfs.rpc.pending import run_sync
from superfs.v1 import meta_pb2
from unit.delegation_world import ROOT_REF
from unit.test_delegation_ends import FILE, Scene
from unit.test_delegation_in_flight import ref

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Ref


class Two(Scene):
    """Two directories of its own, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.other = ref(run_sync(self.meta.mkdir(ROOT_REF, b"other", 0o755)).attr)
        self.not_ours = ref(run_sync(self.meta.mkdir(ROOT_REF, b"not ours", 0o755)).attr)
        self.take(self.not_ours)

    def take(self, *files: Ref) -> None:
        """Somebody else wants these."""
        for file in files:
            message = meta_pb2.Invalidate(number=1)
            message.recalls.add(lease=file.ino, exclusive=True)
            confirmed = threading.Event()
            self.client.shipping.recalled(message, confirmed.set)
            assert confirmed.is_set()

    def file(self, name: bytes = b"f") -> Ref:
        return ref(self.create(name).attr)

    def link(self, file: Ref, directory: Ref, name: bytes) -> Ref:
        return ref(run_sync(self.meta.link(file, directory, name), timeout_s=5).attr)

    def sync(self) -> None:
        run_sync(self.meta.sync(), timeout_s=5)

    def nlink(self, file: Ref) -> int:
        attr = self.server.store.get_inode(file.ino, file.ino)
        return 0 if attr is None else attr.nlink


@pytest.fixture
def two() -> Two:
    return Two()


def test_a_second_name_costs_no_message_and_one_of_them_goes_without_one(two: Two) -> None:
    before = two.server.messages
    file = two.link(two.file(), two.other, b"g")
    run_sync(two.meta.unlink(two.mine, b"f"))
    assert two.server.messages == before
    two.sync()
    assert two.server.messages == before + 1
    assert two.names() == []
    assert two.nlink(file) == 1


def test_what_git_does_with_an_object(two: Two) -> None:
    """A file is synced, gets its name by a link, and loses the one it was made under."""
    before = two.server.messages
    for name in (b"1", b"2", b"3"):
        made = ref(run_sync(two.meta.create(two.mine, b"tmp", FILE, inline=name)).attr)
        two.sync()
        two.link(made, two.mine, name)
        run_sync(two.meta.unlink(two.mine, b"tmp"))
    two.sync()
    assert two.server.messages == before + 4
    assert two.names() == [b"1", b"2", b"3"]
    entry = two.server.store.get_dentry(two.mine.ino, b"2")
    assert entry is not None
    assert two.server.store.get_inline(entry.ino, entry.ino) == b"2"


def test_names_of_what_is_held_are_found_without_a_message(two: Two) -> None:
    file = two.link(two.file(), two.other, b"g")
    single = two.file(b"single")
    before = two.server.messages
    for directory, name, ino in (
        (two.mine, b"f", file.ino), (two.other, b"g", file.ino),
        (two.mine, b"single", single.ino), (two.mine, b"none", 0),
    ):  # fmt: skip
        attr = run_sync(two.meta.find_name(directory, name)).attr
        assert (attr.ino if attr is not None else 0) == ino
    assert two.server.messages == before
    two.take(two.other)
    assert run_sync(two.meta.find_name(two.other, b"none"), timeout_s=5).attr is None
    assert two.server.messages > before


def test_a_file_moves_to_another_directory_without_a_message(two: Two) -> None:
    before = two.server.messages
    made = ref(run_sync(two.meta.create(two.mine, b"tmp", FILE, inline=b"mail")).attr)
    run_sync(two.meta.rename(two.mine, b"tmp", two.other, b"new"))
    assert two.server.messages == before
    two.sync()
    assert two.server.store.get_inline(two.other.ino, made.ino) == b"mail"
    assert two.names() == []


def test_what_is_asked_by_an_old_place_is_about_where_it_is_now(two: Two) -> None:
    moved, linked = two.file(b"moved"), two.file(b"linked")
    run_sync(two.meta.rename(two.mine, b"moved", two.other, b"moved"))
    two.link(linked, two.other, b"linked")
    for old in (moved, linked):
        run_sync(two.meta.setattr(old, int(Set.MODE), mode=0o640), timeout_s=5)
        found = run_sync(two.meta.getattr(old), timeout_s=5).attr
        assert found is not None
        assert found.mode & 0o777 == 0o640
    two.sync()
    assert two.state.losses.files == 0


@pytest.mark.parametrize("verb", ["link", "rename"])
def test_a_file_whose_contents_are_not_sent_is_told_first(two: Two, verb: str) -> None:
    file = two.file()
    two.meta.kept(file.ino, 10_000)
    before = two.server.logs
    if verb == "link":
        two.link(file, two.other, b"g")
    else:
        run_sync(two.meta.rename(two.mine, b"f", two.other, b"g"), timeout_s=5)
    assert two.server.logs == before + 1


def test_links_are_counted_in_directories_that_are_not_held(two: Two) -> None:
    file = two.link(two.file(), two.not_ours, b"theirs")
    file = two.link(file, two.mine, b"second")
    two.take(file)
    assert two.nlink(file) == 3
    run_sync(two.meta.unlink(two.mine, b"second"), timeout_s=5)
    assert two.nlink(file) == 2


def test_a_name_elsewhere_shows_what_was_done_by_another_name(two: Two) -> None:
    file = two.link(two.file(), two.other, b"g")
    two.sync()
    two.take(two.other)
    run_sync(two.meta.unlink(two.mine, b"f"))
    found = run_sync(two.meta.lookup(two.other, b"g"), timeout_s=5)
    assert found.attr is not None
    assert (found.attr.ino, found.attr.nlink) == (file.ino, 1)


def test_what_a_daemon_did_by_another_name_is_not_forgotten(two: Two) -> None:
    file = two.link(two.file(), two.other, b"g")
    two.sync()
    two.take(two.other)
    run_sync(two.meta.unlink(two.other, b"g"), timeout_s=5)  # by the daemon
    two.link(file, two.mine, b"h")
    two.sync()
    assert two.nlink(file) == 2
    assert two.state.losses.files == 0


def test_nothing_is_done_to_one_while_a_daemon_may_take_away_a_name(two: Two) -> None:
    file = two.link(two.file(), two.other, b"g")
    two.sync()
    two.take(two.other)
    two.server.held, two.server.held_verbs = [], frozenset(["unlink"])
    unlinking = two.meta.unlink(two.other, b"g")
    unlinking.send(None)
    two.link(file, two.mine, b"h")  # asked, too, and answered first
    two.server.let_go()
    with pytest.raises(StopIteration):
        unlinking.send(None)
    two.sync()
    assert two.nlink(file) == 2
    assert two.state.losses.files == 0


def test_a_move_by_the_daemon_leaves_what_is_held_known(two: Two) -> None:
    two.file(b"a")
    two.file(b"b")
    run_sync(two.meta.rename(two.mine, b"a", two.not_ours, b"a"), timeout_s=5)
    known = two.state.overlay.groups[two.mine.ino]
    assert list(known.entries) == [b"b"]
    assert len(known.inodes) == 1
    before = two.server.messages
    two.file(b"a")
    assert two.server.messages == before


def test_a_link_by_the_daemon_leaves_what_is_held_known(two: Two) -> None:
    file = two.file(b"a")
    two.link(file, two.not_ours, b"a")
    assert file.ino not in two.state.overlay.groups[two.mine.ino].inodes
    run_sync(two.meta.unlink(two.mine, b"a"), timeout_s=5)  # which the daemon has to do
    two.file(b"a")
    two.sync()
    assert two.names() == [b"a"]
    assert two.nlink(file) == 1


def known(two: Two) -> dict[int, set[bytes]]:
    groups = two.state.overlay.groups
    return {d.ino: set(groups[d.ino].entries) for d in (two.mine, two.other) if d.ino in groups}


def test_a_move_of_one_of_several_names_leaves_what_is_held_known(two: Two) -> None:
    """Asked for, because the file is not held. Were the directories forgotten, and learned again,
    with each such file, a client that has once been without its leases would ask for ever."""
    file = two.link(two.file(b"a"), two.other, b"b")
    two.file(b"replaced")
    two.sync()
    two.take(file)
    for old_dir, old, new_dir, new in (
        (two.other, b"b", two.mine, b"c"),
        (two.mine, b"c", two.mine, b"replaced"),
        (two.mine, b"replaced", two.other, b"b"),
    ):
        run_sync(two.meta.rename(old_dir, old, new_dir, new), timeout_s=5)
    assert known(two) == {two.mine.ino: {b"a"}, two.other.ino: {b"b"}}
    assert len(two.state.overlay.groups[two.mine.ino].inodes) == 0
    messages = two.server.messages
    two.file(b"d")
    run_sync(two.meta.rename(two.mine, b"d", two.other, b"d"), timeout_s=5)
    assert two.server.messages == messages
    two.sync()
    assert two.state.losses.files == 0


def test_a_rename_of_one_name_to_another_of_the_same_file_is_nothing(two: Two) -> None:
    file = two.link(two.file(b"a"), two.other, b"b")
    two.sync()
    two.take(file)
    run_sync(two.meta.rename(two.mine, b"a", two.other, b"b"), timeout_s=5)
    assert known(two) == {two.mine.ino: {b"a"}, two.other.ino: {b"b"}}
    assert two.names() == [b"a"]
    # To a directory that is not known nobody can tell.
    two.link(file, two.not_ours, b"c")
    run_sync(two.meta.rename(two.mine, b"a", two.not_ours, b"c"), timeout_s=5)
    assert known(two) == {two.other.ino: {b"b"}}
    assert two.names() == [b"a"]


def test_after_a_moment_without_leases_all_is_done_here_again(two: Two) -> None:
    """As a server that makes its files by another name and moves them."""
    for name in (b"1", b"2", b"3"):
        two.file(name)
    two.sync()

    def publish(name: bytes) -> int:
        before = two.server.messages
        file = ref(run_sync(two.meta.find_name(two.mine, name), timeout_s=5).attr)
        two.link(file, two.other, name)
        two.state.extended(two.client.clock + 20)
        run_sync(two.meta.rename(two.other, name, two.mine, b"of " + name), timeout_s=5)
        run_sync(two.meta.unlink(two.mine, name), timeout_s=5)
        run_sync(two.meta.rename(two.mine, b"of " + name, two.other, name), timeout_s=5)
        return two.server.messages - before

    assert publish(b"1") == 0
    two.client.clock += 30
    assert publish(b"2") > 0
    assert publish(b"3") == 0


def test_one_that_was_not_granted_is_nobodys(two: Two) -> None:
    two.server.grants_logged = False
    file = two.link(two.file(), two.other, b"g")
    two.sync()
    assert file.ino not in two.state.exclusive
    assert file.ino in two.server.given_back
    assert file.ino not in two.state.overlay.linked


def test_the_last_name_ends_what_is_held(two: Two) -> None:
    file = two.link(two.file(), two.other, b"g")
    two.sync()
    run_sync(two.meta.unlink(two.mine, b"f"))
    run_sync(two.meta.rename(two.other, b"g", two.mine, b"g"))
    run_sync(two.meta.unlink(two.mine, b"g"))
    assert file.ino not in two.state.exclusive
    two.sync()
    assert two.nlink(file) == 0
    assert two.server.store.findings() == []


def test_too_many_are_let_go_of(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINKED_MAX", 2)
    files = [two.link(two.file(b"%d" % n), two.other, b"%d" % n) for n in range(4)]
    two.sync()
    assert not two.state.overlay.linked
    assert not {file.ino for file in files} & two.state.exclusive
    run_sync(two.meta.unlink(two.mine, b"0"), timeout_s=5)
    assert two.nlink(files[0]) == 1


@pytest.mark.allow_log("lost: ")
def test_a_refused_log_forgets_them(two: Two) -> None:
    file = two.link(two.file(), two.other, b"g")
    two.server.refuses = Code.LOG_REFUSED
    with pytest.raises(FsError):
        two.sync()
    assert file.ino not in two.state.overlay.linked
    assert file.ino not in two.state.exclusive
    two.server.refuses = None
    with pytest.raises(FsError) as error:
        two.link(file, two.mine, b"h")
    assert error.value.code is Code.STALE


def test_a_directory_that_is_held_has_changed_when_it_was_moved(two: Two) -> None:
    below = ref(run_sync(two.meta.mkdir(two.mine, b"d", 0o755)).attr)
    two.sync()
    moved = run_sync(two.meta.rename(two.mine, b"d", two.not_ours, b"d"), timeout_s=5).attr
    before = two.server.messages
    found = run_sync(two.meta.getattr(below)).attr
    assert two.server.messages == before, "it is still held"
    assert moved is not None
    assert found is not None
    assert (found.ctime_ns, found.change) == (moved.ctime_ns, moved.change)
