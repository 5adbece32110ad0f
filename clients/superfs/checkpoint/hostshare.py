"""Ranks of one host read what several of them want once, and hand it on in shared memory.

In waves of one window: each rank reads and verifies its part of the wave into the window, all tell
each other how it went, each copies what it wants out of it. What one rank alone wants it reads by
itself. If the bytes are in this host's memory already, that is slower than everybody reading.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import uuid
import zlib
from array import array
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from superfs.checkpoint import session as sessions
from superfs.checkpoint import tensors
from superfs.checkpoint.limits import (
    HOST_WINDOW_BYTES,
    PROBES,
    READ_THREADS_MAX,
    READ_THREADS_MIN,
    aligned,
)
from superfs.checkpoint.plan import named
from superfs.checkpoint.reading import Place
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from superfs.checkpoint.reading import Block, Reading
    from superfs.checkpoint.session import Session

_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Host:
    name: str | None  # None: this machine, as long as it runs
    share: str

    @property
    def identity(self) -> str:
        if self.name is not None:
            return self.name
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        shm = os.stat(_SHARED_MEMORY)
        return f"{boot}:{shm.st_dev}:{shm.st_ino}"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a rank tells the others."""

    checkpoint: tuple[str, str]  # where, and which attempt became it
    host: str
    cached: bool
    places: bytes  # packed: file, offset, length of each block


@dataclass(slots=True)
class Shared:
    """A block that several ranks of a host want: who reads it, where in the window it comes."""

    place: Place
    length: int
    reader: int
    at: int


@dataclass(slots=True)
class Waves:
    mine: list[list[Shared]]  # of this host
    count: int  # of the host that has most: all go through as many
    leader: int  # the rank that makes this host's window

    def window_bytes(self) -> int:
        return max((one.at + one.length for wave in self.mine for one in wave), default=0)


def read_together(
    host: Host,
    session: Session,
    reading: Reading,
    blocks: Mapping[Place, Block],
    error: Exception | None,
) -> None:
    """Delivers all blocks of this rank; raises on all ranks what fails on any."""
    if session.world_size == 1:
        if error is not None:
            raise error
        reading.threads = _threads(session, _cached(reading, blocks))
        reading.to_destinations(list(blocks.values()))
        return
    needs = None
    if error is None:
        try:
            which = os.fspath(reading.where), reading.manifest.id
            needs = Needs(which, host.identity, _cached(reading, blocks), _pack(blocks))
            reading.threads = _threads(session, needs.cached)
        except Exception as caught:
            error = caught
    told = session.everybody((sessions.told(error), needs))
    sessions.raise_any([failed for failed, _ in told])
    _refuse_mixture([one.checkpoint for _, one in told])
    waves = plan_waves([one for _, one in told], session.rank, host.share)
    shared = {one.place for wave in waves.mine for one in wave}
    if waves.count:
        _through_window(session, reading, blocks, waves)
    failed: Exception | None = None
    try:
        reading.to_destinations([b for place, b in blocks.items() if place not in shared])
    except Exception as caught:
        failed = caught
    session.together(failed)


def _refuse_mixture(read: Sequence[tuple[str, str]]) -> None:
    """Ranks that each look for the newest checkpoint may find two."""
    by_id: dict[str, list[int]] = defaultdict(list)
    for rank, (_, which) in enumerate(read):
        by_id[which].append(rank)
    if len(by_id) > 1:
        words = [f"{read[ranks[0]][0]} on {named(ranks)}" for ranks in by_id.values()]
        raise FsError(Code.INVALID, f"ranks load different checkpoints: {', '.join(words[:4])}")


def plan_waves(told: Sequence[Needs], rank: int, share: str) -> Waves:
    """The same on all ranks of a host, and `count` on all ranks."""
    hosts: dict[str, list[int]] = defaultdict(list)
    for number, needs in enumerate(told):
        hosts[needs.host].append(number)
    found = Waves([], 0, min(hosts[told[rank].host]))
    for name, ranks in hosts.items():
        warm = share == "auto" and all(told[number].cached for number in ranks)
        if share == "never" or warm or len(ranks) == 1:
            continue
        users: dict[Place, list[int]] = defaultdict(list)
        lengths: dict[Place, int] = {}
        for number in ranks:
            for place, length in _unpack(told[number].places):
                users[place].append(number)
                lengths[place] = length
        waves = _fill(sorted(p for p, by in users.items() if len(by) > 1), users, lengths)
        found.count = max(found.count, len(waves))
        if name == told[rank].host:
            found.mine = waves
    return found


