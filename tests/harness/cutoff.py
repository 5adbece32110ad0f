"""A network of its own for a client, so that its cable can be pulled."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import leftovers

if TYPE_CHECKING:
    from types import TracebackType

    from harness.cluster import Cluster

# Several runs may go on at once on one machine: each has a subnet, as each has a process id.
_SUBNET = f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
OUTSIDE, INSIDE = f"{_SUBNET}.1", f"{_SUBNET}.2"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Cable:
    """A network namespace joined to this one by a pair of interfaces. Skips the test where that
    is not allowed."""

    def __init__(self) -> None:
        self.name = f"sfs{os.getpid()}"
        self.outer, self.inner = f"{self.name}o"[-15:], f"{self.name}i"[-15:]

    def wrap(self, command: list[str]) -> list[str]:
        """Runs inside. The mount table stays this one's: `ip netns exec` would make a new one."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]

    def pull(self) -> None:
        _ip("link", "set", self.outer, "down")

    def plug(self) -> None:
        _ip("link", "set", self.outer, "up")

    def bytes_passed(self) -> int:
        """Both ways, with headers, since it was laid."""
        counters = Path("/sys/class/net", self.outer, "statistics")
        return sum(int((counters / name).read_text()) for name in ("rx_bytes", "tx_bytes"))

    def __enter__(self) -> Cable:
        try:
            _ip("netns", "add", self.name)
            leftovers.namespaces.add(self.name)
            _ip("link", "add", self.outer, "type", "veth", "peer", self.inner, "netns", self.name)
            _ip("addr", "add", f"{OUTSIDE}/24", "dev", self.outer)
            _ip("link", "set", self.outer, "up")
            _ip("-n", self.name, "addr", "add", f"{INSIDE}/24", "dev", self.inner)
            _ip("-n", self.name, "link", "set", self.inner, "up")
            _ip("-n", self.name, "link", "set", "lo", "up")
        except OSError as error:
            self._remove()
            pytest.skip(f"no network of its own: {error}")
        return self

    def _remove(self) -> None:
        for words in (("link", "del", self.outer), ("netns", "del", self.name)):
            subprocess.run(["ip", *words], capture_output=True, check=False)
        if not Path("/run/netns", self.name).exists():
            leftovers.namespaces.discard(self.name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()


def _ports(count: int) -> list[int]:
    """Nobody listens there at the moment."""
    taken = [socket.socket() for _ in range(count)]
    for s in taken:
        s.bind((OUTSIDE, 0))
    found = [s.getsockname()[1] for s in taken]
    for s in taken:
        s.close()
    return found


def wire(cluster: Cluster) -> dict[str, str]:
    """Lets the daemons, which are not started yet, be reached from the other end of a cable, too:
    where."""
    ports = _ports(len(cluster.daemons))
    addresses = {n: f"{OUTSIDE}:{p}" for n, p in zip(cluster.daemons, ports, strict=True)}
    for name, address in addresses.items():
        text = cluster.config_file(name).read_text()
        old = f'listen = ["{cluster.target(name)}"]\n'
        assert old in text
        new = f'listen = ["{cluster.target(name)}", "{address}"]\nadvertise = ["{address}"]\n'
        cluster.config_file(name).write_text(text.replace(old, new))
    return addresses
