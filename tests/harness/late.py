"""A client that writes and is then stopped: a program on a mount, or one that uses the SDK.

    python -m harness.late WHERE

WHERE is a directory on a mount, or sdk:TOKEN_FILE:ADDRESS:BYPASS. Does what it is told on standard
input, a line at a time, and answers with a line: "ok" or the name of an errno, or what was read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

TESTS = Path(__file__).parent.parent


def digest(data: bytes) -> str:
    return f"{len(data)}:{hashlib.blake2b(data, digest_size=8).hexdigest()}"


class Late:
    """`stops`: who stands still when it does, if not the program itself."""

    def __init__(self, where: str, log: Path) -> None:
        self.log = log
        self.stops: Sequence[int] = ()
        self.wrap: list[str] = []
        self._where = where

    def __enter__(self) -> Late:
        command = [*self.wrap, sys.executable, "-m", "harness.late", self._where]
        paths = os.pathsep.join(p for p in sys.path if p)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "PYTHONPATH": paths}, cwd=TESTS,
            )  # fmt: skip
        self.stops = self.stops or (self.process.pid,)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """With a goodbye: that its session ends must not be taken for that of the next one."""
        self.go_on()
        try:
            self.process.communicate(timeout=30)
        finally:
            self.process.kill()
            self.process.wait()

    def do(self, *words: object) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        for pid in self.stops:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for pid in self.stops:
            os.kill(pid, signal.SIGCONT)


# ---- the program ---------------------------------------------------------------------------------


class OnMount:
    def __init__(self, top: Path) -> None:
        self._top = top

    def open(self, name: str) -> BinaryIO:
        return (self._top / name).open("r+b", buffering=0)

    def read(self, name: str) -> bytes:
        return (self._top / name).read_bytes()

    def close(self) -> None:
        pass


class OnSdk:
    def __init__(self, token_file: str, address: str, bypass: str) -> None:
        from superfs.client import ClientConfig, FileSystem

        config = ClientConfig(
            cluster=(address,), token_file=Path(token_file), client_name="late",
            keep_alive_s=0.5, bypass=bypass == "1",
        )  # fmt: skip
        self._fs = FileSystem.connect(config)

    def open(self, name: str) -> BinaryIO:
        return self._fs.open(f"/{name}", "r+b", buffering=0)  # type: ignore[return-value]

    def read(self, name: str) -> bytes:
        return self._fs.read_bytes(f"/{name}")

    def close(self) -> None:
        self._fs.close()


def main(where: str) -> None:
    if where.startswith("sdk:"):
        token_file, rest = where.removeprefix("sdk:").split(":", 1)
        client: OnMount | OnSdk = OnSdk(token_file, *rest.rsplit(":", 1))
    else:
        client = OnMount(Path(where))
    files: dict[str, BinaryIO] = {}
    for line in sys.stdin:
        verb, name, *words = line.split()
        said = "ok"
        try:
            if verb == "open":
                files[name] = client.open(name)
            elif verb == "read":
                said = digest(client.read(name))
            elif verb == "write":
                files[name].seek(int(words[0]))
                files[name].write(words[1].encode() * int(words[2]))
            elif verb == "sync":
                sync = getattr(files[name], "sync", None)
                sync() if sync is not None else os.fsync(files[name].fileno())
            else:
                files.pop(name).close()
        except OSError as error:
            said = errno.errorcode[error.errno or 0]
        print(said, flush=True)
    client.close()


if __name__ == "__main__":
    main(sys.argv[1])
