"""Bounded cache directories through mounts, with programs as they are."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from harness.hammers import QUICK, SHORT, sdk_of
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from harness.zygote import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
KIB = 1024
MIB = 1024 * KIB
DELEGATING: dict[str, dict[str, Any]] = {**QUICK, "mount": {"delegate": True}}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(settings=SHORT) as cluster:
        yield cluster


@pytest.fixture
def mounts(cluster: Cluster) -> Iterator[tuple[Mount, Mount]]:
    with (
        Mount(cluster, "m0", settings=DELEGATING) as first,
        Mount(cluster, "m1", settings=DELEGATING) as second,
    ):
        yield first, second
        fsck(cluster)
        cluster.trouble([".*"])


def superfs(*words: object, status: int = 0) -> str:
    done = run("superfs", *map(str, words))
    assert done.returncode == status, done
    return done.stdout


def shown(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(superfs("cache", "show", directory, "--json"))
    return found


def blocks(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.startswith("b"))


def bounded(directory: Path, bytes_max: int) -> None:
    wait_until(
        lambda: (found := shown(directory))["bytes"] <= bytes_max and not found["filing"],
        lambda: f"within its bound: {shown(directory)}",
    )


def test_an_engine_that_only_knows_a_directory(mounts: tuple[Mount, Mount]) -> None:
    """As vLLM's file tier writes: a temporary name, rename, directories below directories."""
    first, second = (mount.point / "kv" for mount in mounts)
    first.mkdir()
    superfs("cache", "set", first, "--bytes", "8M", "--policy", "lru")
    for number in range(40):
        path = first / "model" / f"{number % 4:03x}" / f"b{number:02d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".bin.tmp.1")
        temporary.write_bytes(os.urandom(512 * KIB))
        temporary.rename(path)
    bounded(first, 8 * MIB)
    found = shown(second)
    assert found["files"] == 16
    assert found["evicted_files"] == 24
    assert found["policy"] == "lru"
    kept = sorted(path.name for path in second.rglob("b*.bin"))
    assert len(kept) == 16
    assert shown(first / "model" / "001")["directory"] == str(first)
    for path in second.rglob("b*.bin"):
        assert len(path.read_bytes()) == 512 * KIB
    used = subprocess.run(["du", "-sb", "--apparent-size", second], capture_output=True, check=True)
    assert int(used.stdout.split()[0]) < 9 * MIB


def test_what_is_read_stays(mounts: tuple[Mount, Mount]) -> None:
    """Read here, told within a second, kept when another mount fills the directory."""
    first, second = (mount.point / "c" for mount in mounts)
    first.mkdir()
    for number in range(8):
        (first / f"b{number}").write_bytes(os.urandom(64 * KIB))
    superfs("cache", "set", first, "--bytes", 8 * 64 * KIB)
    wait_until(lambda: shown(first)["files"] == 8, "all of them are counted")
    with sdk_of(mounts[0].cluster) as sdk:
        made = sdk.lstat("/c/b7").st_ctime_ns

        def is_told() -> bool:
            (second / "b0").read_bytes()  # in the first second after it was made it is no news
            return sdk.lstat("/c/b0").st_atime_ns > made

        wait_until(is_told, "the other mount has told of it")
    for number in range(8, 15):
        (first / f"b{number}").write_bytes(os.urandom(64 * KIB))
    bounded(first, 8 * 64 * KIB)
    assert blocks(second) == sorted(["b0", *(f"b{number}" for number in range(8, 15))])


