"""`superfs up`, `down`, `mount`, `umount`, `status`: clusters started, killed, started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import leftovers
from harness.daemon import BIN
from harness.waiting import wait_until
from harness.zygote import run
from superfs.cli.formatting import own_root
from superfs.cli.home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
STARTING = ("up", "mount")
"""Commands that leave programs behind: they are executed, all others run in forks."""


class Place:
    """A directory for a cluster and its mount points, and the command line on it."""

    def __init__(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="sfs", dir="/tmp"))
        leftovers.directories.add(self.top)
        self.dir, self.mnt = self.top / "c", self.top / "mnt"

    def superfs(self, *words: str | Path, status: int = 0) -> str:
        command = [str(BIN / "superfs"), *map(str, words)]
        if words[0] in STARTING:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=200, check=False, cwd=self.top
            )
        else:
            done = run(*command, timeout=200, cwd=str(self.top))
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{words}: {done.returncode}\n{said}\n{self.logs()}"
        return said

    def up(self, *words: str | Path, status: int = 0) -> str:
        return self.superfs(
            "up", "--dir", self.dir, "--mount", self.mnt, "--detach", *words, status=status
        )

    def down(self, status: int = 0) -> str:
        return self.superfs("down", "--dir", self.dir, status=status)

    def status(self, status: int = 0) -> Any:  # noqa: ANN401
        return json.loads(self.superfs("status", "--dir", self.dir, "--json", status=status))

    def pid(self, name: str) -> int:
        supervisor = self.status()["supervisor"]
        if name == "supervisor":
            return int(supervisor["pid"])
        return int(supervisor["children"][name]["pid"])

    def logs(self) -> str:
        files = sorted(self.dir.glob("log/*.log"))
        return "\n".join(f"--- {f}\n{f.read_text(errors='replace')[-3000:]}" for f in files)

    def running(self) -> list[str]:
        return [line for line in leftovers.processes().values() if str(self.top) in line]

    def close(self) -> None:
        run("superfs", "down", "--dir", self.dir, timeout=200)
        for point in leftovers.mounts((self.top,)):
            subprocess.run(["umount", "-l", str(point)], check=False)
        for log in Path("/var/log/superfs").glob(f"mount-tmp-{self.top.name}-*.log"):
            log.unlink()
        shutil.rmtree(self.top)
        leftovers.directories.discard(self.top)


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    """For who leaves the cluster as it is: it runs, and nothing is mounted."""
    place = Place()
    place.superfs("up", "--dir", place.dir, "--detach")
    yield place
    place.close()


def test_up_use_down_up(place: Place) -> None:
    said = place.up("--data", "2")
    for name in ("clusterd", "metad-1", "datad-2", "datad-3", "mount"):
        assert f"{name}: ready" in said
    (place.mnt / "small").write_text("kept")
    (place.mnt / "big").write_bytes(bytes(range(256)) * 40_000)
    assert os.path.ismount(place.mnt)
    assert "Already running" in place.up()
    state = place.status()
    assert state["healthy"]
    assert {d["name"] for d in state["daemons"]} == {"clusterd", "metad-1", "datad-2", "datad-3"}
    assert state["space"]["inodes_used"] >= 3
    assert "Stopped." in place.down()
    assert not os.path.ismount(place.mnt)
    assert place.running() == []
    assert "Nothing is running." in place.down()
    place.up()
    assert (place.mnt / "small").read_text() == "kept"
    assert (place.mnt / "big").read_bytes() == bytes(range(256)) * 40_000
    assert "clean" in place.superfs("fsck", "--dir", place.dir)


def test_in_the_foreground_until_a_signal(place: Place) -> None:
    log = place.top / "out"
    with log.open("wb") as out:
        command = [str(BIN / "superfs"), "up", "--dir", str(place.dir), "--mount", str(place.mnt)]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    wait_until(lambda: "SuperFS runs" in log.read_text(), "it runs", timeout_s=60)
    assert os.path.ismount(place.mnt)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert not os.path.ismount(place.mnt)
    assert place.running() == []


def test_a_killed_supervisor_leaves_a_mount_that_the_next_one_adopts(place: Place) -> None:
    place.up()
    mount, metad = place.pid("mount"), place.pid("metad-1")
    with (place.mnt / "open").open("w") as file:
        file.write("before")
        file.flush()
        supervisor = place.pid("supervisor")
        os.kill(supervisor, signal.SIGKILL)
        said = place.up()
        assert "adopted" in said
        assert (place.pid("mount"), place.pid("metad-1")) == (mount, metad)
        file.write(" and after")
    assert (place.mnt / "open").read_text() == "before and after"
    os.kill(place.pid("supervisor"), signal.SIGKILL)
    assert "mount: stopped" in place.down()
    assert place.running() == []
    assert not os.path.ismount(place.mnt)


def test_killed_daemons_come_back_under_the_mount(place: Place) -> None:
    place.up()
    (place.mnt / "file").write_bytes(b"x" * 100_000)
    for name in ("metad-1", "datad-2", "clusterd"):
        before = place.pid(name)
        os.kill(before, signal.SIGKILL)
        (place.mnt / f"during-{name}").write_text("waits, and works")
        _wait_back(place, name, before)
    assert (place.mnt / "file").read_bytes() == b"x" * 100_000
    assert len(list(place.mnt.iterdir())) == 4


def _wait_back(place: Place, name: str, before: int) -> None:
    def back() -> bool:
        child = _children(place)[name]
        return child["pid"] not in (None, before) and child["state"] == "ready"

    wait_until(back, f"{name} is back")


def _children(place: Place) -> Any:  # noqa: ANN401
    return json.loads((place.dir / "run" / "supervisor.json").read_text())["children"]


def test_a_killed_mount_is_mounted_again(place: Place) -> None:
    place.up()
    (place.mnt / "file").write_text("here")
    before = place.pid("mount")
    os.kill(before, signal.SIGKILL)
    _wait_back(place, "mount", before)
    assert (place.mnt / "file").read_text() == "here"


def test_down_takes_off_what_was_killed(place: Place) -> None:
    place.up()
    place.superfs("mount", "--dir", place.dir, place.top / "second")
    os.kill(place.pid("supervisor"), signal.SIGKILL)  # first, or it starts the others again
    for pid, command in leftovers.processes().items():
        if str(place.top) in command:
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: place.running() == [], "everything is dead")
    said = place.down()
    for point in (place.mnt, place.top / "second"):
        assert f"{point}: taken off" in said
        assert list(point.iterdir()) == []
    assert "Nothing is running." in place.down()


def test_unmounted_by_hand_stays_so_until_up(place: Place) -> None:
    place.up()
    subprocess.run(["umount", str(place.mnt)], check=True)
    wait_until(lambda: _children(place)["mount"]["state"] == "ended", "the mount has ended")
    assert "starting mount again" in place.up()
    assert os.path.ismount(place.mnt)


def test_damage_is_reported_and_not_restarted(place: Place) -> None:
    place.up()
    place.down()
    identity = place.dir / "metad-1" / "identity"
    good = identity.read_bytes()
    identity.write_text("{}")
    said = place.up(status=78)
    assert "metad-1 did not start: it ended with status 78" in said
    assert "identity" in said
    assert "is damaged" in said
    assert place.running() == [], "nothing is left half started"
    identity.write_bytes(good)
    place.up()


def test_a_lost_store_is_not_made_anew(place: Place) -> None:
    place.up()
    place.down()
    (place.dir / "datad-2").rename(place.top / "aside")
    assert "datad-2" in place.up(status=78)
    assert not (place.dir / "datad-2").exists()
    (place.top / "aside").rename(place.dir / "datad-2")
    place.up()


def test_what_a_user_starts_is_the_users(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root could do nothing in a root directory of root's. Once: it may be given away
    later."""
    place.up()
    home = Home.at(place.dir)
    own_root(home)
    assert place.mnt.stat().st_uid == 0
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "getegid", lambda: 4712)
    for _ in range(2):
        own_root(home)
        found = json.loads(place.superfs("stat", "--dir", place.dir, "--json", "/"))
        assert (found["uid"], found["gid"]) == (4711, 4712)
        monkeypatch.setattr(os, "geteuid", lambda: 1)


