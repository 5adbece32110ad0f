"""Several hosts on one machine: network namespaces, joined to this one by a bridge.

Each also has a machine-id of its own, and does not see the Unix sockets of the others. Needs root.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from harness import leftovers
from harness.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_SUBNET = f"10.{150 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
_INSIDE = """
umask 077; root=$1; mine=$2; shift 2
mount --make-rprivate / && mount --bind "$root/$mine.id" /etc/machine-id || exit 1
for other in "$root"/run/*; do
  [ "$other" = "$root/run/$mine" ] || mount -t tmpfs none "$other" || exit 1
done
exec "$@"
"""


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Hosts:
    """The first of `names` is this machine as it is, with the bridge."""

    def __init__(self, names: Sequence[str], root: Path) -> None:
        """`root`: of their machine-ids, and of the folders `run/NAME` of their sockets."""
        self.first, *self.others = names
        self._root = root
        self.address = {name: f"{_SUBNET}.{n}" for n, name in enumerate(names, 1)}
        self._bridge = f"sfs{os.getpid()}b"

    def _space(self, name: str) -> str:
        return f"sfs{os.getpid()}{name}"

    def wrap(self, name: str, command: Sequence[str]) -> list[str]:
        """The command on that host."""
        if name == self.first:
            return list(command)
        inside = ["unshare", "--mount", "sh", "-c", _INSIDE, "host", str(self._root), name]
        return ["nsenter", f"--net=/run/netns/{self._space(name)}", *inside, *command]

    def bytes_moved(self) -> int:
        """By the interfaces of all hosts but the first, both ways, since they are there."""
        total = 0
        for name in self.others:
            text = _ip("-n", self._space(name), "-s", "-j", "link", "show", "eth0")
            stats = json.loads(text)[0]["stats64"]
            total += stats["rx"]["bytes"] + stats["tx"]["bytes"]
        return int(total)

    def __enter__(self) -> Hosts:
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.address[self.first]}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            (self._root / "run" / self.first).mkdir(parents=True, exist_ok=True)
            for number, name in enumerate(self.others, 1):
                self._add(name, number)
        except BaseException:
            self._remove()
            raise
        return self

    def _add(self, name: str, number: int) -> None:
        space, port = self._space(name), f"{self._bridge[:-1]}v{number}"
        (self._root / "run" / name).mkdir(parents=True, exist_ok=True)
        (self._root / f"{name}.id").write_text(f"{number:032x}\n")
        _ip("netns", "add", space)
        leftovers.namespaces.add(space)
        _ip("link", "add", port, "type", "veth", "peer", "eth0", "netns", space)
        _ip("link", "set", port, "master", self._bridge, "up")
        _ip("-n", space, "addr", "add", f"{self.address[name]}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            _ip("-n", space, "link", "set", link, "up")

    def _remove(self) -> None:
        words = [["netns", "del", self._space(name)] for name in self.others]
        for one in [*words, ["link", "del", self._bridge]]:
            subprocess.run(["ip", *one], capture_output=True, check=False)
        for name in self.others:
            if not Path("/run/netns", self._space(name)).exists():
                leftovers.namespaces.discard(self._space(name))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()


class SpreadCluster(Cluster):
    """clusterd and metad are on the first host, each other one has a data daemon."""

    PORT = 7600

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(data=len(names) - 1)
        self.hosts = Hosts(names, self.dir)

    def host(self, name: str) -> str:
        return self.names[int(name.rpartition("-")[2]) - 1] if "datad" in name else self.names[0]

    def socket(self, name: str) -> Path:
        return self.dir / "run" / self.host(name) / f"{name}.sock"

    def wire(self) -> None:
        for number, (name, daemon) in enumerate(self.daemons.items()):
            address = f"{self.hosts.address[self.host(name)]}:{self.PORT + number}"
            both = f'listen = ["{self.target(name)}", "{address}"]\n'
            both += f'advertise = ["{self.target(name)}", "{address}"]\n'
            file = self.config_file(name)
            text = file.read_text().replace(f'listen = ["{self.target(name)}"]\n', both)
            if name != "clusterd":
                text = text.replace(f'["{self.target("clusterd")}"]', f'["{self.entry}"]')
            file.write_text(text)
            daemon.command = self.hosts.wrap(self.host(name), daemon.command)
            daemon.executed = True

    @property
    def entry(self) -> str:
        """Of clusterd, for every host."""
        return f"{self.hosts.address[self.names[0]]}:{self.PORT}"

    def __enter__(self) -> Cluster:
        try:
            self.hosts.__enter__()
        except BaseException:
            self.close()
            raise
        self.wire()
        return super().__enter__()

    def close(self) -> None:
        super().close()
        self.hosts._remove()
