"""kill -9 at every failpoint of a metadata daemon, then a new start on what is left: what was
answered is there, what is sent again is answered the same and done once."""

from __future__ import annotations

import asyncio
import base64
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from superfs.v1 import meta_pb2
from unit import meta_victim
from unit.meta_node import ROOT, FakeDataDaemons, TestClient, make, running

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.meta.config import MetadConfig

POINTS = [
    "metad.commit.before",
    "metad.commit.after",
    "metad.reply.before",
    "metad.reap.before",
    "metad.settle.before",
]


def kill_at(state_dir: Path, failpoints: str) -> list[meta_pb2.Result]:
    """The answers that the client got before the daemon died."""
    done = subprocess.run(
        [sys.executable, meta_victim.__file__, str(state_dir), failpoints],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    lines = [line for line in done.stdout.splitlines() if not line.startswith(b"20")]
    return [meta_pb2.Result.FromString(base64.b64decode(line)) for line in lines]


async def names(client: TestClient) -> bytes:
    return bytes((await client.good(read_dir={"dir": ROOT})).listing.names)


def comparable(results: list[meta_pb2.Result]) -> list[meta_pb2.Result]:
    """A truncation is first answered with the commit that ended it, later with the one that began
    it; a client takes the newer of two answers."""
    for result in results:
        result.attr.change = 0
    return results


async def finish(made: MetadConfig, answered: list[meta_pb2.Result]) -> bytes:
    """The same workload again, over the restart: every answer of before comes back."""
    results: list[meta_pb2.Result] = []
    async with running(made, FakeDataDaemons()) as node:
        client = TestClient(node)
        await client.hello()
        await meta_victim.workload(client, results.append)
        assert comparable(results[: len(answered)]) == comparable(answered)
        return await names(client)


def undisturbed(state_dir: Path) -> bytes:
    state_dir.mkdir()
    return asyncio.run(finish(make(state_dir), []))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("point", POINTS)
def test_kill_at_every_failpoint(tmp_path: Path, point: str, count: int) -> None:
    state_dir = tmp_path / "killed"
    state_dir.mkdir()
    made = make(state_dir)
    answered = kill_at(state_dir, f"{point}=kill*{count}")
    found = asyncio.run(finish(made, answered))
    assert found == undisturbed(tmp_path / "whole")
