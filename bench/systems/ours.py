"""SuperFS as `superfs up --mount` starts it, and with `-o nodelegate`; a plain directory on the
same disk; the floor."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from systems.system import System, wait_for

SUPERFS = Path(sys.executable).with_name("superfs")
FLOOR = Path(__file__).parents[1] / "floor.py"
METRICS = re.compile(r'"metrics": *"([^"]+)"')


class Disk(System):
    """No daemons: what it costs is the workers' own CPU time."""

    name = "ext4"
    about = "a directory on the disk that the others keep their data on"

    @property
    def directory(self) -> Path:
        return self.work

    def start(self) -> None:
        self.work.mkdir()

    def stop(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    def count_fuse(self, tracefs: Path) -> None:
        pass


class Floor(System):
    name = "F"
    about = "the floor: an in-memory pyfuse3 file system with our mount options, default"

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.mount.mkdir(parents=True)
        self._process = self.spawn([sys.executable, FLOOR, self.mount, "--files", "0"])
        wait_for(lambda: os.path.ismount(self.mount), "the floor")

    def stop(self) -> None:
        self.unmount()
        self.end(self._process)
        shutil.rmtree(self.work, ignore_errors=True)


class SuperFS(System):
    name = "S"
    about = "SuperFS: one metad, one datad, one mount, defaults; own changes told within 1 s"

    def start(self) -> None:
        self.mount.mkdir(parents=True)
        self._superfs("up", "--dir", self._home, "--mount", self.mount, "--detach")

    def stop(self) -> None:
        if self._home.exists():
            self._tell_restarts()
            self._superfs("down", "--dir", self._home)
        shutil.rmtree(self.work, ignore_errors=True)

    def rpcs(self) -> int | None:
        """Of metad and datad. None: one of them does not say, because it has just restarted."""
        try:
            return sum(map(_requests, self._metrics()))
        except OSError as error:
            print(f"S: metrics could not be read: {error}", file=sys.stderr)
            return None

    def _tell_restarts(self) -> None:
        """A daemon that fell over while it was measured is news."""
        command = [SUPERFS, "status", "--dir", self._home, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"S: not healthy: {done.stdout}{done.stderr}", file=sys.stderr)
            return
        for name, child in json.loads(done.stdout)["supervisor"]["children"].items():
            if child["restarts"]:
                log = (self._home / "log" / f"{name}.log").read_text()
                print(f"S: {name} was restarted:\n{log[-4000:]}", file=sys.stderr)

    @property
    def _home(self) -> Path:
        return self.work / "home"

    def _superfs(self, *words: str | Path) -> None:
        subprocess.run(
            [SUPERFS, *words], env=self.environment, stdout=subprocess.DEVNULL, check=True
        )

    def _metrics(self) -> list[str]:
        """Addresses of metad's and datad's metrics, of the last start of each."""
        logs = [p for kind in ("metad", "datad") for p in self._home.glob(f"log/{kind}-*.log")]
        return [METRICS.findall(log.read_text())[-1] for log in logs]


class Asking(SuperFS):
    name = "N"
    about = "SuperFS with -o nodelegate: every change is asked for, and durable when it is answered"

    def start(self) -> None:
        self.mount.mkdir(parents=True)
        self._superfs("up", "--dir", self._home, "--detach")
        self._superfs("mount", "-o", "nodelegate", "--dir", self._home, self.mount)

    def stop(self) -> None:
        self.unmount()
        super().stop()


def _requests(address: str) -> int:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(
        int(float(line.rsplit(" ", 1)[1]))
        for line in lines
        if line.startswith("superfs_rpc_requests_total{") and "Health" not in line
    )
