"""Small files read where they lie, many with one message, against real daemons."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

import pytest

from harness.descriptors import moved, warm
from superfs.client import ClientConfig, FileSystem

if TYPE_CHECKING:
    from harness.cluster import Cluster

pytestmark = pytest.mark.allow_log("connect", "grace")


def connect(cluster: Cluster) -> FileSystem:
    return FileSystem.connect(ClientConfig((cluster.target("clusterd"),), cluster.token_file))


def test_small_files_are_read_where_they_lie(cluster: Cluster) -> None:
    """Written at once, in parts, written over, with a hole, and longer than what was written."""
    rng = random.Random(2)
    model = {f"/small/{n:03}": rng.randbytes(rng.randrange(9000, 120_000)) for n in range(200)}
    with connect(cluster) as fs:
        fs.mkdir("/small")
        fs.put_many(model)
        fs.write_bytes("/small/warm", rng.randbytes(200_000))
        for name in list(model)[::9]:
            with fs.open(name, "r+b") as file:
                file.seek(5000)
                file.write(b"over it")
                file.truncate(150_000)
            whole = model[name][:5000] + b"over it" + model[name][5007:]
            model[name] = whole.ljust(150_000, b"\0")
        warm(fs, "/small/warm")
        before = moved(fs).read_descriptor, moved(fs).read_grpc
        assert fs.get_many(list(model)) == list(model.values())
        assert moved(fs).read_descriptor - before[0] == sum(map(len, model.values()))
        assert moved(fs).read_grpc == before[1]
        fs.remove_tree("/small")


@pytest.mark.allow_log("damaged data")
def test_one_of_many_small_files_is_damaged(own_cluster: Cluster) -> None:
    segments = own_cluster.state_dir("datad-2") / "segments"
    rng = random.Random(4)
    model = {f"/{n}": rng.randbytes(50_000) for n in range(5)}
    with connect(own_cluster) as fs:
        fs.put_many(model)
        fs.write_bytes("/warm", rng.randbytes(200_000))
        warm(fs, "/warm")
        (path,) = (p for p in segments.iterdir() if model["/3"] in p.read_bytes())
        with path.open("r+b") as file:
            file.seek(path.read_bytes().index(model["/3"]) + 20_000)
            file.write(bytes([model["/3"][20_000] ^ 1]))
        found = fs.get_many(list(model))
        assert isinstance(found[3], OSError)
        assert found[3].errno == errno.EIO
        model.pop("/3")
        assert [data for n, data in enumerate(found) if n != 3] == list(model.values())
        own_cluster.datad.wait_for_log("damaged data")
        own_cluster.datad.forget_log()
        fs.unlink("/3")


def test_what_a_walk_gave_is_not_asked_for_again(cluster: Cluster) -> None:
    """Read by the attributes of a listing: as it was then, or, where that is gone, as it is."""
    rng = random.Random(6)
    sizes = {f"/known/{n}": rng.choice([0, 100, 9_000, 70_000]) for n in range(60)}
    model = {name: rng.randbytes(size) for name, size in sizes.items()}
    model["/known/long"] = rng.randbytes(3 << 20)
    with connect(cluster) as fs, connect(cluster) as other:
        fs.mkdir("/known")
        fs.put_many(model)
        fs.symlink("long", "/known/link")
        warm(fs, "/known/long")
        entries = [entry for _, _, files in fs.walk("/known") for entry in files]
        names, attrs = [e.path for e in entries], [e.attr for e in entries]
        model["/known/link"] = model["/known/long"]
        assert fs.get_many(names, attrs) == [model[name] for name in names]
        for name in ("/known/1", "/known/2", "/known/3"):
            model[name] = rng.randbytes(20_000)
            other.put_many({name: model[name]})
        other.unlink("/known/4")
        model.pop("/known/4")
        found = dict(zip(names, fs.get_many(names, attrs), strict=True))
        gone = found.pop("/known/4")
        stays = sizes["/known/4"] and not isinstance(gone, OSError)
        assert stays or isinstance(gone, FileNotFoundError)
        assert found == model
        fs.remove_tree("/known")
