"""`.kv` of a real mount: the pool's blocks as files, for programs as they are."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from harness.mount import Mount, fsck
from superfs.client import ClientConfig
from superfs.core.limits import KIB, MIB
from superfs.kvcache import Fingerprint, KeyChain, KVStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
CHAIN = KeyChain(Fingerprint("w", "float32", 2, 1, 8, block_tokens=1))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    settings = {
        "slab_bytes": 32 * MIB, "slab_dir": str(tmp_path), "granule_bytes": 4 * KIB,
        "disk_bytes": 64 * MIB, "disk_segment_bytes": 32 * MIB, "disk_free_bytes_min": 0,
    }  # fmt: skip
    with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
        yield cluster


@pytest.fixture
def mount(cluster: Cluster) -> Iterator[Mount]:
    with Mount(cluster, "m0", settings={"mount": {"allow_other": "yes"}}) as mount:
        yield mount
        fsck(cluster)
    assert not mount.trouble()


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Callable[..., KVStore]]:
    config = ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
    with ExitStack() as opened:

        def make(name: str = "chat", **more: Any) -> KVStore:  # noqa: ANN401
            return opened.enter_context(KVStore.open(config, name, CHAIN, **more))

        yield make


def run(*words: object) -> str:
    return subprocess.run(
        [str(word) for word in words], check=True, capture_output=True, text=True
    ).stdout


def test_blocks_are_files(mount: Mount, store: Callable[..., KVStore], tmp_path: Path) -> None:
    kv = mount.point / ".kv"
    assert run("ls", kv) == ""
    assert ".kv" not in os.listdir(mount.point), "who walks the tree walks no cache"
    one, other = store(), store("other.space", disk_bytes=0)
    keys = CHAIN.keys(range(40))
    rng = random.Random(1)
    blocks = [rng.randbytes(rng.randrange(1, 300 * KIB)) for _ in keys]
    assert one.put(keys, blocks) == len(keys)
    other.put(keys[:1], [b"another"])
    assert run("ls", kv).split() == ["chat", "other.space"]
    names = {key.hex(): block for key, block in zip(keys, blocks, strict=True)}
    where = kv / "chat" / "blocks"
    assert set(run("ls", where).split()) == set(names)
    assert set(run("find", where, "-type", "f", "-printf", "%f\n").split()) == set(names)
    for name, block in names.items():
        assert (where / name).read_bytes() == block
        assert (where / name).stat().st_size == len(block)
    run("cp", "-r", kv, tmp_path / "copy")
    run("diff", "-r", kv, tmp_path / "copy")
    assert (kv / "other.space" / "blocks" / keys[0].hex()).read_bytes() == b"another"
    (stats,) = one.stats()
    assert (stats.asked_blocks, stats.leases) == (0, 0), "looking is no use"


def test_what_was_evicted_is_gone(mount: Mount, store: Callable[..., KVStore]) -> None:
    one = store(disk_bytes=0)
    keys = CHAIN.keys(range(8))
    one.put(keys, [key * 1000 for key in keys])
    where = mount.point / ".kv" / "chat" / "blocks"
    path = where / keys[-1].hex()
    with path.open("rb") as file:
        assert file.read(16) == keys[-1]
        assert one.remove(keys[4:5]) == 4
        assert not path.exists()
        with pytest.raises(FileNotFoundError):
            path.open("rb")
    assert {entry.name for entry in os.scandir(where)} == {key.hex() for key in keys[:4]}
    one.drop()
    assert not where.exists()
    assert os.listdir(mount.point / ".kv") == []


def test_blocks_on_disk_only(
    cluster: Cluster, mount: Mount, store: Callable[..., KVStore], tmp_path: Path
) -> None:
    """They are read where they lie, and stay there."""
    one = store()
    keys = CHAIN.keys(range(5))
    one.put(keys, [key * 3000 for key in keys], durable=True)
    cluster.datad.kill()
    for path in [*tmp_path.glob("*.slab"), *tmp_path.glob("*.map")]:
        path.unlink()
    cluster.start(["datad-2"])
    where = mount.point / ".kv" / "chat" / "blocks"
    assert len(os.listdir(where)) == 5
    for key in keys:
        assert (where / key.hex()).read_bytes() == key * 3000
    (stats,) = store().stats()
    assert (stats.blocks, stats.disk_blocks, stats.promoted) == (0, 5, 0)


def test_a_damaged_block_is_none(
    cluster: Cluster, mount: Mount, store: Callable[..., KVStore], tmp_path: Path
) -> None:
    one = store(disk_bytes=0)
    keys = CHAIN.keys(range(3))
    one.put(keys, [key * 500 for key in keys])
    (slab,) = tmp_path.glob("*.slab")
    at = slab.read_bytes().find(keys[1] * 500)
    with slab.open("r+b") as file:
        file.seek(at + 77)
        file.write(b"!")
    where = mount.point / ".kv" / "chat" / "blocks"
    with pytest.raises(FileNotFoundError):
        (where / keys[1].hex()).read_bytes()
    assert os.listdir(where) == [keys[0].hex()], "with what was behind it"


def test_nothing_can_be_changed_there(mount: Mount, store: Callable[..., KVStore]) -> None:
    keys = CHAIN.keys(range(1))
    store().put(keys, [b"block"])
    kv = mount.point / ".kv"
    path = kv / "chat" / "blocks" / keys[0].hex()
    (mount.point / "file").write_bytes(b"")
    changes: dict[str, tuple[int, Callable[[], object]]] = {
        "write": (errno.EROFS, lambda: path.write_bytes(b"other")),
        "unlink": (errno.EROFS, path.unlink),
        "create": (errno.EROFS, (kv / "new").touch),
        "mkdir": (errno.EROFS, (kv / "chat" / "new").mkdir),
        "rmdir": (errno.EROFS, (kv / "chat").rmdir),
        "chmod": (errno.EROFS, lambda: path.chmod(0o666)),
        "setxattr": (errno.EROFS, lambda: os.setxattr(path, "user.x", b"x")),
        "rename": (errno.EROFS, lambda: path.rename(kv / "chat" / "x")),
        "rename out": (errno.EXDEV, lambda: path.rename(mount.point / "x")),
        "rename in": (errno.EXDEV, lambda: (mount.point / "file").rename(kv / "x")),
        "rename over": (errno.EXDEV, lambda: (mount.point / "d").rename(kv)),
        "link out": (errno.EXDEV, lambda: os.link(path, mount.point / "x")),
        "make the top": (errno.EEXIST, kv.mkdir),
        "remove the top": (errno.EROFS, kv.rmdir),
        "move the top": (errno.EXDEV, lambda: kv.rename(mount.point / "x")),
    }
    (mount.point / "d").mkdir()
    for what, (number, change) in changes.items():
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            change()
        assert caught.value.errno == number, what
    assert path.read_bytes() == b"block"
    assert sorted(os.listdir(mount.point)) == ["d", "file"]


def test_only_its_user_may_look(mount: Mount, store: Callable[..., KVStore]) -> None:
    keys = CHAIN.keys(range(1))
    store().put(keys, [b"secret"])
    kv = mount.point / ".kv"
    for path in (kv, kv / "chat" / "blocks" / keys[0].hex()):
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", "cat" if path != kv else "ls", path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode, done.stdout
        assert "Permission denied" in done.stderr


def test_where_it_is_not(cluster: Cluster) -> None:
    """Switched off, of a part of the tree, and where the file system has a file of that name."""
    with Mount(cluster, "off", settings={"mount": {"kv": False}}) as mount:
        assert not (mount.point / ".kv").exists()
        (mount.point / ".kv").write_bytes(b"mine")
        (mount.point / "below").mkdir()
    with Mount(cluster, "part", settings={"mount": {"subdir": "/below"}}) as mount:
        assert not (mount.point / ".kv").exists()
    with Mount(cluster, "taken") as mount:
        assert (mount.point / ".kv").read_bytes() == b"mine"
    assert ["there is a .kv" in line for line in mount.trouble()] == [True]
    fsck(cluster)
