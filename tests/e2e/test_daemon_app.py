"""run_daemon with a toy service: every way to start, fail and end; and membership in a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.clusterd import Clusterd
from harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOY = """
import asyncio, sys, threading
from dataclasses import dataclass, field
from superfs.core.errors import Code, FsError
from superfs.daemon import statedir
from superfs.daemon.app import run_daemon
from superfs.daemon.common import CommonConfig
from superfs.daemon.membership import Membership, fetch_map
from superfs.v1 import cluster_pb2

@dataclass(frozen=True, slots=True)
class Config:
    how: str = "serve"
    daemon: CommonConfig = field(default_factory=CommonConfig)

class Toy:
    def __init__(self, config, world):
        self.config, self.world = config, world
    async def start(self, group):
        how, common = self.config.how, self.config.daemon
        if how == "damaged":
            raise FsError(Code.DAMAGED, "the toy is damaged")
        if how == "bug":
            raise RuntimeError("a bug")
        if how == "task":
            group.create_task(self.fail())
        if how == "fatal":
            threading.Timer(0.05, self.world.fatal, ("the disk is gone",)).start()
        if how == "join":
            identity = statedir.read_identity(
                common.state_dir, role="toy", node_id=common.node_id, format_version=1)
            member = Membership(common, cluster_pb2.ROLE_DATA, self.world,
                                cluster_id=identity.cluster_id)
            await member.join(group)
            self.world.log.info("joined", epoch=member.map.epoch)
            group.create_task(self.follow(member))
    async def fail(self):
        await asyncio.sleep(0.05)
        raise FsError(Code.IO, "the disk said no")
    async def follow(self, member):
        found = await member.changed(member.map.epoch)
        self.world.log.info("news", epoch=found.epoch)
    def register(self, server):
        pass
    async def stop(self):
        self.world.log.info("drained")

def make_store(config, world):
    cluster_id = fetch_map(config.daemon, world).cluster_id
    statedir.write_identity(
        config.daemon.state_dir, statedir.Identity(cluster_id, "toy", config.daemon.node_id, 1))

