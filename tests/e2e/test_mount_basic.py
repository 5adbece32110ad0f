"""What only a real mount shows: options, coherence of two mounts, the end of a mount."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon import BIN
from harness.mount import Mount
from harness.waiting import wait_until
from superfs.core.linux import is_since

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.cluster import Cluster

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture
def other(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A second mount of the shared cluster, beside the one of `place`."""
    name = f"beside-{request.node.name}"  # and so a log of its own
    with mounted(cluster, name, release_delay_s=0.2, metrics="127.0.0.1:0") as mount:
        yield mount
    mount.point.rmdir()


def mounted(cluster: Cluster, name: str, **options: Any) -> Mount:  # noqa: ANN401
    return Mount(cluster, name, settings={"mount": options})


def same_place(mount: Mount, place: Path) -> Path:
    return mount.point / place.name


def test_two_mounts_agree_within_the_timeout(place: Path, other: Mount) -> None:
    here, there = place, same_place(other, place)
    (here / "a").write_bytes(b"one")
    assert (there / "a").read_bytes() == b"one"
    (here / "a").write_bytes(b"another")
    wait_until(lambda: (there / "a").read_bytes() == b"another", "the new contents are seen")
    (here / "a").unlink()
    wait_until(lambda: not (there / "a").exists(), "the name is gone")
    os.mkdir(here / "d")
    os.rmdir(here / "d")
    os.mkdir(there / "d")
    (there / "d" / "x").touch()
    wait_until(lambda: os.listdir(here) == ["d"], "the directory is seen")
    wait_until(lambda: os.listdir(here / "d") == ["x"], "its number came back, its name stays")


def figure(mount: Mount, name: str) -> float:
    """One line of the mount's metrics."""
    line = mount.daemon.wait_for_log("metrics at http")
    address = json.loads(line)["event"].removeprefix("metrics at ")
    page = urllib.request.urlopen(address, timeout=10).read().decode()
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


def test_open_files_survive_the_unlink_of_another_mount(place: Path, other: Mount) -> None:
    file = place / "a"
    file.write_bytes(bytes(100_000))
    with (same_place(other, place) / "a").open("rb") as reader:
        assert reader.read(1) == b"\0"
        wait_until(lambda: figure(other, "superfs_mount_opens ") == 1, "the open is registered")
        file.unlink()
        assert len(reader.read()) == 99_999
    wait_until(lambda: figure(other, "superfs_mount_opens ") == 0, "the release is told")


