"""What a mount lets others see: its counters, and its requests while somebody watches."""

from __future__ import annotations

import json
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from harness.memmount import TOP, World, ctx
from superfs.client import windows
from superfs.client.config import ClientConfig
from superfs.core.errors import Code, FsError
from superfs.mount import accesses
from superfs.mount.accesses import Access, Accesses, Paths
from superfs.mount.desk import protocol
from superfs.mount.desk.device import Device
from superfs.mount.desk.protocol import HEADER, HEADER_BYTES, Op
from superfs.mount.figures import Figures
from superfs.mount.meter import Meter
from superfs.mount.window import LOOKERS_MAX, Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from superfs.mount.services import Services


def request(op: int, unique: int, number: int, body: bytes = b"", pid: int = 0) -> memoryview:
    length = HEADER_BYTES + len(body)
    head = HEADER.pack(length, op, unique, number, 1000, 1000, pid or os.getpid(), 0, 0)
    return memoryview(head + body)


# ---- requests


def test_a_request_is_known_by_its_answer() -> None:
    seen = Accesses()
    seen.began(request(Op.LOOKUP, 2, 7, b"name\0"))
    seen.began(request(35, 4, 8, bytes(16) + b"made\0"))
    seen.began(request(Op.FORGET, 6, 8, bytes(8)))
    assert seen.take(10) == [], "nothing has ended"
    seen.ended((protocol.error(4, 17),))
    seen.ended((protocol.data_header(2, 5), b"12345"))
    seen.ended((protocol.done(99),))
    create, lookup = seen.take(10)
    assert (create.operation, create.number, create.name, create.errno) == (
        "create", 8, b"made", 17,
    )  # fmt: skip
    assert (lookup.operation, lookup.name, lookup.errno, lookup.bytes) == ("lookup", b"name", 0, 10)
    assert lookup.duration_ns >= create.duration_ns >= 0
    assert (lookup.pid, lookup.uid) == (os.getpid(), 1000)
    assert lookup.command
    assert not seen._under_way


def test_who_looks_too_seldom_loses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesses, "RING_MAX", 3)
    monkeypatch.setattr(accesses, "UNDER_WAY_MAX", 2)
    seen = Accesses()
    for unique in range(5):
        seen.began(request(Op.GETATTR, unique, unique))
        seen.ended((protocol.done(unique),))
    assert seen.lost == 2
    assert [access.number for access in seen.take(2)] == [2, 3]
    for unique in range(10, 13):
        seen.began(request(Op.GETATTR, unique, unique))
    assert seen.lost == 3, "and what was never answered takes no memory"


async def test_a_file_is_in_its_directory() -> None:
    w = World()
    made = await w.ops.mkdir(TOP, b"d", 0o755, ctx())
    below = await w.ops.mkdir(made.st_ino, b"\xffe", 0o755, ctx())
    await w.write(b"first", b"")
    ino = await w.write(b"file", b"", parent=below.st_ino)
    paths = Paths(w.services.mounted)

    def at(number: int, name: bytes = b"") -> str:
        access = Access("getattr", number, name, 1, "", 0, 0, 0, 0, 0)
        return paths.path_of(paths.directory_of(access))

    assert at(ino) == "/d/\\xffe"
    assert at(below.st_ino) == "/d/\\xffe"
    assert at(made.st_ino, b"anything") == "/d"
    assert at(TOP) == "/"
    assert at(12345) == "inode 12345"
    w.services.mounted.cache.places.clear()
    assert Paths(w.services.mounted).path_of(made.st_ino) == f"/inode {made.st_ino}"


# ---- the socket


class Looker:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._waiting = b""

    async def ask(self, line: bytes) -> dict[str, Any]:
        await self.stream.send_all(line + b"\n")
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        with trio.fail_after(10):
            while b"\n" not in self._waiting:
                data = await self.stream.receive_some()
                assert data, "it has hung up"
                self._waiting += data
        line, _, self._waiting = self._waiting.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


class Seen:
    def __init__(self, path: Path, device: Device, services: Services) -> None:
        self.path, self.device, self.services = path, device, services
        self.lookers: list[Looker] = []

    async def look(self) -> Looker:
        looker = Looker(await trio.open_unix_socket(os.fspath(self.path)))
        self.lookers.append(looker)
        return looker


@asynccontextmanager
async def window(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Seen]:
    monkeypatch.setattr(windows, "directory_of", lambda _uid: directory / "mounts")
    w = World()
    read, write = os.pipe()
    device = Device(write)
    figures = Figures(Meter(), "/mnt", ClientConfig())
    path = windows.socket_of(os.getpid())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Window(w.services, device, figures).run)
            with trio.fail_after(10):
                while not path.exists():
                    await trio.lowlevel.checkpoint()
            seen = Seen(path, device, w.services)
            yield seen
            for looker in seen.lookers:
                await looker.stream.aclose()
            nursery.cancel_scope.cancel()
    finally:
        os.close(read)
        os.close(write)
    assert not path.exists()