run_daemon("toy", Config, Toy, format=make_store)
"""


class Toy:
    def __init__(self, home: Clusterd, node_id: int = 7) -> None:
        self.home = home
        self.state = home.dir / f"toy-{node_id}"
        self.config = home.dir / f"toy-{node_id}.toml"
        self.log = home.dir / f"toy-{node_id}.log"
        self.script = home.dir / "toy.py"
        self.script.write_text(TOY)
        self.node_id = node_id
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, how: str, more: str = "") -> None:
        self.config.write_text(
            f'how = "{how}"\n[daemon]\nnode_id = {self.node_id}\nstate_dir = "{self.state}"\n'
            f'key_file = "{self.home.key}"\ncluster = ["{self.home.target}"]\n'
            f'listen = ["unix:{self.home.dir}/toy-{self.node_id}.sock"]\n{more}'
        )

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self.script), "--config", str(self.config), *options],
                stdout=log,
                stderr=log,
            )
        return self.process

    def ended(self, *options: str) -> int:
        return self.start(*options).wait(30)

    def said(self, word: str) -> bool:
        return word in self.log.read_text()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def home() -> Iterator[Clusterd]:
    one = Clusterd()
    assert one.run("--format").returncode == 0
    yield one
    one.close()


@pytest.fixture
def toy(home: Clusterd) -> Iterator[Toy]:
    one = Toy(home)
    one.state.mkdir(mode=0o700)
    yield one
    one.close()


def test_serve_and_drain(toy: Toy) -> None:
    toy.configure("serve")
    process = toy.start()
    wait_until(lambda: toy.said('"serving"'), "serving")
    assert oct(os.stat(toy.state / "lock").st_mode & 0o777) == "0o600"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    events = [json.loads(line)["event"] for line in toy.log.read_text().splitlines()]
    assert events == ["serving", "drained", "stopped"]


@pytest.mark.parametrize(
    ("how", "status", "says"),
    [
        ("damaged", 78, "the toy is damaged"),
        ("bug", 1, "RuntimeError: a bug"),
        ("task", 75, "the disk said no"),
        ("fatal", 75, "the disk is gone"),
    ],
)
def test_failures_end_the_process(toy: Toy, how: str, status: int, says: str) -> None:
    toy.configure(how)
    assert toy.ended() == status
    assert toy.said(says)
    assert not toy.said("Exception ignored")


def test_an_address_in_use(toy: Toy) -> None:
    toy.configure("serve")
    toy.start()
    wait_until(lambda: toy.said('"serving"'), "serving")
    second = Toy(toy.home, 8)
    second.state.mkdir(mode=0o700)
    second.configure("serve")
    second.config.write_text(second.config.read_text().replace("toy-8.sock", "toy-7.sock"))
    assert second.ended() == 1
    assert second.said("another daemon already listens")
    port = next(
        json.loads(line)["metrics"]
        for line in toy.log.read_text().splitlines()
        if '"serving"' in line
    )
    second.configure("serve", f'metrics = "{port}"\n')
    assert second.ended() == 1
    assert second.said(f"metrics: cannot listen on {port}")
    assert not second.said("Traceback")
    assert toy.process is not None
    toy.process.terminate()
    assert toy.process.wait(30) == 0


def test_failpoints_that_make_no_sense_are_refused(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERFS_FAILPOINTS", "nonsense")
    toy.configure("serve", "failpoints = true\n")
    assert toy.ended() == 78
    assert toy.said("cannot understand")


def test_formatting_needs_clusterd_and_leaves_nothing_half_done(toy: Toy) -> None:
    toy.configure("join")
    assert toy.ended("--format") == 1
    assert toy.said("no clusterd answers at")
    toy.home.start()
    assert toy.ended("--format") == 0
    assert toy.ended("--format") == 78


def test_membership(toy: Toy) -> None:
    toy.home.start()
    toy.configure("join")
    assert toy.ended("--format") == 0
    toy.home.stop()
    process = toy.start()
    wait_until(lambda: toy.said("waiting for clusterd"), "waiting")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0  # while it waits it can be stopped
    process = toy.start()
    toy.home.log.unlink()
    toy.home.start()
    wait_until(lambda: toy.said('"joined"'), "joined")
    other = Toy(toy.home, 8)
    other.configure("join")
    assert other.ended("--format") == 0
    other.start()
    wait_until(lambda: toy.said('"news"'), "news of another daemon")
    toy.home.stop()  # the map is known: it goes on without clusterd
    for one in (toy.process, other.process):
        assert one is not None
        one.terminate()
        assert one.wait(30) == 0


def test_another_cluster(toy: Toy) -> None:
    toy.home.start()
    toy.configure("join")
    assert toy.ended("--format") == 0
    stranger = Clusterd()
    try:
        assert stranger.run("--format").returncode == 0
        stranger.start()
        config = toy.config.read_text()
        toy.config.write_text(config.replace(toy.home.target, stranger.target))
        assert toy.ended() == 78
        assert toy.said("does not know our key")
        toy.config.write_text(
            config.replace(toy.home.target, stranger.target).replace(
                str(toy.home.key), str(stranger.key)
            )
        )
        assert toy.ended() == 78
        assert toy.said("this daemon's data belongs to")
        assert toy.said(f"{toy.state}: clusterd at {stranger.target}")
        assert toy.said("correct `cluster` or `state_dir`")
        assert stranger.stop() == 0
    finally:
        stranger.close()


def test_printed_defaults_are_a_configuration(toy: Toy, tmp_path: Path) -> None:
    toy.configure("serve")
    printed = subprocess.run(
        [sys.executable, str(toy.script), "--print-config"], capture_output=True, check=True
    ).stdout
    (tmp_path / "printed.toml").write_bytes(printed)
    toy.config = tmp_path / "printed.toml"
    assert toy.ended("--check-config") == 0
