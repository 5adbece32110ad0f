"""Large pages of a slab: made behind the back of those who use it, and only where they can be."""

from __future__ import annotations

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from harness.kvbench import GRANULE, Bench
from superfs.data.kvcache.gathering import STEP_BYTES, gather
from superfs.rpc.window import HUGE_BYTES, Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from superfs.data.kvcache.slab import Slab


@pytest.fixture
def slab(tmp_path: Path) -> Iterator[Slab]:
    found = Bench(tmp_path, (2 * STEP_BYTES + HUGE_BYTES) // GRANULE + 1).pool.slab
    yield found
    found.close()


def gathered(slab: Slab) -> int:
    with ThreadPoolExecutor(1) as threads:
        return asyncio.run(gather(slab, threads))


@pytest.mark.parametrize(
    ("code", "asked", "done"), [(errno.EAGAIN, 3, HUGE_BYTES + STEP_BYTES), (errno.EINVAL, 2, 0)]
)
def test_what_the_kernel_refuses_is_left_small(
    slab: Slab, monkeypatch: pytest.MonkeyPatch, code: int, asked: int, done: int
) -> None:
    seen: list[tuple[int, int]] = []

    def refuse(_: Window, offset: int, length: int) -> None:
        seen.append((offset, length))
        if len(seen) == 2:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Window, "gather", refuse)
    assert gathered(slab) == (done or STEP_BYTES)
    assert len(seen) == asked
    assert seen[0] == (0, STEP_BYTES)
    assert seen[1:] == [(STEP_BYTES, STEP_BYTES), (2 * STEP_BYTES, HUGE_BYTES)][: asked - 1]


def test_it_ends_when_it_is_told_to(slab: Slab) -> None:
    """And lets nothing go on in a thread that is about to be unmapped."""

    async def begun() -> None:
        with ThreadPoolExecutor(1) as threads:
            task = asyncio.get_running_loop().create_task(gather(slab, threads))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(begun())
    assert slab.read(0, 0, 1) == b"\0"


def test_nothing_is_said_where_there_is_no_window(
    slab: Slab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no")

    monkeypatch.setattr(Window, "__init__", refuse)
    assert gathered(slab) == 0
