"""System calls as other users, and the ones that `os` lacks."""

from __future__ import annotations

import ast
import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

Call = Callable[[], object]
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def fails(*codes: int) -> Iterator[None]:
    """The body must raise an OSError with one of these numbers."""
    with pytest.raises(OSError) as caught:  # noqa: PT011
        yield
    number = caught.value.errno or 0
    names = [errno.errorcode[code] for code in codes]
    assert number in codes, f"{errno.errorcode.get(number)} instead of {names}"


def renameat2(old: Path | bytes, new: Path | bytes, flags: int) -> None:
    done = _libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)
    if done != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


# Runs in the other user's process: one call a line, one answer a line. It changes user by itself,
# because only root may be able to read the interpreter.
_ACTOR = """
import ast, os, sys
uid, gid, groups = ast.literal_eval(sys.argv[1])
os.setgroups(groups); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
for line in sys.stdin:
    name, args, options = ast.literal_eval(line)
    try:
        if name == "write_file":
            fd = os.open(args[0], os.O_WRONLY | args[2]); os.write(fd, args[1]); os.close(fd)
            result = None
        elif name == "read_file":
            fd = os.open(args[0], os.O_RDONLY); result = os.read(fd, 1 << 20); os.close(fd)
        elif name == "open":
            os.close(os.open(*args, **options)); result = None
        elif name == "stat":
            s = os.stat(*args, **options); result = (s.st_mode, s.st_uid, s.st_gid, s.st_size)
        elif name == "umask":
            result = os.umask(*args)
        elif name == "utime":
            os.utime(*args, **options); result = None
        else:
            result = getattr(os, name)(*args, **options)
        print((0, result), flush=True)
    except OSError as error:
        print((error.errno, str(error)), flush=True)
"""


class Actor:
    """A process with its own uid, gid and supplementary groups, no capabilities."""

    def __init__(self, uid: int, gid: int | None = None, groups: tuple[int, ...] = ()) -> None:
        self.uid, self.gid = uid, uid if gid is None else gid
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ACTOR, repr((self.uid, self.gid, groups))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", umask=0o022,
        )  # fmt: skip

    def call(self, name: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """os.<name>(*args) over there; an OSError comes back as one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        plain = tuple(os.fspath(a) if hasattr(a, "__fspath__") else a for a in args)
        self._process.stdin.write(f"{(name, plain, options)!r}\n")
        self._process.stdin.flush()
        number, result = ast.literal_eval(self._process.stdout.readline())
        if number:
            raise OSError(number, result)
        return result

    def __enter__(self) -> Actor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