async def test_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with window(tmp_path, monkeypatch) as seen:
        assert seen.path.stat().st_mode & 0o777 == 0o600
        assert seen.path.parent.stat().st_mode & 0o777 == 0o700
        looker = await seen.look()
        for _ in range(2):
            found = await looker.ask(b'{"ask": "stats"}')
            assert (found["mountpoint"], found["pid"]) == ("/mnt", os.getpid())


@pytest.mark.parametrize("line", [b"", b"stats", b"[]", b'{"ask": 5}', b"\xff"])
async def test_other_questions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    async with window(tmp_path, monkeypatch) as seen:
        looker = await seen.look()
        assert "error" in await looker.ask(line)
        assert "pid" in await looker.ask(b'{"ask": "stats"}'), "and the next one is answered"


async def test_a_line_without_an_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with window(tmp_path, monkeypatch) as seen:
        looker = await seen.look()
        await looker.stream.send_all(b"x" * (2 * windows.LINE_BYTES_MAX))
        assert (await looker.hear())["error"] == "that line is too long"


async def test_too_many_lookers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with window(tmp_path, monkeypatch) as seen:
        lookers = [await seen.look() for _ in range(LOOKERS_MAX)]
        for looker in lookers:
            assert "pid" in await looker.ask(b'{"ask": "stats"}')
        assert "others are looking" in (await (await seen.look()).hear())["error"]


async def test_requests_are_recorded_only_while_somebody_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with window(tmp_path, monkeypatch) as seen:
        assert seen.device.watcher is None
        looker = await seen.look()
        await looker.ask(b'{"ask": "watch"}')
        assert seen.device.watcher is not None
        seen.device.watcher.began(request(Op.GETATTR, 2, TOP))
        seen.device.watcher.ended((protocol.done(2),))
        message = await looker.hear()
        while not message["accesses"]:
            message = await looker.hear()
        assert message["accesses"][0]["operation"] == "getattr"
        assert message["paths"] == {str(TOP): "/"}
        other = await seen.look()
        assert "already" in (await other.ask(b'{"ask": "watch"}'))["error"]
        await looker.stream.aclose()
        with trio.fail_after(10):
            while seen.device.watcher is not None:
                await trio.lowlevel.checkpoint()


@pytest.mark.allow_log("not a private directory")
async def test_a_directory_that_is_not_private_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(windows, "directory_of", lambda _uid: tmp_path)
    os.chmod(tmp_path, 0o777)
    w = World()
    read, write = os.pipe()
    device = Device(write)
    await Window(w.services, device, Figures(Meter(), "/mnt", ClientConfig())).run()
    assert "not a private directory" in caplog.text
    os.close(read)
    os.close(write)


async def test_a_loss_is_told_though_another_sync_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with window(tmp_path, monkeypatch) as seen:
        looker = await seen.look()
        seen.services.mounted.lost.count = 3

        cut_off = [FsError(Code.UNAVAILABLE, "metad-1 cannot be reached")]

        async def sync(_services: Services) -> int:
            if cut_off:
                raise cut_off.pop()
            return 0

        monkeypatch.setattr(type(seen.services), "sync", sync)
        assert "error" in await looker.ask(b'{"ask": "sync"}')
        assert (await looker.ask(b'{"ask": "sync"}'))["lost"] == 3
        assert (await looker.ask(b'{"ask": "sync"}'))["lost"] == 0


async def test_a_loss_that_nobody_has_heard_of_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with window(tmp_path, monkeypatch) as seen:
        seen.services.mounted.lost.count = 3
        asked, over = trio.Event(), trio.Event()

        async def late(_services: Services) -> int:
            asked.set()
            await over.wait()
            return 0

        monkeypatch.setattr(type(seen.services), "sync", late)
        gone = await trio.open_unix_socket(os.fspath(seen.path))
        await gone.send_all(b'{"ask": "sync"}\n')
        await asked.wait()
        await gone.aclose()
        over.set()
        looker = await seen.look()
        assert (await looker.ask(b'{"ask": "sync"}'))["lost"] == 3


def test_who_listens_there_is_root_or_this_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else he could say which token is to be sent, and where to."""
    monkeypatch.setattr(windows, "directory_of", lambda _uid: tmp_path / "mounts")
    path = windows.socket_of(7)
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        assert windows.all_sockets() == [path]
        windows.connect(path, 1.0).close()
        monkeypatch.setattr(windows, "uid_of", lambda _peer: os.geteuid() + 12_345)
        with pytest.raises(PermissionError):
            windows.connect(path, 1.0)
        path.parent.chmod(0o755)
        assert windows.all_sockets() == [], "somebody may have been first there"