def test_appends_of_two_mounts_do_not_overwrite(place: Path, other: Mount) -> None:
    paths = [place / "log", same_place(other, place) / "log"]
    paths[0].touch()

    def append(path: Path, letter: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for _ in range(50):
            os.write(fd, letter * 30 + b"\n")
        os.close(fd)

    wait_until(paths[1].exists, "the file is seen by both")
    threads = [
        threading.Thread(target=append, args=(path, letter))
        for path, letter in zip(paths, (b"a", b"b"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wait_until(lambda: paths[0].stat().st_size == 100 * 31, "all of it is seen")
    lines = paths[0].read_bytes().split(b"\n")[:-1]
    assert sorted(lines) == [b"a" * 30] * 50 + [b"b" * 30] * 50


def test_default_acl_replaces_the_umask(place: Path) -> None:
    subprocess.run(["setfacl", "-d", "-m", "u:1:rwx,m:rwx", place], check=True)
    old = os.umask(0o077)
    try:
        (place / "with").touch()
        os.mkdir(place / "directory")
    finally:
        os.umask(old)
    assert (place / "with").stat().st_mode & 0o777 == 0o666
    assert b"\x02\x00\x07\x00\x01\x00\x00\x00" in os.getxattr(
        place / "with", "system.posix_acl_access"
    )
    assert (place / "directory").stat().st_mode & 0o777 == 0o777


def test_read_only_and_subdir(place: Path, cluster: Cluster) -> None:
    (place / "sub").mkdir()
    (place / "sub" / "a").write_text("x")
    options = {"subdir": f"/{place.name}/sub", "read_only": True}
    with mounted(cluster, "sub", **options) as mount:
        assert os.listdir(mount.point) == ["a"]
        assert mount.point.stat().st_ino == 1
        assert os.path.samefile(mount.point / "..", mount.point.parent)
        with pytest.raises(OSError, match="Read-only") as error:
            (mount.point / "b").touch()
        assert error.value.errno == errno.EROFS
    mount.point.rmdir()


def test_long_timeouts_spare_questions(place: Path, cluster: Cluster) -> None:
    (place / "a").touch()
    options = {"metrics": "127.0.0.1:0", "attr_timeout_s": 60.0, "entry_timeout_s": 60.0}
    with mounted(cluster, "metered", **options) as mount:
        for _ in range(3):
            assert (same_place(mount, place) / "a").exists()
        assert figure(mount, 'superfs_mount_seconds_count{operation="lookup"}') == 2
    mount.point.rmdir()


@pytest.mark.parametrize(("mode", "looks"), [("w+b", 1), ("wb", 0)])
def test_a_write_costs_one_request_and_so_does_a_chown(
    place: Path, cluster: Cluster, mode: str, looks: int
) -> None:
    """The kernel looks for security.capability before the first write of a file only, for who only
    writes not at all, and at no attributes before it gives one away: this mount takes privileges
    away itself."""
    count = 'superfs_mount_seconds_count{{operation="{}"}}'.format
    with (
        mounted(cluster, f"privileges-{looks}", metrics="127.0.0.1:0") as mount,
        open(same_place(mount, place) / "a", mode, buffering=0) as file,
    ):
        for _ in range(5):
            file.write(b"x")
        assert figure(mount, count("write")) == 5
        assert figure(mount, count("getxattr")) == (looks if is_since((6, 6)) else 1)
        looked = figure(mount, count("getattr"))
        os.fchown(file.fileno(), 1, 1)
        assert figure(mount, count("setattr")) == 1
        assert figure(mount, count("getattr")) == looked
    mount.point.rmdir()


def test_sigterm_writes_everything(place: Path, cluster: Cluster) -> None:
    """Also with a file open and dirty: it is detached, and what was written is there."""
    mount = mounted(cluster, "ended").start()
    try:
        fd = os.open(same_place(mount, place) / "late", os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"written, not closed")
        mount.daemon.signal(signal.SIGTERM)
        assert mount.daemon.wait() == 0
        assert not os.path.ismount(mount.point)
        with pytest.raises(OSError, match=r"not connected|abort") as error:
            os.write(fd, b"too late")
        assert error.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.close(fd)
    finally:
        mount.close()
    wait_until(lambda: (place / "late").exists(), "the file is seen")
    assert (place / "late").read_bytes() == b"written, not closed"
    mount.point.rmdir()


def test_a_dead_mount_is_told_and_can_be_recovered(cluster: Cluster) -> None:
    mount = mounted(cluster, "dead").start()
    mount.daemon.kill()
    source = [str(BIN / "superfs-mount"), "--config", str(cluster.dir / "config/dead.toml")]
    done = subprocess.run([*source, mount.point], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "dead mount" in done.stderr
    process = subprocess.Popen([*source, mount.point, "-o", "recover"])
    try:
        wait_until(lambda: listable(mount.point), "it is mounted again")
        subprocess.run(["umount", mount.point], check=True)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    mount.point.rmdir()


def listable(point: Path) -> bool:
    try:
        os.listdir(point)
    except OSError:
        return False
    return os.path.ismount(point)


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel's knobs are root's")
def test_the_kernel_reads_ahead_as_far_as_it_is_told(cluster: Cluster) -> None:
    for number in range(5):  # two who set it in the wrong order do so only sometimes
        with Mount(cluster, f"ahead{number}", settings={"mount": {"read_ahead_kib": 2048}}) as m:
            m.daemon.wait_for_log("mounted at")
            device = os.stat(m.point).st_dev
            knob = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
            assert knob.read_text() == "2048\n"
