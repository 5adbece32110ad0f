"""Small reads of places on this host that wait for a disk and not for a thread."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, cast

import pytest

from harness.front import front, read_in
from superfs.client.local import Descriptor
from superfs.client.sought import Sought
from superfs.core.extents import Extent
from superfs.core.limits import BLOCK_BYTES
from superfs.data.records import block_crcs
from superfs.mount.desk import protocol
from superfs.mount.desk.arrivals import EXPECTED_MAX, PATIENCE_NS, SLOW_READS, Arrivals
from superfs.mount.desk.protocol import Op

if TYPE_CHECKING:
    from pathlib import Path

SKIP, PLACE, OFFSET = 300, 1000, 5000
DATA = random.Random(1).randbytes(5 * BLOCK_BYTES + 777)
"""Of a blob, of which the first SKIP bytes are written over."""


class Later:
    """Bytes that are there after so many looks; None: never."""

    def __init__(self, data: bytes, looks: int | None) -> None:
        self.data, self.looks = data, looks

    def look(self) -> bytes | None:
        if self.looks is None or self.looks > 0:
            self.looks = None if self.looks is None else self.looks - 1
            return None
        return self.data


def sought(path: Path, start: int, end: int, came: list[int]) -> Sought:
    path.write_bytes(bytes(PLACE) + DATA)
    whole = Extent(OFFSET, len(DATA) - SKIP, 1, PLACE, len(DATA), SKIP, block_crcs(DATA))
    descriptor = Descriptor(os.open(path, os.O_RDONLY))
    return Sought(whole, descriptor, OFFSET + start, OFFSET + end, came.append)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 1), (0, 4096), (16_000, 17_000), (BLOCK_BYTES - SKIP, 2 * BLOCK_BYTES - SKIP),
     (5 * BLOCK_BYTES, 5 * BLOCK_BYTES + 10), (0, len(DATA) - SKIP)],
)  # fmt: skip
def test_what_is_in_memory_is_there_and_verified(tmp_path: Path, start: int, end: int) -> None:
    came: list[int] = []
    one = sought(tmp_path / "s", start, end, came)
    one.seek()
    assert one.look() == DATA[SKIP + start : SKIP + end]
    assert came == [end - start]


def test_a_block_that_does_not_match_never_comes(tmp_path: Path) -> None:
    one = sought(tmp_path / "s", 20_000, 20_100, [])
    with (tmp_path / "s").open("r+b") as file:
        file.seek(PLACE + SKIP + 20_500)
        file.write(bytes([DATA[SKIP + 20_500] ^ 1]))
    assert one.look() is None
    os.truncate(tmp_path / "s", PLACE + 100)
    assert one.look() is None


def test_who_is_late_is_told_and_the_next_ones_do_not_wait() -> None:
    given: list[bytes] = []
    late: list[str] = []
    now = [0]
    arrivals = Arrivals(given.append, lambda: now[0])
    assert arrivals.has_room()
    arrivals.expect(cast("Sought", Later(b"one", 1)), 1, lambda: late.append("one"))
    arrivals.expect(cast("Sought", Later(b"two", None)), 2, lambda: late.append("two"))
    arrivals.look()
    assert not given
    arrivals.look()
    assert given == [protocol.data(1, b"one")]
    now[0] += PATIENCE_NS
    arrivals.look()
    assert (late, arrivals.expected) == (["two"], [])
    assert not any(arrivals.has_room() for _ in range(SLOW_READS))
    assert arrivals.has_room()
    for number in range(EXPECTED_MAX):
        arrivals.expect(cast("Sought", Later(b"", None)), number, lambda: None)
    assert not arrivals.has_room()


@pytest.mark.parametrize("looks", [0, 3, None])
async def test_the_desk_answers_with_what_has_come(
    monkeypatch: pytest.MonkeyPatch, looks: int | None
) -> None:
    """Or, where it does not come, with what is read in another way."""
    async with front() as f:
        number = await f.world.write(b"a", b"hello" * 1000)
        fh, _ = await f.open(number)
        monkeypatch.setattr(
            f.world.services.files,
            "read_now",
            lambda *_, seek: Later(b"it", looks) if seek else None,
        )
        expected = b"it" if looks is not None else b"hello"
        assert await f.ask(Op.READ, number, read_in(fh, 0, 5)) == (0, expected)
        assert (await f.ask(Op.GETATTR, number, bytes(16)))[0] == 0
