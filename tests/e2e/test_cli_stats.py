"""`superfs stats` and `superfs profile`, on real mounts and daemons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from harness.daemon import BIN
from harness.mount import Mount
from harness.waiting import wait_until
from harness.zygote import run
from superfs.cli.admin import Admin
from superfs.cli.options import Target
from superfs.cli.windows import Window
from superfs.client import windows
from superfs.core.errors import Code, FsError
from superfs.core.tokens import Authority, Grant, Purpose, armor, parse_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

NOBODY = 65534


@pytest.fixture
def mount(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Mount]:
    with Mount(cluster, f"mnt-{request.node.name}") as mounted:
        yield mounted
    assert not mounted.trouble()


AS_NOBODY = """
import os, sys
from superfs.cli import main
look = ["stats", "--once", "--interval", "0.1", sys.argv[1]]
try:
    main.main(look)
except SystemExit as end:
    assert not end.code, "as root it works, and everything is imported"
os.setgroups([]); os.setgid(65534); os.setuid(65534)
main.main(look)
"""


def superfs(*words: str | Path, status: int = 0) -> str:
    done = run("superfs", *words, timeout=120, cwd="/")
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout if status == 0 else done.stderr


@contextmanager
def working(mount: Mount) -> Iterator[None]:
    """Somebody makes, reads and lists files all the time."""
    stop = threading.Event()

    def work() -> None:
        directory = mount.point / "busy"
        number = 0
        while not stop.is_set():
            number += 1
            (directory / f"f{number}").write_bytes(b"x" * 100)
            (directory / f"f{number}").read_bytes()
            os.listdir(directory)
            (directory / f"f{number - 100}").unlink(missing_ok=True)
            (directory / "none").exists()

    worker = threading.Thread(target=work)
    (mount.point / "busy").mkdir()
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()
        shutil.rmtree(mount.point / "busy")


def reported(*words: str | Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(superfs("stats", "--once", "--json", *words))
    return report


def test_what_a_mount_does(cluster: Cluster, mount: Mount) -> None:
    with working(mount):
        wait_until(lambda: os.listdir(mount.point / "busy"), "it has begun")
        report = reported(mount.point / "busy", "--interval", "0.5")
        shown = superfs("stats", mount.point, "--once", "--interval", "0.5")
    (found,) = report["mounts"]
    assert found["mountpoint"] == str(mount.point)
    assert found["pid"] == mount.daemon.pid
    requests = {rate["name"]: rate for rate in found["requests"]}
    assert {"create", "open", "read", "lookup", "readdir", "flush"} <= requests.keys()
    for rate in requests.values():
        assert rate["per_s"] > 0
        assert 0 < rate["p50_us"] <= rate["p99_us"]
    assert requests["lookup"]["errors_per_s"] > 0, "of the name that there is not"
    assert found["caches"].keys() == {"names", "attributes", "listings", "contents"}
    assert found["caches"]["names"]["hits"] > 0
    assert found["daemons"]["metad-1"]["sent"] > 0
    assert found["daemons"]["metad-1"]["received_bytes"] > 0
    assert found["figures"]["leases"] >= 2
    assert 0 < found["figures"]["memory_bytes"] < found["figures"]["memory_max_bytes"]
    assert {"clusterd", "metad-1", "datad-2"} <= report["daemons"].keys()
    metad = report["daemons"]["metad-1"]
    assert metad["commits_per_s"] > 0
    assert metad["operations_per_commit"] >= 1
    assert 0 < metad["commit_p50_ms"] <= metad["commit_p99_ms"]
    assert sum(metad["operations_per_s"].get(verb, 0) for verb in ("create", "log")) > 0
    assert "written_bytes_per_s" in report["daemons"]["datad-2"]
    for text in (str(mount.point), "lookup", "answered from memory", "metad-1", "commits/s"):
        assert text in shown, shown


def test_all_mounts_and_those_of_one_cluster(cluster: Cluster, mount: Mount) -> None:
    with Mount(cluster, "second") as second:
        here = {str(mount.point), str(second.point)}
        everywhere = {m["mountpoint"] for m in reported("--interval", "0.1")["mounts"]}
        assert here <= everywhere, "others may run beside"
        of_cluster = {point for point in everywhere if point.startswith(f"{cluster.dir}/")}
        where = ["--cluster", cluster.target("clusterd"), "--token-file", str(cluster.token_file)]
        found = {m["mountpoint"] for m in reported("--interval", "0.1", *where)["mounts"]}
        assert found == of_cluster
    socket = windows.directory_of(os.geteuid()) / f"{second.daemon.pid}.sock"
    assert not socket.exists()


def test_every_interval_is_a_line_until_the_mount_ends(cluster: Cluster) -> None:
    with Mount(cluster, "short") as short:
        command = [str(BIN / "superfs"), "stats", str(short.point), "--interval", "0.1", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
            assert watching.stdout is not None
            for _ in range(3):
                assert json.loads(watching.stdout.readline())["mounts"]
            short.unmount()
            _, said = watching.communicate(timeout=60)
    assert watching.returncode == 1
    assert b"has ended" in said


def test_which_requests_a_program_makes(mount: Mount) -> None:
    with working(mount):
        wait_until(lambda: os.listdir(mount.point / "busy"), "it has begun")
        by = {
            name: json.loads(
                superfs("profile", mount.point, "--seconds", "0.5", "--by", name, "--json")
            )
            for name in ("operation", "process", "directory")
        }
        shown = superfs("profile", mount.point, "--seconds", "0.3")
    groups = {name: {g["name"]: g for g in found["groups"]} for name, found in by.items()}
    assert {"create", "read", "lookup", "readdir"} <= groups["operation"].keys()
    assert groups["operation"]["lookup"]["errors"] > 0
    assert groups["operation"]["read"]["bytes"] > 100
    assert groups["directory"]["/busy"]["count"] > 10
    assert any(f"({os.getpid()})" in name for name in groups["process"])
    for found in by.values():
        assert found["lost"] == 0
        assert found["requests"] >= sum(g["count"] for g in found["groups"]) > 0
        took = [access["duration_us"] for access in found["slowest"]]
        assert took == sorted(took, reverse=True)
        assert len(took) == 10
    assert "slowest" in shown
    assert "create" in shown


def test_two_cannot_watch_at_once(mount: Mount) -> None:
    path = windows.directory_of(os.geteuid()) / f"{mount.daemon.pid}.sock"
    window = Window.open(path)
    assert window is not None
    watching = window.watch()
    next(watching)
    said = superfs("profile", mount.point, "--seconds", "0.2", status=1)
    assert "somebody else is watching" in said
    window.close()
    superfs("profile", mount.point, "--seconds", "0.2")


def test_what_is_no_mount_is_said(cluster: Cluster, tmp_path: Path) -> None:
    for command in (["stats", "--once"], ["profile", "--seconds", "0.1"]):
        assert "is in no SuperFS mount" in superfs(*command, tmp_path, status=1)
        assert "is in no SuperFS mount" in superfs(*command, tmp_path / "none", status=1)
    said = superfs("stats", "--once", "--interval", "5000", tmp_path, status=2)
    assert "--interval" in said


def test_a_dead_mount_is_said() -> None:
    with Cluster() as cluster:
        killed = Mount(cluster, "killed").start()
        left = windows.directory_of(os.geteuid()) / f"{killed.daemon.pid}.sock"
        killed.daemon.kill()
        for command in (["stats", "--once"], ["profile", "--seconds", "0.1"]):
            assert "is dead" in superfs(*command, killed.point, status=1)
        killed.close()
        assert not left.exists(), "who looks clears away what dead ones leave"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_sees_no_mount_of_root(mount: Mount) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, mount.point], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "does not answer to this user" in done.stderr


def test_the_metrics_of_daemons_are_not_for_user_tokens(cluster: Cluster) -> None:
    authority = Authority(parse_key(cluster.key_file.read_text()))
    token = cluster.dir / "user.token"
    grant = Grant("user", "somebody", uid=NOBODY, gid=NOBODY)
    token.write_bytes(armor(authority.issue(Purpose.FILE, grant)))
    admin = Admin(Target((cluster.target("clusterd"),), token))
    with pytest.raises(FsError) as caught:
        admin.metrics([cluster.target("metad-1")])
    assert caught.value.code is Code.FORBIDDEN
