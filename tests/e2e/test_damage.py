"""Damage on disk is detected and reported, never served, never repaired by making something new.

After each damage a daemon either serves (and every read is right or EIO), or ends with status 78
and says which file, and what to do; started again it says the same: it is no crash loop.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from harness.zygote import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

EXIT_CONFIG = 78
PAGE = 4096


def contents(i: int) -> bytes:
    return random.Random(i).randbytes(700 if i % 2 else 150_000)


class Patient:
    """A cluster with data in it, whose state can be put back."""

    def __init__(self, cluster: Cluster, aside: Path) -> None:
        self.cluster, self.aside = cluster, aside
        with Mount(cluster, "fill") as mount:
            (mount.point / "d").mkdir()
            for i in range(120):
                with open(mount.point / "d" / f"f{i}", "wb") as file:
                    file.write(contents(i))
                    os.fsync(file.fileno())
        cluster.stop()
        for name in cluster.daemons:
            shutil.copytree(cluster.state_dir(name), aside / name)

    def heal(self) -> None:
        """Nothing runs, and every byte is as it was."""
        for name, daemon in self.cluster.daemons.items():
            daemon.kill()
            daemon.forget_log()
            shutil.rmtree(self.cluster.state_dir(name), ignore_errors=True)
            shutil.copytree(self.aside / name, self.cluster.state_dir(name))

    def starts(self, name: str) -> bool:
        """Whether it serves; if it ends instead, it must do so with status 78 and advice."""
        daemon = self.cluster.daemons[name]
        daemon.forget_log()
        start = daemon.log.stat().st_size
        daemon.start()
        wait_until(lambda: not daemon.running or self.cluster.serves(name), f"{name} decides")
        if daemon.running:
            return True
        status = daemon.wait()
        said = daemon.log.read_text()[start:]
        assert status == EXIT_CONFIG, f"{name} ended with {status}\n{daemon.tail()}"
        assert any(place in said for place in self.places(name)), said
        assert "Traceback" not in said, said
        return False

    def places(self, name: str) -> tuple[str, str]:
        """What a message must name: where the daemon's data is, or the cluster it asked."""
        return str(self.cluster.state_dir(name)), self.cluster.target("clusterd")

    def starts_twice(self, name: str) -> bool:
        """No crash loop: it serves, or says the same twice and has changed nothing."""
        if self.starts(name):
            return True
        before = _listing(self.cluster.state_dir(name))
        assert not self.starts(name), "the second start did something else than the first"
        assert _listing(self.cluster.state_dir(name)) == before
        return False

    def read_all(self) -> tuple[int, int]:
        """(right, EIO); wrong bytes or a missing name are failures."""
        right = failed = 0
        with Mount(self.cluster, f"mnt{random.randrange(1 << 30)}") as mount:
            for i in range(120):
                try:
                    data = (mount.point / "d" / f"f{i}").read_bytes()
                except OSError as error:
                    if error.errno not in (errno.EIO, errno.ESTALE):
                        raise
                    failed += 1
                    continue
                assert data == contents(i), f"f{i}: wrong data was served"
                right += 1
        return right, failed


def _listing(path: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_size) for p in path.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    cluster = Cluster()
    try:
        cluster.create()
        yield Patient(cluster, tmp_path_factory.mktemp("aside"))
    finally:
        cluster.close()


@pytest.fixture
def patient(healthy: Patient) -> Iterator[Patient]:
    healthy.heal()
    yield healthy
    for daemon in healthy.cluster.daemons.values():
        daemon.kill()


# ---- what can happen to a file ---------------------------------------------------------------