def test_what_is_in_the_way(place: Place) -> None:
    place.mnt.mkdir()
    (place.mnt / "something").write_text("")
    assert "is not empty" in place.up(status=1)
    (place.mnt / "something").unlink()
    inside = place.mnt / "c"
    said = place.superfs("up", "--dir", inside, "--mount", place.mnt, "--detach", status=2)
    assert "stored in itself" in said
    assert "not supported" in place.up("--meta", "2", status=2)
    place.up()
    other = place.superfs(
        "up", "--dir", place.dir, "--mount", place.top / "other", "--detach", status=1
    )
    assert "runs already and is mounted at" in other
    second = place.superfs(
        "up", "--dir", place.top / "d", "--mount", place.mnt, "--detach", status=1
    )
    assert "is busy" in second
    place.superfs("down", "--dir", place.top / "d")


def test_mount_and_umount(running: Place) -> None:
    first, second = running.top / "a", running.top / "b"
    running.superfs("mount", "--dir", running.dir, first)
    socket, token = running.dir / "run/clusterd.sock", running.dir / "token"
    where = ("--cluster", f"unix:{socket}", "--token-file", token)
    running.superfs("mount", *where, second, "-o", "ro")
    (first / "file").write_text("one")
    assert (second / "file").read_text() == "one"
    with pytest.raises(OSError, match="Read-only"):
        (second / "other").write_text("")
    assert "is busy" in running.superfs("mount", "--dir", running.dir, first, status=1)
    with (first / "file").open():
        said = running.superfs("umount", first, status=1)
        assert "in use by" in said
        assert f"(pid {os.getpid()})" in said
    running.superfs("umount", first)
    running.superfs("umount", second)
    assert "nothing is mounted" in running.superfs("umount", second, status=1)
    assert not running.running() or all("superfs-mount" not in line for line in running.running())


