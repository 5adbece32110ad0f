"""A file in the address space that only the kernel touches: the same bytes, and errors instead of
signals."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from superfs.core.limits import MIB
from superfs.rpc import window
from superfs.rpc.window import HUGE_BYTES, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 3 * HUGE_BYTES + 100


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """Of a file on a tmpfs where there is one."""
    shm = Path("/dev/shm")
    path = (shm if os.access(shm, os.W_OK) else tmp_path) / f"superfs-window-{os.getpid()}"
    found = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    path.unlink()
    os.posix_fallocate(found, 0, SIZE)
    yield found
    os.close(found)


@pytest.fixture
def there(descriptor: int) -> Iterator[Window]:
    found = Window(descriptor, SIZE)
    yield found
    found.close()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_written_is_in_the_file(there: Window, descriptor: int, kind: type) -> None:
    data = os.urandom(MIB + 17)
    there.write(kind(data), 4095)
    there.write(kind(data[:1]), SIZE - 1)
    there.write(b"", SIZE)
    assert os.pread(descriptor, len(data), 4095) == data
    assert os.pread(descriptor, 1, SIZE - 1) == data[:1]
    assert not any(os.pread(descriptor, 4095, 0))


def test_by_several_threads(there: Window, descriptor: int) -> None:
    parts = [os.urandom(HUGE_BYTES // 4) for _ in range(12)]

    def write(first: int) -> None:
        for n in range(first, len(parts), 3):
            there.write(parts[n], n * len(parts[n]))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.pread(descriptor, SIZE, 0)[: 3 * HUGE_BYTES] == b"".join(parts)


def test_nothing_outside_of_it(there: Window) -> None:
    for data, offset in ((b"ab", SIZE - 1), (b"a", -1), (b"a", SIZE)):
        with pytest.raises(OSError, match="outside"):
            there.write(data, offset)
    there.close()
    with pytest.raises(OSError, match="outside"):
        there.write(b"a", 0)


def test_a_file_that_was_cut_short_is_an_error(there: Window, descriptor: int) -> None:
    os.ftruncate(descriptor, HUGE_BYTES)
    there.write(b"here", 0)
    for data, offset in ((b"gone", HUGE_BYTES), (b"half" * 4096, HUGE_BYTES - 4096)):
        with pytest.raises(OSError) as found:  # noqa: PT011
            there.write(data, offset)
        assert found.value.errno == errno.EFAULT
    assert os.pread(descriptor, 4, 0) == b"here"


def test_large_pages_hold_the_same_bytes(there: Window, descriptor: int) -> None:
    data = os.urandom(2 * HUGE_BYTES)
    there.write(data, 0)
    try:
        there.gather(0, 2 * HUGE_BYTES)
    except OSError as error:
        pytest.skip(f"the kernel makes none: {error}")
    assert os.pread(descriptor, len(data), 0) == data
    there.write(data[::-1], 0)
    assert os.pread(descriptor, len(data), 0) == data[::-1]
    with pytest.raises(OSError, match="outside"):
        there.gather(MIB, HUGE_BYTES)


def test_where_the_call_is_forbidden(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "_copy", None)
    with pytest.raises(OSError) as found:  # noqa: PT011
        Window(descriptor, SIZE)
    assert found.value.errno == errno.ENOSYS
