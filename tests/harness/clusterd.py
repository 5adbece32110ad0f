"""clusterd alone, in a temporary directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from harness.daemon import BIN
from harness.waiting import wait_until
from harness.zygote import run
from superfs.core.tokens import Authority, parse_key


class Clusterd:
    def __init__(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="sfs", dir="/tmp"))
        self.config = self.dir / "clusterd.toml"
        self.key = self.dir / "cluster.key"
        self.log = self.dir / "log"
        self.target = f"unix:{self.dir}/run/clusterd.sock"
        self.handshake = self.dir / "run" / "handshake.sock"
        self.configure("")
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, more: str) -> None:
        self.config.write_text(
            f'[daemon]\nstate_dir = "{self.dir}/state"\nkey_file = "{self.key}"\n'
            f'listen = ["{self.target}", "127.0.0.1:0"]\n{more}'
        )

    def command(self, *options: str) -> list[str]:
        return [str(BIN / "superfs-clusterd"), "--config", str(self.config), *options]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return run(*self.command(*options))

    def issue(self, name: str, *options: str) -> bytes:
        out = self.dir / name
        done = self.run("--issue-token", *options, "--name", name, "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert out.stat().st_mode & 0o777 == 0o600
        return out.read_bytes()

    def start(self, **environment: str) -> Clusterd:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, env={**os.environ, **environment}
            )
        wait_until(lambda: '"serving"' in self.log.read_text(), "clusterd serves")
        return self

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir)

    def authority(self) -> Authority:
        return Authority(parse_key(self.key.read_text()))