def test_a_cluster_and_a_mount_point_named_in_any_way(place: Place) -> None:
    """A directory relative to where one stands, a link to the mount point."""
    place.superfs("up", "--dir", place.dir, "--detach")
    place.mnt.mkdir()
    (place.top / "link").symlink_to("mnt")
    place.superfs("mount", "--source", "c", "link")
    assert os.path.ismount(place.mnt)
    assert "is busy" in place.superfs("mount", "--source", "./c", place.mnt, status=1)
    place.superfs("umount", place.top / "link")
    place.superfs("mount", "--source", "./c", "mnt")
    assert f"{place.mnt}: unmounted" in place.down()


def test_down_takes_every_mount_off(place: Place) -> None:
    place.up()
    place.superfs("mount", "--dir", place.dir, place.top / "second", "-o", "ro")
    assert f"{place.top}/second: unmounted" in place.down()
    assert not os.path.ismount(place.top / "second")
    assert place.running() == []


def test_mount_says_why_not(running: Place) -> None:
    said = running.superfs("mount", "--dir", running.dir, running.mnt, "-o", "nonsense", status=1)
    assert "unknown option 'nonsense'" in said
    said = running.superfs(
        "mount", "--dir", running.dir, running.mnt, "-o", "subdir=/none", status=1
    )
    assert "no directory /none" in said


def test_a_token_for_a_user(running: Place) -> None:
    mine = running.top / "mine"
    running.superfs("token", "--dir", running.dir, "--user", "root", "--read-only", mine)
    assert mine.stat().st_mode & 0o777 == 0o600
    assert "exists already" in running.superfs("token", "--dir", running.dir, mine, status=1)
    other = running.top / "other"
    said = running.superfs("token", "--dir", running.dir, "--user", "no such", other, status=2)
    assert "there is no user" in said
    address = f"unix:{running.dir}/run/clusterd.sock"
    running.superfs("status", "--cluster", address, "--token-file", mine)
    mine.write_text("not a token")
    said = running.superfs("fsck", "--cluster", address, "--token-file", mine, status=8)
    assert "token" in said


def test_mount_superfs_as_mount_8_calls_it(running: Place) -> None:
    running.mnt.mkdir(exist_ok=True)
    script = Path(__file__).parents[2] / "systemd" / "mount.superfs"
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    source, token = f"unix:{running.dir}/run/clusterd.sock", running.dir / "token"
    generic = f"rw,noexec,_netdev,nofail,x-systemd.requires=a.service,token={token}"

    def mount(options: str) -> subprocess.CompletedProcess[str]:
        command = [str(script), source, str(running.mnt), "-n", "-o", options]
        log = running.top / "log"  # as mount(8): the helper must not keep our pipes open
        with log.open("w") as out:
            done = subprocess.run(command, env=env, stdout=out, stderr=out, check=False, timeout=90)
        return subprocess.CompletedProcess(command, done.returncode, log.read_text())

    done = mount(generic)
    assert (done.returncode, done.stdout) == (0, "")
    flags = os.statvfs(running.mnt).f_flag
    assert flags & os.ST_NOEXEC
    assert flags & os.ST_NOSUID
    (running.mnt / "directory").mkdir()
    running.superfs("umount", running.mnt)
    assert mount(f"{generic},subdir=/directory,ro").returncode == 0
    assert list(running.mnt.iterdir()) == []
    assert os.statvfs(running.mnt).f_flag & os.ST_RDONLY
    busy = mount(generic)
    assert busy.returncode == 32
    assert "is busy" in busy.stdout
    running.superfs("umount", running.mnt)
    wrong = mount(f"token={running.top}/none")
    assert wrong.returncode == 32
    assert "none" in wrong.stdout
