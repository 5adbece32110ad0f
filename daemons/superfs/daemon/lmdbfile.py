"""Looking at an LMDB file before LMDB does.

LMDB takes an empty file for a new store, answers a zeroed page with abort() and a file that is
too short with SIGBUS. So the head of the file is checked here, and everything else is read by a
child process first, whose death becomes a message.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import lmdb

from superfs.core.errors import Code, FsError, known_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PAGE_BYTES = 4096

ADVICE = (
    "Nothing was changed. Keep the directory; restore it from a copy, "
    "or bring back the disk it lies on"
)

_MAGIC = 0xBEEFC0DE
_DATA_VERSION = 1
_DEATHS = (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)
"""What damage does to the child; any other signal came from outside."""
_NO_DAMAGE = (
    lmdb.DiskError, lmdb.LockError, lmdb.MemoryError, lmdb.ReadersFullError, lmdb.TlsFullError,
)  # fmt: skip
"""What LMDB says of the machine, not of the file."""

_children: set[subprocess.Popen[bytes]] = set()


def data_file(store: Path) -> Path:
    return store / "data.mdb"


def allocate_to(path: Path, size: int) -> None:
    """Real blocks up to `size`, so that the map never meets a full disk."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_file(path: Path) -> None:
    """DAMAGED unless there is a file with two good meta pages and room for all its pages."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(2 * PAGE_BYTES)
    except OSError as error:
        raise FsError(Code.DAMAGED, f"{path}: {error.strerror}") from None
    if len(head) < 2 * PAGE_BYTES:
        raise FsError(Code.DAMAGED, f"{path} has only {size} bytes")
    commits, pages = [], 0
    for number in range(2):
        page = head[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        fields = {
            "number": int.from_bytes(page[0:8], "little"),
            "magic": int.from_bytes(page[16:20], "little"),
            "version": int.from_bytes(page[20:24], "little"),
        }
        if fields != {"number": number, "magic": _MAGIC, "version": _DATA_VERSION}:
            raise FsError(Code.DAMAGED, f"{path}: meta page {number} is not one")
        pages = max(pages, int.from_bytes(page[136:144], "little") + 1)
        commits.append(int.from_bytes(page[144:152], "little"))
    if abs(commits[0] - commits[1]) > 1:
        raise FsError(Code.DAMAGED, f"{path}: one of its meta pages is an old copy")
    if size < pages * PAGE_BYTES:
        raise FsError(Code.DAMAGED, f"{path} has {size} bytes, its pages need {pages * PAGE_BYTES}")


def fault_of(path: Path, error: lmdb.Error) -> FsError:
    """What an error of LMDB means that was met while a store was opened or read."""
    code = Code.IO if isinstance(error, _NO_DAMAGE) else Code.DAMAGED
    return FsError(code, f"{path}: {error}")


def check_in_child(module: str, args: Sequence[str], path: Path) -> None:
    """Runs `python -m module args`, whose `main` is `child_main`; FsError is what it found. Takes
    as long as reading everything takes, or until `end_checks`."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        _children.add(child)
        try:
            output, errors = child.communicate()
        finally:
            _children.discard(child)
    if child.returncode == 0:
        return
    if child.returncode < 0:
        error = death_of(path, child.returncode)
        damage = error.code is Code.DAMAGED
        raise FsError(error.code, f"{error.detail}. {ADVICE}") if damage else error
    try:
        answer = json.loads(output)
        code, detail = known_code(int(answer["code"])), str(answer["detail"])
    except (ValueError, KeyError, TypeError):
        lines = errors.decode(errors="replace").strip().splitlines()
        code, detail = Code.DAMAGED, f"the check failed: {lines[-1] if lines else 'no message'}"
    raise FsError(code, f"{detail}. {ADVICE}" if code is not Code.IO else detail)


def death_of(path: Path, returncode: int) -> FsError:
    """What the signal means that ended a child: the file did it, or somebody from outside, as the
    kernel does when memory runs out."""
    name = signal.Signals(-returncode).name
    if -returncode not in _DEATHS:
        return FsError(Code.IO, f"{path}: the check was ended by {name}; start again")
    return FsError(
        Code.DAMAGED,
        f"{path} cannot be read: the check was ended by {name}, "
        "as it is for a page that is zeroed or cut off",
    )


def end_checks() -> None:
    """The daemon is to stop: whoever waits for a check gets an FsError."""
    for child in list(_children):
        child.kill()


def child_main(check: Callable[[], None]) -> int:
    """The other side of `check_in_child`."""
    try:
        check()
        return 0
    except FsError as error:
        found = error
    except (ImportError, MemoryError, OSError) as error:  # no verdict on the store
        found = FsError(Code.IO, f"the check failed: {type(error).__name__}: {error}")
    print(json.dumps({"code": int(found.code), "detail": found.detail}))
    return 75 if found.code is Code.IO else 78
