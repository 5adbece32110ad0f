"""Saves past the mount that the path is on: the same checkpoints; who may not goes through it."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from harness.disks import small_disk
from harness.mount import Mount, fsck
from harness.ranks import RankFailed
from harness.waiting import wait_until
from superfs.checkpoint import direct, directory
from superfs.client import ClientConfig, mounted, windows
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.ranks import Ranks
    from superfs.checkpoint.extentio import Sink

MIB = 1 << 20
pytestmark = [pytest.mark.fuse, pytest.mark.slow]
PAUSES = ["connect", "grace", "unavailable", "lost", "reconnect", "again", "epoch", "renew"]
SIZE = 6_000_001


@pytest.fixture
def own() -> Iterator[Mount]:
    settings: dict[str, Any] = {"datad": {"store": {"segment_bytes": 16 * MIB}}}
    with Cluster(settings=settings) as cluster, Mount(cluster) as mount:
        yield mount
        fsck(cluster)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_bytes_go_past_the_mount(ranks: Ranks, place: Path, asynchronous: bool) -> None:
    path = place / "a name" / "c"
    told = ranks.run("ckptdirect:save", 2, str(path), SIZE, 1.0, asynchronous)
    assert told == [("direct", "")] * 2
    again = ranks.run("ckptdirect:save", 2, f"{path}2", SIZE, 1.0, asynchronous, io="mount")
    assert again == [("mount", 'io="mount"')] * 2
    names = sorted(file.name for file in path.glob("*.data"))
    for name in names:
        assert (path / name).read_bytes() == (path.with_name("c2") / name).read_bytes()
        one, other = (path / name).stat(), (path.with_name("c2") / name).stat()
        assert (one.st_uid, one.st_gid, one.st_mode) == (other.st_uid, other.st_gid, other.st_mode)


def test_a_state_that_does_not_fit_the_arena(ranks: Ranks, place: Path) -> None:
    told = ranks.run("ckptdirect:save", 2, str(place / "c"), SIZE, 2.0, True, arena_bytes=9 * MIB)
    assert told == [("direct", "")] * 2


def test_a_directory_that_is_on_no_mount(ranks: Ranks, tmp_path: Path) -> None:
    assert ranks.run("ckptdirect:save", 1, str(tmp_path / "c"), 1000, 0.0, False) == [("file", "")]
    with pytest.raises(RankFailed, match="is on no SuperFS mount"):
        ranks.run("ckptdirect:save", 2, str(tmp_path / "d"), 1000, 0.0, False, io="direct")
    assert [path.name for path in directory.committed(tmp_path)] == ["c"]
    assert directory.attempts(tmp_path) == []


def test_below_a_subdirectory_and_a_link(ranks: Ranks, own: Mount, tmp_path: Path) -> None:
    (own.point / "top" / "runs").mkdir(parents=True)
    settings = {"mount": {"subdir": "/top"}}
    with Mount(own.cluster, "below", settings=settings) as below:
        (tmp_path / "link").symlink_to(below.point / "runs")
        told = ranks.run("ckptdirect:save", 2, str(tmp_path / "link" / "c"), SIZE, 1.0, False)
        assert told == [("direct", "")] * 2
    assert directory.committed(own.point / "top" / "runs") == [own.point / "top" / "runs" / "c"]


# ---- who goes through the mount ------------------------------------------------------------------


def opened(path: Path, io: str = "auto") -> Sink:
    return directory.open_sink(path, io=io, new=True, durable=False, size=0)


@pytest.mark.allow_log("written through the mount")
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("another user's", "be root or the user who mounted it"),
        ("no token", "cannot be read here"),
        ("of another device", "be root or the user who mounted it"),
        ("no daemons", "UNAUTHENTICATED|cannot|connect|Permission|Input"),
        ("another file", "another file past the mount"),
        ("bound", "bound from within a mount"),
    ],
)
def test_what_cannot_be_reached(
    place: Path, how: str, says: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(direct, "_told", set())
    found = mounted.mount_of(place)
    assert found is not None
    real = mounted.behind(found)
    if how == "another user's":
        monkeypatch.setattr(windows, "directory_of", lambda _: tmp_path)
    elif how == "bound":
        away = mounted.Mounted(found.path, found.kind, found.source, found.device, "/below")
        monkeypatch.setattr(direct, "mount_of", lambda _: away)
    elif how == "another file":
        other = place / "other"
        other.mkdir()
        for name in "fg":
            (other / name).touch()
        wrong = mounted.Behind(place, real.device, real.path_of(other), real.config)
        monkeypatch.setattr(direct, "behind", lambda _: wrong)
    else:
        token = tmp_path / "token"
        if how == "no daemons":
            shutil.copy(real.config.token_file, token)
        gone = ClientConfig((f"unix:{tmp_path}/none",), token, retry_timeout_s=0.2)
        if how == "no daemons":
            wrong = mounted.Behind(real.mountpoint, real.device, real.subdir, gone)
            monkeypatch.setattr(direct, "behind", lambda _: wrong)
        else:
            device = f"{os.major(found.device)}:{os.minor(found.device)}"
            if how == "of another device":  # a mount of another namespace, at the same path
                device = "0:1"
            said = {"mountpoint": str(found.path), "device": device, "token_file": str(token)}
            said["subdir"] = "/"
            monkeypatch.setattr(mounted, "_answers", lambda _: [(tmp_path, said)])
    with caplog.at_level(logging.WARNING, "superfs.checkpoint"):
        sink = opened(place / "f")
    assert sink.way.name == "mount"
    assert caplog.text.count("written through the mount") == 1
    sink.pwrite([memoryview(b"bytes")], 0)
    sink.close()
    assert (place / "f").read_bytes() == b"bytes"
    with pytest.raises(FsError, match=says) as caught:
        opened(place / "g", "direct")
    assert caught.value.code is Code.NOT_SUPPORTED
    caplog.clear()


def test_who_may_not_write_there_may_not_past_the_mount(place: Path) -> None:
    """The kernel is asked, as of any file."""
    (place / "mine").mkdir(mode=0o755)
    readable = place / "f"
    readable.touch(0o444)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
            for path, new in ((place / "mine" / "f", True), (readable, False)):
                try:
                    directory.open_sink(path, io="auto", new=new, durable=False, size=0)
                except PermissionError:
                    continue
                os._exit(2)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


# ---- what fails ----------------------------------------------------------------------------------


@pytest.mark.allow_log(*PAUSES)
@pytest.mark.parametrize("victim", ["datad-2", "metad-1"])
def test_daemons_that_die_under_saves(
    ranks: Ranks, own: Mount, tmp_path: Path, victim: str
) -> None:
    """All saves are committed, and all load."""
    cluster, stop = own.cluster, tmp_path / "stop"
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(
            ranks.run("ckptdirect:save_until", 2, str(own.point), SIZE, str(stop))
        )
    )
    thread.start()
    try:
        for turn in range(3):
            goal = len(directory.committed(own.point)) + 1
            committed = functools.partial(_are_committed, own.point, goal)
            wait_until(committed, "a save is committed", timeout_s=60)
            cluster.daemons[victim].kill() if turn else cluster.daemons[victim].stop()
            cluster.start([victim])
    finally:
        stop.touch()
        thread.join()
    assert found
    assert all(name == "direct" for ways in found[0] for name, _ in ways)
    assert directory.attempts(own.point) == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_data_daemon_that_is_full(ranks: Ranks, tmp_path: Path, asynchronous: bool) -> None:
    """The error says what, where and what to do; what was committed loads; with room it goes on."""
    store = {"segment_bytes": 8 * MIB, "reserve_bytes": 8 * MIB, "index_bytes": 8 * MIB,
             "index_reserve_bytes": MIB}  # fmt: skip
    settings = {"datad": {"store": store, "compaction": {"quiet_s": 0}}}
    size = 5_000_000  # of float32
    with (
        small_disk(tmp_path / "disk", 144) as disk,
        Cluster(settings=settings, state_dirs={"datad-2": disk / "state"}) as cluster,
        Mount(cluster) as mount,
    ):
        job = "ckptfaults:save_until_full"
        numbers = set()
        for number, text in ranks.run(job, 2, str(mount.point), size, asynchronous):
            assert "No space left on the file system" in text
            assert "superfs ckpt gc" in text
            numbers.add(number)
        (number,) = numbers
        assert 3 <= number <= 6
        saved = directory.committed(mount.point)
        assert [path.name for path in saved] == [f"step-{n:02}" for n in range(number)]
        assert directory.attempts(mount.point) == []
        assert ranks.run("load_step", 2, str(saved[-1]), size) == [number - 1] * 2
        for path in saved[:-1]:
            shutil.rmtree(path)
        wait_until(lambda: _free(disk) > 64 * MIB, "there is room again", timeout_s=60)
        told = ranks.run("ckptdirect:save", 2, str(mount.point / "again"), 2_000_000, 1.0, False)
        assert told == [("direct", "")] * 2
        fsck(cluster)


def _are_committed(root: Path, count: int) -> bool:
    return len(directory.committed(root)) >= count


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def test_a_killed_rank_leaves_what_was_committed(ranks: Ranks, place: Path) -> None:
    for step in ("piece-written", "after-sync"):
        with pytest.raises(RankFailed):
            ranks.run("ckptfaults:save_and_die", 2, str(place / step), step, 1, False)
        [newest] = directory.committed(place / step)
        assert ranks.run("load_step", 2, str(newest)) == [0, 0]
