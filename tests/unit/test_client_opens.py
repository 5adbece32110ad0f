"""What the client tells metad about open files when opens, closes and cancellations meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from superfs.client.handles import OpenFiles
from superfs.client.meta import MetaClient
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.txn import Ref
from superfs.rpc.bridge import drive
from superfs.rpc.pending import Pending, gather, run_sync

if TYPE_CHECKING:
    from superfs.client.ops import Call

FILE = Ref(7, 1, 3)


class Meta(MetaClient):
    """`said` is what reached the server, in order; `hold` verbs wait for `go_on`."""

    def __init__(self, *hold: str) -> None:
        router: Any = self
        super().__init__(router)
        self.said: list[str] = []
        self.hold = set(hold)
        self.go_on: Pending[None] = Pending()

    def meta_stream(self, _key: int) -> Any:  # noqa: ANN401
        return None

    async def run(self, call: Call, *_: object, **__: object) -> Outcome:
        self.said.append(f"{call.verb} sent")
        if call.verb in self.hold:
            await self.go_on
        self.said.append(f"{call.verb} done")
        return Outcome()


def test_an_open_waits_for_the_release_that_would_end_it() -> None:
    meta = Meta("release")
    meta.note_open(FILE)

    async def finish() -> None:
        assert meta.said == ["release sent"]
        meta.go_on.complete(None)

    async def test() -> None:
        await gather([meta.release([FILE]), _quiet(meta.open(FILE)), finish()])

    run_sync(test())
    assert meta.said == ["release sent", "release done", "open sent", "open done"]
    assert meta.open_refs == [FILE]
    run_sync(meta.release([FILE]))
    assert meta.open_refs == []


async def _quiet(coro: Any) -> None:  # noqa: ANN401
    await coro


async def test_an_open_that_was_cancelled_is_released() -> None:
    meta = Meta("open")

    class Background:
        def call_later(self, *_: object) -> None:
            """Nothing rings: the test releases."""

    connection: Any = type("Connection", (), {"meta": meta, "background": Background()})
    files = OpenFiles(connection)
    attr: Any = type("Attr", (), {"ino": FILE.ino, "generation": 1, "place": FILE.place})
    with trio.CancelScope() as scope:
        scope.cancel()
        await drive(files.open(attr))
    assert scope.cancelled_caught
    await drive(files.release())
    assert meta.said == ["open sent", "release sent", "release done"]
    assert meta.open_refs == []


@pytest.mark.parametrize("count", [1, 3])
def test_the_last_release_is_the_one_that_is_told(count: int) -> None:
    meta = Meta()
    for _ in range(count):
        run_sync(meta.open(FILE))
    for left in range(count - 1, -1, -1):
        run_sync(meta.release([FILE]))
        assert meta.said.count("release done") == (left == 0)