def _fill(
    places: Sequence[Place], users: Mapping[Place, list[int]], lengths: Mapping[Place, int]
) -> list[list[Shared]]:
    """Into windows, in order; each block is read by one of its users, evenly in each window."""
    waves: list[list[Shared]] = []
    at, loads = HOST_WINDOW_BYTES, dict[int, int]()
    for place in places:
        length = lengths[place]
        if at + length > HOST_WINDOW_BYTES:
            waves.append([])
            at, loads = 0, defaultdict(int)
        reader = min(users[place], key=lambda rank: (loads[rank], rank))
        loads[reader] += length
        waves[-1].append(Shared(place, length, reader, at))
        at = aligned(at + length)
    return waves


def _through_window(
    session: Session, reading: Reading, blocks: Mapping[Place, Block], waves: Waves
) -> None:
    with _window(session, waves) as window:
        for number in range(waves.count):
            mine = waves.mine[number] if number < len(waves.mine) else []
            own = [
                (blocks[one.place], window[one.at : one.at + one.length])
                for one in mine
                if one.reader == session.rank
            ]
            failed: Exception | None = None
            try:
                reading.to_window([(block, tensors.memory(part)) for block, part in own])
            except Exception as caught:
                failed = caught
            session.together(failed)
            try:
                for one in mine:
                    block = blocks.get(one.place)
                    if block is not None:
                        block.paste(window[one.at : one.at + one.length])
            except Exception as caught:
                failed = caught
            session.together(failed)  # only then may the window be filled again


@contextlib.contextmanager
def _window(session: Session, waves: Waves) -> Iterator[torch.Tensor]:
    """Memory that the ranks of this host share; nothing of it stays when they have gone."""
    size = waves.window_bytes()
    name, error = "", None
    leads = session.rank == waves.leader and size > 0
    try:
        if leads:
            name = f"superfs-checkpoint-{uuid.uuid4().hex}"
            with open(_SHARED_MEMORY / name, "xb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except Exception as caught:
        error = caught
    mapped: mmap.mmap | None = None
    try:
        told = session.everybody((sessions.told(error), name))
        sessions.raise_any([failed for failed, _ in told])
        if size:
            with open(_SHARED_MEMORY / told[waves.leader][1], "r+b") as file:
                mapped = mmap.mmap(file.fileno(), size)
    except Exception as caught:
        error = caught
    try:
        session.together(error)
    finally:
        if leads:
            with contextlib.suppress(OSError):
                os.unlink(_SHARED_MEMORY / name)
    empty = torch.empty(0, dtype=torch.uint8)
    yield torch.frombuffer(mapped, dtype=torch.uint8) if mapped is not None else empty


def _threads(session: Session, cached: bool) -> int:
    """What is in memory takes a core's whole time; what is not is waited for."""
    cores = (os.cpu_count() or 1) // session.neighbours
    return min(max(cores, 1 if cached else READ_THREADS_MIN), READ_THREADS_MAX)


def _cached(reading: Reading, blocks: Mapping[Place, Block]) -> bool:
    """Whether what this rank wants seems to be in this host's memory."""
    chosen = list(blocks.values())
    step = max(1, len(chosen) // PROBES)
    return all(
        reading.source(block.place.file).cached(block.place.offset, block.length)
        for block in chosen[::step]
    )


def _pack(blocks: Mapping[Place, Block]) -> bytes:
    numbers = array("Q")
    for place, block in blocks.items():
        numbers.extend((place.file, place.offset, block.length))
    return zlib.compress(numbers.tobytes(), 1)


def _unpack(packed: bytes) -> Iterator[tuple[Place, int]]:
    numbers = array("Q")
    numbers.frombytes(zlib.decompress(packed))
    for at in range(0, len(numbers), 3):
        yield Place(numbers[at], numbers[at + 1]), numbers[at + 2]
