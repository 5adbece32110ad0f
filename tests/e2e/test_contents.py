"""Many small files read through a mount that has not seen them: right, and never stale while
another client writes them."""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING

import pytest

from harness.mount import Mount

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from superfs.client import FileSystem

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
FILES, ROUNDS, WRITES_MIN = 600, 4, 100


def contents(number: int, version: int) -> bytes:
    """Of many sizes, on both sides of what metad keeps; all of one version."""
    size = (0, 10, 4000, 8160, 8161, 20_000, 70_000)[number % 7]
    word = b"%06d.%06d " % (number, version)
    return (word * (size // len(word) + 1))[: max(size, len(word))]


def version_of(data: bytes) -> int:
    return int(data[7:13])


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
def test_every_file_is_what_was_written(
    cluster: Cluster, sdk: FileSystem, listed: bool, shuffled: bool
) -> None:
    sdk.mkdir("/many")
    sdk.put_many({f"/many/{number:04}": contents(number, 0) for number in range(FILES)})
    order = list(range(FILES))
    if shuffled:
        random.Random(1).shuffle(order)
    with Mount(cluster, f"contents-{listed}-{shuffled}") as mount:
        if listed:
            assert len(os.listdir(mount.point / "many")) == FILES
        for number in order:
            assert (mount.point / "many" / f"{number:04}").read_bytes() == contents(number, 0)
        assert not mount.trouble()
    sdk.remove_tree("/many")


def test_no_version_is_read_after_the_next_one_is_written(
    cluster: Cluster, sdk: FileSystem
) -> None:
    """Two readers go through a directory while it is written through another mount: what was closed
    before a file is opened must be read."""
    sdk.mkdir("/busy")
    sdk.put_many({f"/busy/{number:04}": contents(number, 0) for number in range(FILES)})
    written = [0] * FILES
    stop = threading.Event()
    wrong: list[str] = []

    def write(mount: Mount) -> None:
        rng = random.Random(2)
        while not stop.is_set():
            number = rng.randrange(FILES)
            data = contents(number, written[number] + 1)
            path = mount.point / "busy" / f"{number:04}"
            if rng.random() < 0.5:
                path.write_bytes(data)
            else:
                path.with_name("new").write_bytes(data)
                path.with_name("new").rename(path)
            written[number] += 1

    def read(mount: Mount, seed: int) -> None:
        rng = random.Random(seed)
        turn = 0
        while turn < ROUNDS or sum(written) < WRITES_MIN:
            turn += 1
            order = list(range(FILES))
            if turn % 2:
                rng.shuffle(order)
            for number in order:
                before = written[number]
                with open(mount.point / "busy" / f"{number:04}", "rb") as file:
                    data = file.read()
                if data and version_of(data) < before:
                    wrong.append(f"{number}: {version_of(data)} after {before}")

    with Mount(cluster, "writer") as there, Mount(cluster, "reader") as here:
        writer = threading.Thread(target=write, args=(there,))
        readers = [threading.Thread(target=read, args=(here, seed)) for seed in (3, 4)]
        for thread in (writer, *readers):
            thread.start()
        for thread in readers:
            thread.join()
        stop.set()
        writer.join()
        assert not wrong, wrong[:20]
        assert sum(written) >= WRITES_MIN
        assert not there.trouble()
        assert not here.trouble()
    sdk.remove_tree("/busy")
