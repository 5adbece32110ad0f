"""A worker that hammers one directory, through a mount or the SDK, and writes down its history.

    python -m harness.hammer PLAN CLIENT WHERE HISTORY SEED

PLAN is a JSON file: {"groups": [[names that are renamed into each other], ...], "fixed": [names of
files that stay], "weights": {verb: weight}}. WHERE is the directory on a mount, or
sdk:TOKEN_FILE:DIRECTORY:ADDRESS. It goes on until SIGTERM, or until its mount
has died.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.checker import RECORD_BYTES
from harness.history import Recorder

if TYPE_CHECKING:
    from superfs.client import FileSystem

Facts = tuple[object, ...]
FLAGS = {"rename": 0, "noreplace": 1, "exchange": 2}
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
READ_MAX = 1 << 20


class Directory(Protocol):
    def create(self, name: str) -> Facts: ...
    def unlink(self, name: str) -> Facts: ...
    def rename(self, old: str, new: str, flags: int) -> Facts: ...
    def stat(self, name: str) -> os.stat_result: ...
    def list(self) -> list[str]: ...
    def append(self, name: str, data: bytes) -> Facts: ...
    def read(self, name: str) -> Facts: ...
    def put(self, name: str, data: bytes) -> Facts: ...
    def get(self, name: str) -> Facts: ...
    def chmod(self, name: str, mode: int) -> Facts: ...


class OsDirectory:
    def __init__(self, top: str) -> None:
        self._top = top

    def _at(self, name: str) -> str:
        return f"{self._top}/{name}"

    def create(self, name: str) -> Facts:
        fd = os.open(self._at(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            return (os.fstat(fd).st_ino,)
        except OSError:  # somebody has removed it already
            return (None,)
        finally:
            os.close(fd)

    def unlink(self, name: str) -> Facts:
        os.unlink(self._at(name))
        return ()

    def rename(self, old: str, new: str, flags: int) -> Facts:
        paths = self._at(old).encode(), self._at(new).encode()
        if _libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], flags):
            raise OSError(ctypes.get_errno(), "renameat2")
        return ()

    def stat(self, name: str) -> os.stat_result:
        return os.lstat(self._at(name))

    def list(self) -> list[str]:
        return os.listdir(self._top)

    def append(self, name: str, data: bytes) -> Facts:
        fd = os.open(self._at(name), os.O_WRONLY | os.O_APPEND)
        try:
            ino = os.fstat(fd).st_ino
            os.write(fd, data)
        finally:
            os.close(fd)
        return (ino,)

    def read(self, name: str) -> Facts:
        fd = os.open(self._at(name), os.O_RDONLY)
        try:
            return os.fstat(fd).st_ino, os.read(fd, READ_MAX).decode(errors="replace")
        finally:
            os.close(fd)

    def put(self, name: str, data: bytes) -> Facts:
        fd = os.open(self._at(name), os.O_WRONLY)
        try:
            os.pwrite(fd, data, 0)
        finally:
            os.close(fd)
        return ()

    def get(self, name: str) -> Facts:
        fd = os.open(self._at(name), os.O_RDONLY)
        try:
            return (os.pread(fd, RECORD_BYTES, 0).decode(errors="replace"),)
        finally:
            os.close(fd)

    def chmod(self, name: str, mode: int) -> Facts:
        os.chmod(self._at(name), mode)
        return ()


class SdkDirectory:
    def __init__(self, fs: FileSystem, top: str) -> None:
        self._fs, self._top = fs, top

    def _at(self, name: str) -> str:
        return f"{self._top}/{name}"

    def create(self, name: str) -> Facts:
        with self._fs.open_raw(self._at(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY) as file:
            return (file._handle.inode.attr.ino,)

    def unlink(self, name: str) -> Facts:
        self._fs.unlink(self._at(name))
        return ()

    def rename(self, old: str, new: str, flags: int) -> Facts:
        self._fs.rename(self._at(old), self._at(new), flags)
        return ()

    def stat(self, name: str) -> os.stat_result:
        return self._fs.lstat(self._at(name))

    def list(self) -> list[str]:
        return self._fs.listdir(self._top)

    def append(self, name: str, data: bytes) -> Facts:
        with self._fs.open_raw(self._at(name), os.O_WRONLY | os.O_APPEND) as file:
            file.write(data)
            return (file._handle.inode.attr.ino,)

    def read(self, name: str) -> Facts:
        with self._fs.open_raw(self._at(name), os.O_RDONLY) as file:
            text = file.readall()
            return file._handle.inode.attr.ino, text.decode(errors="replace")

    def put(self, name: str, data: bytes) -> Facts:
        with self._fs.open_raw(self._at(name), os.O_WRONLY) as file:
            file.write(data)
        return ()

    def get(self, name: str) -> Facts:
        with self._fs.open_raw(self._at(name), os.O_RDONLY) as file:
            return ((file.read(RECORD_BYTES) or b"").decode(errors="replace"),)

    def chmod(self, name: str, mode: int) -> Facts:
        self._fs.chmod(self._at(name), mode)
        return ()


class Worker:
    def __init__(
        self, directory: Directory, recorder: Recorder, plan: dict[str, object], client: str
    ) -> None:
        self.directory, self.recorder, self.client = directory, recorder, client
        self.stopped = False
        groups, weights, fixed = plan["groups"], plan["weights"], plan["fixed"]
        assert isinstance(groups, list)
        assert isinstance(weights, dict)
        assert isinstance(fixed, list)
        self.groups: list[list[str]] = groups
        self.fixed: list[str] = fixed
        self.verbs, self.weights = list(weights), list(weights.values())
        self.count = 0

    def run(self, rng: random.Random) -> None:
        while not self.stopped:
            (verb,) = rng.choices(self.verbs, self.weights)
            self.count += 1
            self.do(verb, self.arguments(verb, rng))

    def arguments(self, verb: str, rng: random.Random) -> tuple[str | int, ...]:
        record = f"{self.client}.{self.count}".rjust(RECORD_BYTES - 1, ".") + "\n"
        match verb:
            case "list":
                return ()
            case "put":
                return rng.choice(self.fixed), record
            case "get" | "mode":
                return (rng.choice(self.fixed),)
            case "chmod":
                return rng.choice(self.fixed), 0o600 + rng.randrange(64)
        group = rng.choice(self.groups)
        if verb in FLAGS:
            return tuple(rng.sample(group, 2))
        name = rng.choice(group)
        return (name, record) if verb == "append" else (name,)

    def do(self, verb: str, args: tuple[str | int, ...]) -> None:
        number = self.recorder.invoked(verb, args)
        try:
            answer: tuple[object, ...] = ("ok", *self.ask(verb, *args))
        except OSError as error:
            answer = (errno.errorcode.get(error.errno or 0, str(error)), str(error))
            self.stopped = self.stopped or error.errno in DEAD
        self.recorder.answered(number, answer)

    def ask(self, verb: str, *args: str | int) -> Facts:
        if verb in FLAGS:
            return self.directory.rename(str(args[0]), str(args[1]), FLAGS[verb])
        if verb == "list":
            return (self.directory.list(),)
        if verb in ("append", "put"):
            method = self.directory.append if verb == "append" else self.directory.put
            return method(str(args[0]), str(args[1]).encode())
        if verb == "stat":
            info = self.directory.stat(str(args[0]))
            return info.st_ino, info.st_size
        if verb == "mode":
            return (self.directory.stat(str(args[0])).st_mode & 0o777,)
        done: Facts = getattr(self.directory, verb)(*args)
        return done


def directory_of(where: str) -> Directory:
    if not where.startswith("sdk:"):
        return OsDirectory(where)
    from superfs.client import ClientConfig, FileSystem

    _, token, top, address = where.split(":", 3)
    config = ClientConfig(cluster=(address,), token_file=Path(token), client_name="hammer")
    return SdkDirectory(FileSystem.connect(config), top)


def main() -> None:
    plan_file, client, where, history, seed = sys.argv[1:]
    plan = json.loads(Path(plan_file).read_text())
    worker = Worker(directory_of(where), Recorder(Path(history)), plan, client)

    def stop(_number: int, _frame: object) -> None:
        worker.stopped = True

    signal.signal(signal.SIGTERM, stop)
    worker.run(random.Random(int(seed)))
    if isinstance(worker.directory, SdkDirectory):
        worker.directory._fs.close()


if __name__ == "__main__":
    main()