def test_an_evicted_file_is_gone_elsewhere_at_once(mounts: tuple[Mount, Mount]) -> None:
    first, second = (mount.point / "c" for mount in mounts)
    first.mkdir()
    superfs("cache", "set", first, "--bytes", 4 * 64 * KIB)
    data = os.urandom(64 * KIB)
    for number in range(3):
        (first / f"b{number}").write_bytes(data)
    # The other mount knows them by heart, and has one open.
    assert blocks(second) == ["b0", "b1", "b2"]
    for name in blocks(second):
        assert os.stat(second / name).st_size == 64 * KIB
    with open(second / "b0", "rb") as held:
        time.sleep(0.3)
        for number in range(3, 8):
            (first / f"b{number}").write_bytes(data)
            with open(first / f"b{number}", "rb") as made:
                os.fsync(made.fileno())
            names = blocks(first)
            assert len(names) <= 4
            assert blocks(second) == names
            for gone in {f"b{n}" for n in range(number)} - set(names):
                assert not (second / gone).exists()
        assert held.read() == data


def test_what_is_being_written_is_left_alone(mounts: tuple[Mount, Mount]) -> None:
    first, second = (mount.point / "c" for mount in mounts)
    first.mkdir()
    superfs("cache", "set", first, "--bytes", 4 * 64 * KIB)
    with open(first / "b-long", "wb") as writer:
        writer.write(b"x" * 64 * KIB)
        writer.flush()
        os.fsync(writer.fileno())
        time.sleep(0.5)  # the mount tells of what is open a moment later
        for number in range(8):
            (second / f"b{number}").write_bytes(os.urandom(64 * KIB))
        bounded(second, 4 * 64 * KIB)
        assert "b-long" in blocks(second)
        writer.write(b"y")
    assert (second / "b-long").read_bytes() == b"x" * 64 * KIB + b"y"

    def goes() -> bool:
        (second / "b-more").write_bytes(os.urandom(64 * KIB))
        (second / "b-more").unlink()
        for number in range(4):
            (second / f"b{number}").write_bytes(os.urandom(64 * KIB))
        return "b-long" not in blocks(second)

    wait_until(goes, "it goes like any other")


def test_what_a_mount_does_by_itself_counts(mounts: tuple[Mount, Mount]) -> None:
    """Under an exclusive lease: counted when the log comes, and asked for when it gets full."""
    first, second = (mount.point / "c" for mount in mounts)
    first.mkdir()
    superfs("cache", "set", first, "--bytes", "2M")
    for number in range(1200):
        (first / f"b{number:04d}").write_bytes(b"z" * 4 * KIB)
    bounded(first, 2 * MIB)
    assert len(blocks(second)) <= 512
    for name in blocks(first):
        assert (first / name).read_bytes() == b"z" * 4 * KIB
    (first / "b9999").write_bytes(b"new")
    assert (second / "b9999").read_bytes() == b"new"


def test_time_to_live_and_unset(mounts: tuple[Mount, Mount]) -> None:
    first, second = (mount.point / "c" for mount in mounts)
    first.mkdir()
    for number in range(4):
        (first / f"b{number}").write_bytes(b"x")
    superfs("cache", "set", first, "--bytes", "1G", "--ttl", "2s")
    wait_until(lambda: not blocks(second), "all have gone")
    superfs("cache", "unset", first)
    superfs("cache", "show", first, status=1)
    superfs("cache", "unset", first, status=1)
    superfs("cache", "set", "/tmp", "--bytes", "1G", status=1)
    superfs("cache", "set", first, "--bytes", "much", status=2)


def test_a_killed_daemon_goes_on_with_it(cluster: Cluster, mounts: tuple[Mount, Mount]) -> None:
    first = mounts[0].point / "c"
    first.mkdir()
    tree = mounts[0].point / "tree"
    for number in range(300):
        directory = tree / f"d{number % 10}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"b{number:03d}").write_bytes(b"k" * 4 * KIB)
    superfs("cache", "set", first, "--bytes", 50 * 4 * KIB)
    tree.rename(first / "tree")
    cluster.metad.kill()
    cluster.metad.start()
    bounded(first, 50 * 4 * KIB)
    for number in range(20):
        (first / f"b{number:03d}").write_bytes(b"k" * 4 * KIB)
        if number % 7 == 3:
            cluster.metad.kill()
            cluster.metad.start()
    bounded(first, 50 * 4 * KIB)
    assert shown(first)["files"] == 50
