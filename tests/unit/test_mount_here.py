"""What a mount does by itself, as its kernel and the mount's own memory see it."""

from __future__ import annotations

import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from harness.front import front, write_in
from harness.memmount import Kernel
from superfs.client.delegation import inodes as delegated_inodes
from superfs.client.delegation import journal
from superfs.client.delegation.meta import DelegatedMeta
from superfs.client.delegation.state import Delegations
from superfs.client.opening import _open_file
from superfs.core.attrs import Attr, Set
from superfs.core.errors import Code, FsError
from superfs.core.limits import MESSAGE_DATA_BYTES_MAX
from superfs.core.namespace.txn import Caller, Ref
from superfs.mount import encode
from superfs.mount.desk.protocol import WRITE_CACHE, Op
from superfs.mount.leases import NEVER
from superfs.mount.nodes import Node
from superfs.mount.options import MountOptions
from superfs.mount.services import Services
from superfs.rpc.pending import run_sync
from unit.delegation_world import ROOT_REF, Client, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.client.paths import Paths
    from superfs.core.namespace.outcome import Outcome

WHO = Caller(0, 0)
FILE = stat.S_IFREG | 0o644


class Scene:
    """A mount that holds a directory; what it told the kernel, and had told before each change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = Client(Server())
        self.kernel = Kernel()
        self.services = Services.make(
            self.client.meta, lambda _: pytest.fail("nothing is written"), MountOptions(), ROOT_REF,
            kernel=self.kernel, now=lambda: self.client.clock,
        )  # fmt: skip
        self.mounted = self.services.mounted
        self.mounted.leases.extend(1e9)
        self.before: list[list[int]] = []
        for verb in ("setattr_here", "unlink_here", "rename_here", "link_here", "rmdir_here"):
            monkeypatch.setattr(DelegatedMeta, verb, self.recorded(getattr(DelegatedMeta, verb)))

    def recorded(self, verb: Callable[..., Outcome | None]) -> Callable[..., Outcome | None]:
        def recording(*args: Any, **options: Any) -> Outcome | None:  # noqa: ANN401
            self.before.append(list(self.kernel.attrs))
            return verb(*args, **options)

        return recording

    async def told(self, node: Node) -> Node:
        """The kernel is told of it, and may believe it."""
        node = self.mounted.nodes.count(node)
        await self.mounted.attr(node)
        assert self.services.validity.attr_s(node, self.client.clock) > 0
        self.kernel.attrs.clear()
        return node

    async def directory(self) -> Node:
        root = self.mounted.nodes.root
        return self.mounted.nodes.count(await self.services.names.mkdir(root, b"mine", 0o755, WHO))

    async def file(self, directory: Node, name: bytes = b"a") -> Node:
        node = self.services.names.create_here(directory, name, FILE, WHO)
        assert node is not None
        return await self.told(node)


async def test_the_kernel_drops_what_others_may_see_changed_before_it_has_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    names, inodes = scene.services.names, scene.services.inodes
    directory = await scene.directory()
    node = await scene.file(directory)
    mode = int(Set.MODE)
    assert inodes.setattr_here(node, mode, WHO, mode=0o600)
    assert scene.before.pop() == [node.number]
    assert inodes.setattr_here(node, mode, WHO, mode=0o644)
    assert scene.before.pop() == [node.number], "it was told nothing since"
    await scene.told(node)
    assert names.link_here(node, directory, b"b", WHO) is node
    assert scene.before.pop() == [node.number]
    await scene.told(node)
    assert names.rename_here(directory, b"b", b"c", 0, WHO)
    assert scene.before.pop() == [node.number]
    await scene.told(node)
    assert names.unlink_here(directory, b"c", WHO)
    assert scene.before.pop() == [node.number]
    below = names.mkdir_here(directory, b"d", 0o755, WHO)
    if below is not None:
        await scene.told(below)
        assert names.rmdir_here(directory, b"d", WHO)
        assert below.number in scene.before.pop()


async def test_times_of_a_mapping_that_was_written_back_are_asked_for_again() -> None:
    async with front() as f:
        number = await f.world.write(b"a", b"hello")
        for flags, dropped in ((0, []), (WRITE_CACHE, [number])):
            fh, _ = await f.open(number, 2)
            await f.ask(Op.WRITE, number, write_in(fh, 0, b"H", flags))
            f.world.kernel.attrs.clear()
            await f.ask(Op.FLUSH, number, fh.to_bytes(8, "little") + bytes(16))
            assert f.world.kernel.attrs == dropped
            await f.ask(Op.RELEASE, number, fh.to_bytes(8, "little") + bytes(16))
            assert f.world.kernel.attrs == dropped


def test_how_long_times_are_good_is_known_before_they_are_looked_at() -> None:
    """Another thread may publish them in between."""
    old, new = (Attr(1, 1, 1, FILE, 1, 0, 0, ctime_ns=ctime) for ctime in (1, 2))
    contents = SimpleNamespace(attr=old)
    node = Node(1, 1, 1, 1, attr=old)
    node.file = cast("Any", SimpleNamespace(contents=contents))

    class Published:
        def attr_s(self, _node: Node, _now: float) -> float:
            contents.attr = new
            return 3600.0

        def entry_s(self, _node: Node, _now: float) -> float:
            return 0.0

    entry = encode.encode(node, cast("encode.Validity", Published()), 0.0)
    assert (entry.st_ctime_ns, entry.attr_timeout) == (2, 3600.0)


def test_whether_the_log_is_full_is_asked_under_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Server())

    def is_full(state: Delegations) -> bool:
        assert state.lock._is_owned()  # type: ignore[attr-defined]
        return False

    monkeypatch.setattr(Delegations, "is_full", property(is_full))
    run_sync(client.meta.room())


def test_a_part_that_is_full_of_kept_contents_is_sealed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "PART_CONTENTS_BYTES", 100)
    client = Client(Server())
    attr = run_sync(client.meta.mkdir(ROOT_REF, b"mine", 0o755)).attr
    assert attr is not None
    mine = Ref(attr.ino, attr.generation, attr.ino)
    first = client.meta.create_here(mine, b"a", FILE)
    assert first is not None
    assert first.attr is not None
    part = client.state.part
    client.meta.kept(first.attr.ino, 100)
    assert client.state.part is not part


async def test_an_open_does_not_fail_because_a_data_daemon_is_not_known() -> None:
    attr = Attr(1, 1, 1, FILE, 1, 0, 0, MESSAGE_DATA_BYTES_MAX + 1, chains=(9,))

    def learn(*_: object) -> None:
        raise FsError(Code.UNAVAILABLE, "no data daemon holds chain 9 yet")

    async def resolve(*_: object, **__: object) -> object:
        return SimpleNamespace(attr=attr)

    async def opened(*_: object, **__: object) -> object:
        return SimpleNamespace(attr=attr, losses=0)

    paths = SimpleNamespace(
        meta=None,
        connection=SimpleNamespace(data=SimpleNamespace(learn=learn)),
        files=SimpleNamespace(open=opened),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("superfs.client.opening.resolve", resolve)
        await _open_file(cast("Paths", paths), "/f", 0, 0)
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("recalled", [False, True])
async def test_contents_of_before_a_recall_are_not_taken_for_those_of_after_it(
    monkeypatch: pytest.MonkeyPatch, recalled: bool
) -> None:
    """Another client has written in between; this one has come to hold the directory since."""
    scene = Scene(monkeypatch)
    directory = await scene.directory()
    node = await scene.file(directory)
    assert node.attr is not None
    contents = scene.mounted.contents
    assert contents.keep(node, node.attr.change, b"", contents.clock)
    if recalled:
        node.lease = NEVER
    assert scene.services.inodes.setattr_here(node, int(Set.MODE), WHO, mode=0o600)
    assert contents.peek(node, 0, 10) == (None if recalled else b"")


def test_what_a_data_daemon_has_yet_to_do_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Server())
    attr = run_sync(client.meta.mkdir(ROOT_REF, b"mine", 0o755)).attr
    assert attr is not None
    made = client.meta.create_here(Ref(attr.ino, attr.generation, attr.ino), b"a", FILE)
    assert made is not None
    assert made.attr is not None
    ref = Ref(made.attr.ino, made.attr.generation, made.attr.place)

    def busy(*_: object, **__: object) -> None:
        raise FsError(Code.BUSY, "its tail is being cut off")

    monkeypatch.setattr(delegated_inodes, "setattr_", busy)
    assert client.meta.setattr_here(ref, int(Set.MODE), mode=0o600) is None
