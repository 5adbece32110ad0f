"""Every request of the kernel, one by one, for as long as somebody watches.

A watcher gets those that ended since it looked last, and the paths of their directories as far as
the mount knows them. Who looks too seldom loses the oldest, and is told how many.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from superfs.mount.desk.protocol import HEADER, HEADER_BYTES, NAMES_AT, OPERATIONS, UNANSWERED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node

RING_MAX = 65_536
UNDER_WAY_MAX = 65_536
PROCESSES_MAX = 4096
PROCESS_GOOD_NS = 2_000_000_000
NAMES_MAX = 10_000
DEPTH_MAX = 64
SEARCHED_MAX = 20_000
"""Names of one directory that are looked through for the one that a directory has."""
ANSWER_HEAD_BYTES = 16


class Access(NamedTuple):
    """`number`: of the inode, or of the directory where there is a name. `bytes`: of question and
    answer together, without their heads."""

    operation: str
    number: int
    name: bytes
    pid: int
    command: str
    uid: int
    started_ns: int
    duration_ns: int
    errno: int
    bytes: int


class Accesses:
    def __init__(self) -> None:
        self._under_way: dict[int, tuple[int, int, bytes, int, str, int, int, int]] = {}
        self._ended: deque[Access] = deque(maxlen=RING_MAX)
        self._processes: dict[int, tuple[int, str, int]] = {}
        self.lost = 0

    def began(self, request: memoryview) -> None:
        length, opcode, unique, number, uid, _, thread, _, _ = HEADER.unpack_from(request)
        if opcode in UNANSWERED:
            return
        if len(self._under_way) >= UNDER_WAY_MAX:
            self.lost += 1
            return
        now, name, at = time.monotonic_ns(), b"", NAMES_AT.get(opcode)
        if at is not None:
            name = bytes(request[HEADER_BYTES + at :]).partition(b"\0")[0]
        self._under_way[unique] = (
            opcode, number, name, *self._process(thread, now), uid, now, length - HEADER_BYTES
        )  # fmt: skip

    def ended(self, answer: Sequence[bytes]) -> None:
        head = answer[0]
        found = self._under_way.pop(int.from_bytes(head[8:16], "little"), None)
        if found is None:
            return
        opcode, number, name, pid, command, uid, started, size = found
        if len(self._ended) == RING_MAX:
            self.lost += 1
        self._ended.append(
            Access(
                OPERATIONS.get(opcode, str(opcode)), number, name, pid, command, uid, started,
                time.monotonic_ns() - started,
                -int.from_bytes(head[4:8], "little", signed=True),
                size + sum(map(len, answer)) - ANSWER_HEAD_BYTES,
            )
        )  # fmt: skip

    def take(self, count_max: int) -> list[Access]:
        """The oldest."""
        return [self._ended.popleft() for _ in range(min(count_max, len(self._ended)))]

    def _process(self, thread: int, now: int) -> tuple[int, str]:
        """Number and name. Now: it may have ended a moment later."""
        known = self._processes.get(thread)
        if known is not None and now - known[2] < PROCESS_GOOD_NS:
            return known[0], known[1]
        process, command = process_of(thread)
        if len(self._processes) >= PROCESSES_MAX:
            self._processes.clear()
        self._processes[thread] = (process, command, now)
        return process, command


def process_of(thread: int) -> tuple[int, str]:
    """That a thread, which is what the kernel names, belongs to."""
    if thread == 0:
        return 0, "the kernel"
    try:
        lines = Path(f"/proc/{thread}/status").read_text(errors="replace").splitlines()
        process = next(int(line.split()[1]) for line in lines if line.startswith("Tgid:"))
        return process, Path(f"/proc/{process}/comm").read_text(errors="replace").rstrip("\n")
    except (OSError, StopIteration):
        return thread, "?"


class Paths:
    """Of directories, as far as they are remembered; for one watcher."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        self._names: dict[int, str] = {}

    def directory_of(self, access: Access) -> int:
        """That an access is about, by the kernel's number."""
        node = self._m.nodes.table.get(access.number)
        if node is None or access.name or (node.attr is not None and node.attr.is_dir):
            return access.number
        return node.parent or access.number

    def path_of(self, number: int) -> str:
        parts: list[str] = []
        root = self._m.nodes.root.number
        while number != root:
            node = self._m.nodes.table.get(number)
            if node is None or not node.parent or len(parts) >= DEPTH_MAX:
                return "/".join([f"inode {number}", *reversed(parts)])
            parts.append(self._name_of(node))
            number = node.parent
        return "/" + "/".join(reversed(parts))

    def _name_of(self, node: Node) -> str:
        name = self._names.get(node.number)
        if name is None:
            if len(self._names) >= NAMES_MAX:
                self._names.clear()
            name = self._names[node.number] = self._search(node)
        return name

    def _search(self, node: Node) -> str:
        above = self._m.nodes.table.get(node.parent)
        place = None if above is None else self._m.cache.places.get(above.ino)
        if place is not None and len(place) <= SEARCHED_MAX:
            for name, other in place.believed():
                if other is node:
                    return name.decode(errors="backslashreplace")
        return f"inode {node.number}"
