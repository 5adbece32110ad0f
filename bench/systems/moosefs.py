"""MooseFS from Debian's packages: master, one chunk server, one mount, in a network of their own.

The chunk server refuses 127.0.0.1, so all three live in a network namespace with a veth pair. The
namespace has no name: it is held by its processes and goes with the last of them. Only the network
is apart; the mount is seen by everybody. Settings are the defaults, but where things lie; those of
`MooseFSSynced` are what a promise like that of our fsync takes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from systems.system import System, Unavailable, wait_for

PROGRAMS = ("mfsmaster", "mfschunkserver", "mfsmount", "unshare", "nsenter", "ip")
EMPTY = Path("/var/lib/mfs/metadata.mfs.empty")
ADDRESS = "10.255.77.1"
USER = "mfs"
NETWORK = f"""
ip link set lo up
ip link add moose0 type veth peer name moose1
ip address add {ADDRESS}/24 dev moose0
ip link set moose0 up
ip link set moose1 up
echo ready
read -r _
"""


class MooseFS(System):
    name = "M"
    about = (
        "MooseFS: master, one chunk server, one mount, defaults: nothing is synced before it is "
        "answered (HDD_FSYNC_BEFORE_CLOSE = 0, CHANGELOG_SAVE_MODE = 0), daemons at nice -19"
    )
    of_master: tuple[str, ...] = ()
    of_chunks: tuple[str, ...] = ()
    """Further settings."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self._network: subprocess.Popen[str] | None = None
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
        if missing:
            raise Unavailable(f"{', '.join(missing)}: not installed (make bench-peers)")
        if os.geteuid() != 0:
            raise Unavailable("it needs root, for a network namespace")
        self._configure()
        self._start_network()
        self._run("mfsmaster", "-c", self._place("master.cfg"), "-f", "start")
        self._run("mfschunkserver", "-c", self._place("chunkserver.cfg"), "-f", "start")
        wait_for(self._reachable, "the MooseFS master")
        self._run("mfsmount", self.mount, "-f", "-H", ADDRESS)
        wait_for(lambda: os.path.ismount(self.mount), "the MooseFS mount")
        wait_for(self._takes_data, "the MooseFS chunk server")

    def stop(self) -> None:
        self.unmount()
        for process in reversed(self._daemons):
            self.end(process)
        if self._network is not None:
            self._network.communicate("\n", timeout=30)
        shutil.rmtree(self.work, ignore_errors=True)

    def rpcs(self) -> int | None:
        """To the master only: of chunk servers the mount tells nothing."""
        lines = (self.mount / ".stats").read_text().splitlines()
        counts = dict(line.split(": ", 1) for line in lines if ": " in line)
        return int(counts["master.packets_sent"])

    def _place(self, name: str) -> Path:
        return self.work / name

    def _configure(self) -> None:
        self.mount.mkdir(parents=True)
        for name in ("master", "chunkserver", "disk"):
            self._place(name).mkdir()
            shutil.chown(self._place(name), USER, USER)
        shutil.copy(EMPTY, self._place("master") / "metadata.mfs")
        shutil.chown(self._place("master") / "metadata.mfs", USER, USER)
        self._write("exports.cfg", "* / rw,alldirs,maproot=0")
        self._write("disks.cfg", f"{self._place('disk')}")
        self._write(
            "master.cfg",
            f"DATA_PATH = {self._place('master')}",
            f"EXPORTS_FILENAME = {self._place('exports.cfg')}",
            *self.of_master,
        )
        self._write(
            "chunkserver.cfg",
            f"DATA_PATH = {self._place('chunkserver')}",
            f"HDD_CONF_FILENAME = {self._place('disks.cfg')}",
            f"MASTER_HOST = {ADDRESS}",
            *self.of_chunks,
        )

    def _write(self, name: str, *lines: str) -> None:
        self._place(name).write_text("".join(f"{line}\n" for line in lines))

    def _start_network(self) -> None:
        """Its holder ends when we end: its standard input does."""
        self._network = subprocess.Popen(
            ["unshare", "--net", "sh", "-ec", NETWORK],
            env=self.environment | {"PATH": _path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._network.stdout is not None
        if self._network.stdout.readline() != "ready\n":
            raise Unavailable("its network namespace could not be made")

    def _inside(self, *words: str | Path) -> list[str | Path]:
        assert self._network is not None
        return ["nsenter", f"--net=/proc/{self._network.pid}/ns/net", "--", *words]

    def _run(self, program: str, *words: str | Path) -> None:
        found = shutil.which(program, path=_path())
        assert found is not None
        self._daemons.append(self.spawn(self._inside(found, *words)))

    def _reachable(self) -> bool:
        listening = self._inside("ss", "-ltn")
        return ":9421" in subprocess.run(listening, capture_output=True, text=True).stdout

    def _takes_data(self) -> bool:
        probe = self.mount / "probe"
        with contextlib.suppress(OSError):
            probe.write_bytes(b"probe")
            probe.unlink()
            return True
        return False


class MooseFSSynced(MooseFS):
    name = "MS"
    about = (
        "MooseFS that syncs chunks (HDD_FSYNC_BEFORE_CLOSE = 1) and every change of the name space "
        "(CHANGELOG_SAVE_MODE = 2)"
    )
    of_master = ("CHANGELOG_SAVE_MODE = 2",)
    of_chunks = ("HDD_FSYNC_BEFORE_CLOSE = 1",)


class MooseFSChunksSynced(MooseFS):
    name = "MC"
    about = (
        "MooseFS that syncs chunks (HDD_FSYNC_BEFORE_CLOSE = 1), but not changes of the name "
        "space: who loses power loses names of files that were synced"
    )
    of_chunks = ("HDD_FSYNC_BEFORE_CLOSE = 1",)


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
