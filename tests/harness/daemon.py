"""One program of SuperFS as a subprocess: started, awaited, stopped, killed, its log read."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from harness import zygote
from harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

BIN = zygote.BIN
TROUBLE = {"warning", "error", "critical", "exception"}


class Daemon:
    """`command` is started as it stands, where it is not `executed` as a fork of the zygote (which
    has more in memory); standard output and error go to `log`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: dict[str, str] | None = None,
        executed: bool = False,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self.env = env
        self.executed = executed
        self.process: zygote.Child | subprocess.Popen[bytes] | None = None
        self._seen = 0

    def start(self) -> None:
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self.process = zygote.start(self.command, log, self.env, executed=self.executed)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status, a signal as its negative; None while it runs."""
        return None if self.process is None else self.process.poll()

    @property
    def pid(self) -> int:
        assert self.process is not None, self.name
        return self.process.pid

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit status; a daemon that does not end is killed, and that is a failure."""
        assert self.process is not None, self.name
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not end\n{self.tail()}") from None

    def kill(self) -> None:
        if self.running:
            self.signal(signal.SIGKILL)
            self.wait()

    def stop(self, expected: int = 0) -> None:
        """SIGTERM; must end by itself with the expected status."""
        self.end()
        self.ended(expected)

    def end(self) -> None:
        """SIGTERM: it will end. `ended` waits for that."""
        if self.running:
            self.signal(signal.SIGTERM)

    def ended(self, expected: int = 0) -> None:
        if self.process is None:
            return
        status = self.wait()
        assert status == expected, f"{self.name} ended with {status}\n{self.tail()}"

    def signal(self, number: int) -> None:
        assert self.process is not None, self.name
        self.process.send_signal(number)

    def tail(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.name}: {self.log}\n" + "\n".join(text.splitlines()[-lines:])

    def forget_log(self) -> None:
        """What is in the log by now has been expected."""
        self._seen = self.log.stat().st_size if self.log.exists() else 0

    def trouble(self, allowed: Iterable[str] = ()) -> list[str]:
        """New log lines that warn or worse or are no records at all, and that no pattern allows."""
        patterns = [re.compile(pattern) for pattern in allowed]
        if not self.log.exists():
            return []
        data = self.log.read_bytes()[self._seen :]
        self._seen += len(data)
        lines = data.decode(errors="replace").splitlines()
        return [
            f"{self.name}: {line}"
            for line in lines
            if line.strip() and _is_trouble(line) and not any(p.search(line) for p in patterns)
        ]

    def wait_for_log(self, pattern: str, timeout_s: float = 20.0) -> str:
        expression = re.compile(pattern)

        def found() -> str | None:
            text = self.log.read_text(errors="replace")
            return next((line for line in text.splitlines() if expression.search(line)), None)

        return wait_until(found, f"{pattern!r} in {self.log}", timeout_s=timeout_s) or ""


def _is_trouble(line: str) -> bool:
    try:
        record: Any = json.loads(line)
    except ValueError:
        return True
    return not isinstance(record, dict) or str(record.get("level", "")).lower() in TROUBLE