def flip(path: Path, rng: random.Random) -> None:
    """64 random bytes somewhere in a page that holds something."""
    with open(path, "r+b") as file:
        data = file.read()
        pages = [p for p in range(len(data) // PAGE) if any(data[p * PAGE : (p + 1) * PAGE])]
        file.seek(rng.choice(pages) * PAGE + rng.randrange(PAGE - 64))
        file.write(rng.randbytes(64))


def zero_page(path: Path, rng: random.Random) -> None:
    with open(path, "r+b") as file:
        data = file.read()
        pages = [p for p in range(len(data) // PAGE) if any(data[p * PAGE : (p + 1) * PAGE])]
        file.seek(rng.choice(pages) * PAGE)
        file.write(bytes(PAGE))


def cut(path: Path, rng: random.Random) -> None:
    used = len(path.read_bytes().rstrip(b"\0"))  # files are allocated ahead
    os.truncate(path, rng.randrange(used * 3 // 4))


def empty(path: Path, _rng: random.Random) -> None:
    os.truncate(path, 0)


def remove(path: Path, _rng: random.Random) -> None:
    path.unlink()


def stores(cluster: Cluster, name: str) -> list[Path]:
    """The LMDB files of a daemon: big enough, and not its lock."""
    found = [p for p in cluster.state_dir(name).rglob("*.mdb") if "lock" not in p.name]
    assert found, _listing(cluster.state_dir(name))
    return found


CASES: list[tuple[Callable[[Path, random.Random], None], int]] = [
    *((flip, seed) for seed in range(4)),
    *((zero_page, seed) for seed in range(4)),
    (cut, 0), (cut, 1), (empty, 0), (remove, 0),
]  # fmt: skip


@pytest.mark.parametrize("name", ["metad-1", "datad-2", "clusterd"])
@pytest.mark.parametrize(("hurt", "seed"), CASES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_damaged_lmdb(
    patient: Patient, name: str, hurt: Callable[[Path, random.Random], None], seed: int
) -> None:
    cluster = patient.cluster
    for path in stores(cluster, name):
        hurt(path, random.Random(seed))
    others = [other for other in cluster.daemons if other != name]
    if name == "clusterd":
        if not patient.starts_twice(name):
            return
        cluster.start(others)
    else:
        cluster.start([other for other in others if other != "metad-1"])
        if not patient.starts_twice(name):
            return
        cluster.start()
    assert hurt not in (empty, remove, cut), f"{name} serves from a {hurt.__name__} store"
    patient.read_all()


def segments(cluster: Cluster) -> list[Path]:
    directory = cluster.state_dir("datad-2")
    found = [
        path
        for path in directory.rglob("*")
        if path.is_file() and path.stat().st_size > 150_000 and path.suffix != ".mdb"
    ]
    assert found, _listing(directory)
    return found


def test_flipped_byte_in_a_segment_is_eio_and_named(patient: Patient) -> None:
    """One byte in the middle of one file's data: that file is EIO, all others are right."""
    cluster = patient.cluster
    needle = contents(10)[70_000:70_100]
    hit = 0
    for path in segments(cluster):
        data = path.read_bytes()
        at = data.find(needle)
        if at >= 0:
            hit += 1
            with open(path, "r+b") as file:
                file.seek(at + 50)
                file.write(bytes([data[at + 50] ^ 0x10]))
    assert hit, "the data was not found in any segment"
    cluster.start()
    with Mount(cluster, "look") as mount:
        with pytest.raises(OSError, match="Input/output") as caught:
            (mount.point / "d" / "f10").read_bytes()
        assert caught.value.errno == errno.EIO
        ino = (mount.point / "d" / "f10").stat().st_ino
        said = cluster.datad.log.read_text() + mount.daemon.log.read_text()
        assert f"{ino}" in said or f"{ino:x}" in said, f"{ino} {ino:x} is not named\n{said[-2000:]}"
        # the part before the damage is still to be had
        fd = os.open(mount.point / "d" / "f10", os.O_RDONLY | os.O_DIRECT)
        os.close(fd)
        for i in range(120):
            if i != 10:
                assert (mount.point / "d" / f"f{i}").read_bytes() == contents(i)
        with pytest.raises(AssertionError, match="damaged-data"):
            fsck(cluster)
        # removing and writing anew heals it
        (mount.point / "d" / "f10").write_bytes(b"new contents" * 10_000)
        assert (mount.point / "d" / "f10").read_bytes() == b"new contents" * 10_000


@pytest.mark.parametrize("hurt", [zero_page, cut, empty, remove], ids=lambda f: f.__name__)
def test_hurt_segments(patient: Patient, hurt: Callable[[Path, random.Random], None]) -> None:
    cluster = patient.cluster
    for path in segments(cluster):
        hurt(path, random.Random(5))
    cluster.start(["clusterd"])
    if not patient.starts_twice("datad-2"):
        return
    cluster.start()
    right, failed = patient.read_all()
    assert failed, f"{hurt.__name__} was not noticed: {right} files read"


def test_other_clusters_state_is_refused(patient: Patient) -> None:
    """A state directory of another cluster, or of another node, is never used."""
    with Cluster() as stranger:
        stranger.stop()
        for name in ("metad-1", "datad-2"):
            patient.heal()
            shutil.rmtree(patient.cluster.state_dir(name))
            shutil.copytree(stranger.state_dir(name), patient.cluster.state_dir(name))
            patient.cluster.start(["clusterd"])
            if name == "metad-1":
                patient.cluster.start(["datad-2"])
            assert not patient.starts(name), f"{name} serves another cluster's state"
        for daemon in patient.cluster.daemons.values():
            daemon.kill()


def test_missing_state_is_never_made_anew(patient: Patient) -> None:
    patient.cluster.start(["clusterd"])
    for name in ("datad-2", "metad-1"):
        state = patient.cluster.state_dir(name)
        shutil.rmtree(state)
        daemon = patient.cluster.daemons[name]
        daemon.start()
        assert daemon.wait() == EXIT_CONFIG, daemon.tail()
        assert not state.exists() or not list(state.rglob("*.mdb"))


def test_format_refuses_to_overwrite(patient: Patient) -> None:
    for name, daemon in patient.cluster.daemons.items():
        before = _listing(patient.cluster.state_dir(name))
        done = run(*daemon.command, "--format")
        assert done.returncode == EXIT_CONFIG, done
        assert "already" in done.stderr, done.stderr
        after = _listing(patient.cluster.state_dir(name))
        assert [x for x in after if "lock" not in x[0]] == [x for x in before if "lock" not in x[0]]
