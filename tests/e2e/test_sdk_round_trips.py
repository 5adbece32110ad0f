"""How many round trips a call takes, over a connection that makes each of them 60 ms."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from harness.slow import slow_socket
from harness.waiting import wait_until
from superfs.client import ClientConfig, FileSystem, connection
from superfs.client.datastream import DataStream
from superfs.rpc.channel import open_channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import grpc

    from harness.cluster import Cluster

LATE_S = 0.03  # much more than a busy machine adds
ROUND_TRIP_S = 2 * LATE_S
DEEP = "/".join(f"level{n}" for n in range(9))
TOPS = [f"/deep{n}" for n in range(5)]


@pytest.fixture
def near(cluster: Cluster) -> Iterator[FileSystem]:
    with FileSystem.connect(ClientConfig((cluster.target("clusterd"),), cluster.token_file)) as fs:
        for top in TOPS:
            fs.makedirs(f"{top}/{DEEP}")
            fs.put_many({f"{top}/{DEEP}/f{n}": b"contents" for n in range(50)})
        yield fs
        for top in TOPS:
            fs.remove_tree(top)


@pytest.fixture
def far(
    near: FileSystem, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileSystem]:
    """The same cluster, with metad far away. Connected, and nothing is known of any path."""
    metad = cluster.target("metad-1")
    with slow_socket(cluster.socket("metad-1"), tmp_path / "slow.sock", LATE_S) as slow:

        def channel(addresses: Sequence[str]) -> grpc.Channel:
            return open_channel([f"unix:{slow}"] if metad in addresses else addresses)

        monkeypatch.setattr(connection, "open_channel", channel)
        config = ClientConfig((cluster.target("clusterd"),), cluster.token_file)
        with FileSystem.connect(config) as fs:
            fs.statvfs()
            yield fs


def cost(fs: FileSystem, call: Callable[[str], object]) -> tuple[int, float]:
    """(messages, seconds) of the cheapest of five, each on a path of its own."""
    costs = []
    for top in TOPS:
        before = sum(stream.messages_sent for stream in fs.connection._streams())
        start = time.perf_counter()
        call(top)
        seconds = time.perf_counter() - start
        after = sum(stream.messages_sent for stream in fs.connection._streams())
        costs.append((after - before, seconds))
    return min(costs)


def test_a_path_ten_deep_takes_one_round_trip(far: FileSystem) -> None:
    calls: list[Callable[[str], object]] = [
        lambda top: far.stat(f"{top}/{DEEP}/f0"),
        lambda top: far.stat(f"{top}/{DEEP}"),
        lambda top: far.exists(f"{top}/{DEEP}/missing"),
        lambda top: far.exists(f"{top}/level0/no/such/path/at/all"),
        lambda top: far.read_bytes(f"{top}/{DEEP}/f0"),
    ]
    for call in calls:
        messages, seconds = cost(far, call)
        assert messages == 1
        assert ROUND_TRIP_S <= seconds < 2 * ROUND_TRIP_S


def test_many_in_one_deep_directory_take_two(far: FileSystem) -> None:
    names = [f"f{n}" for n in range(50)]
    calls: list[Callable[[str], object]] = [
        lambda top: far.stat_many(f"{top}/{DEEP}/{name}" for name in names),
        lambda top: far.get_many(f"{top}/{DEEP}/{name}" for name in names),
        lambda top: far.put_many({f"{top}/{DEEP}/{name}": b"new" for name in names}),
        lambda top: far.listdir(f"{top}/{DEEP}"),
    ]
    for call in calls:
        assert cost(far, call)[0] == 2


def test_what_was_not_foreseen_takes_one_more(near: FileSystem, far: FileSystem) -> None:
    for top in TOPS:
        near.rename(f"{top}/level0/level1", f"{top}/level0/renamed")
        near.symlink("renamed/level2", f"{top}/level0/link")
    rest = "/".join(f"level{n}" for n in range(3, 9))
    assert cost(far, lambda top: far.stat(f"{top}/level0/renamed/level2/{rest}/f0"))[0] == 2
    assert cost(far, lambda top: far.stat(f"{top}/level0/link/{rest}/f0"))[0] == 3


def test_making_directories_takes_one_each(far: FileSystem) -> None:
    assert cost(far, lambda top: far.makedirs(f"{top}/{DEEP}", exist_ok=True))[0] == 1
    assert cost(far, lambda top: far.makedirs(f"{top}/{DEEP}/a/b/c"))[0] == 1 + 3


def test_nobody_waits_for_the_daemons_of_this_host_to_be_found(cluster: Cluster) -> None:
    """A client connects to them before it is asked for anything."""
    with FileSystem.connect(ClientConfig((cluster.target("clusterd"),), cluster.token_file)) as fs:
        wait_until(
            lambda: (
                [
                    stream.local is not None and stream.local.ready
                    for stream in fs.connection.data_streams()
                ]
                == [True]
            ),
            "a connection to the data daemon's own socket",
        )


def test_the_first_read_waits_for_the_socket_of_a_daemon_that_has_just_answered(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may ask between the welcome and the socket that the welcome has named."""
    found = []
    opened = DataStream._open_local

    def open_local(stream: DataStream) -> None:
        found.append(stream.may_be_near(wait=True))
        opened(stream)

    monkeypatch.setattr(DataStream, "_open_local", open_local)
    with FileSystem.connect(ClientConfig((cluster.target("clusterd"),), cluster.token_file)):
        wait_until(lambda: found, "a welcome of the data daemon")
    assert found[0]
