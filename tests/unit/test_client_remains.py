"""Whose process has died is known on its machine, and nobody waits for it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from superfs.client.remains import Remains
from unit.meta_exclusive import ExclusiveClient
from unit.meta_node import ROOT, make, ref, running

if TYPE_CHECKING:
    from pathlib import Path


def test_who_lives_is_not_dead(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    first, second = Remains("c", tmp_path), Remains("c", tmp_path)
    first.claim(7)
    second.claim(8)
    assert second.dead() == []
    assert first.dead() == []
    first.close()
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_who_has_died_is_found_by_one_and_buried_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    gone = Remains("c", tmp_path)
    gone.claim(7)
    gone.claim(9)  # its session had expired
    os.close(gone._fd)  # as the end of the process does
    first, second = Remains("c", tmp_path), Remains("c", tmp_path)
    assert first.dead() == [9]
    assert second.dead() == [], "it is the first one's to bury"
    assert Remains("another", tmp_path).dead() == []
    first.buried()
    assert second.dead() == []
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_left(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "1.session").write_bytes(b"{")
    (tmp_path / "2.session").write_bytes(b"[]")
    (tmp_path / "3.session").symlink_to("/etc/hostname")
    assert Remains("c", tmp_path).dead() == []


def test_a_directory_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    ours = Remains("c", tmp_path)
    ours.claim(7)
    assert list(tmp_path.iterdir()) == []
    ours.close()


def test_nobody_waits_for_a_session_that_is_known_to_be_dead(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            gone = ExclusiveClient(node, 1, acks=False)
            await gone.hello()
            made = await gone.directory(b"d")
            other = ExclusiveClient(node, 2)
            other.dead = [1]
            await other.hello()
            found = await asyncio.wait_for(other.good(getattr={"inode": ref(made)}), 5)
            assert found.attr.ino == made.ino
            assert node.sessions.get(1) is None
            await other.good(create={"dir": ROOT, "name": b"f", "mode": 0o100644})

    asyncio.run(run())
