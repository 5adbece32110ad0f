"""Making a store, and opening one again: verify, then replay what the index has not seen.

The index says up to which append it is complete. Appends behind that place were acknowledged but
not committed; after a kill they are all there and are put into the index again. After a loss of
power the last ones may be torn: the replay ends at the first append that is not whole, and what
follows it was promised to nobody. Clients keep what is not committed, and the start is noted with
the last version that was found: what has a later one they send again.

Several segments may have been written to beside each other: the active one, and those that were
lent to clients. Versions say how their appends followed one another.

A replayed segment is sealed: nothing is ever appended behind what a start has found.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import CHUNK_BYTES
from superfs.daemon import statedir
from superfs.daemon.lmdbfile import ADVICE
from superfs.data import index as index_module
from superfs.data import records
from superfs.data.appends import appends_in, bytes_of, end_of
from superfs.data.extentmap import CRC_BYTES, Piece, block_count
from superfs.data.keys import ChunkKey, FileKey
from superfs.data.records import HEADER_BYTES, Append, Identity, Position, SegmentRecord
from superfs.data.segments import OpenFile, numbers_in
from superfs.data.store import DataStore
from superfs.data.verify import verify_in_child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from superfs.daemon.world import World
    from superfs.data.config import StoreConfig
    from superfs.data.segments import Segment

ROLE = "datad"


def format_store(
    state_dir: Path, cluster_id: str, node_id: int, config: StoreConfig, world: World
) -> None:
    """An empty store in an empty directory. One that was cut short while it was made is known by
    its mark, and made again; anything else in the directory is refused."""
    mark = state_dir / "making"
    if statedir.identity_path(state_dir).exists():
        raise FsError(Code.WRONG_IDENTITY, f"{state_dir} holds a store already; nothing was done")
    present = {p.name for p in state_dir.iterdir()} - {"lock", "lost+found", "making"}
    if present and not mark.exists():
        raise FsError(
            Code.WRONG_IDENTITY,
            f"{state_dir} holds {sorted(present)[0]!r} but no identity; nothing was done. "
            "Give an empty directory",
        )
    mark.touch(0o600)
    statedir.sync_directory(state_dir)
    for name in ("index", "segments"):
        shutil.rmtree(state_dir / name, ignore_errors=True)
    identity = Identity(cluster_id, node_id, world.rng.randbytes(16))
    index_module.create(state_dir / "index", identity, config.index_bytes)
    (state_dir / "segments").mkdir(mode=0o700)
    for name in ("index", "segments"):
        statedir.sync_directory(state_dir / name)
    statedir.sync_directory(state_dir)
    statedir.write_identity(
        state_dir, statedir.Identity(cluster_id, ROLE, node_id, records.FORMAT_VERSION)
    )
    mark.unlink()


def open_store(state_dir: Path, node_id: int, config: StoreConfig, world: World) -> DataStore:
    """Blocks while it reads the whole index. FsError DAMAGED, WRONG_IDENTITY or BAD_FORMAT."""
    wanted = statedir.read_identity(
        state_dir, role=ROLE, node_id=node_id, format_version=records.FORMAT_VERSION
    )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(state_dir / "making")
    directory = state_dir / "index"
    verify_in_child(directory)
    if not (state_dir / "segments").is_dir():
        raise FsError(Code.DAMAGED, f"{state_dir / 'segments'} is missing. {ADVICE}")
    index = index_module.open_checked(directory)
    try:
        identity = index.identity()
        found = (identity.cluster, identity.node, identity.format)
        if found != (wanted.cluster_id, wanted.node_id, wanted.format):
            raise FsError(
                Code.WRONG_IDENTITY, f"{directory} is not the index of {state_dir}. {ADVICE}"
            )
        store = DataStore(state_dir, identity, index, config, world)
        _Recovery(store).run()
        store.begin_boot()
        store.sync()
    except BaseException:
        index.close()
        raise
    return store


@dataclass(slots=True)
class _Log:
    """A segment that is replayed: what it has and the index has not, in order of versions."""

    segment: Segment
    file: OpenFile
    appends: Iterator[tuple[int, Append]]


class _Recovery:
    def __init__(self, store: DataStore) -> None:
        self._store = store
        self._segments = store.segments
        self._log = store.world.log
        self._next: dict[int, tuple[_Log, int, Append]] = {}  # of each segment, by version
        self.replayed = 0
        self.faults: list[str] = []

    def run(self) -> None:
        store, segments = self._store, self._segments
        position = store.index.position()
        store.position = position
        known = store.index.segments()
        files = numbers_in(segments.directory)
        segments.next_number = max([position.segment, *known, *files]) + 1
        for number, record in known.items():
            segment = segments.adopt(number, record)
            if segment.fault:
                self.faults.append(segment.fault)
            if not record.sealed:
                segments.changed.add(number)
        store.cuts.load()
        store.fences = store.index.fences()
        for number in files:
            found = known.get(number)
            if found is None:
                if number <= position.segment:  # its unlinking was cut short
                    os.unlink(segments.path_of(number))
                    continue
            elif found.sealed:
                continue  # all that counts of it is in the index, whatever lies there
            elif number < position.segment and not segments.by_number[number].paged:
                continue
            self._open(number, position)
        self._replay()
        last = max(segments.by_number, default=position.segment)
        if last > position.segment:
            length = segments.by_number[last].length
            store.position = Position(last, length, store.position.version)
        for fault in self.faults:
            self._log.error("segment damaged", fault=fault, advice="its data reads as EIO")
        self._log.info("recovered", appends=self.replayed, segments=len(segments.by_number))

    def _open(self, number: int, position: Position) -> None:
        """A segment that may have appends behind the position."""
        segments = self._segments
        segment = segments.by_number.get(number)
        if segment is None:
            segment = segments.adopt(number, SegmentRecord(HEADER_BYTES, 0, 0, True))
            segments.changed.add(number)
            if segment.fault:  # made, but never synced: no append in it was promised
                self._log.warning("unfinished segment dropped", fault=segment.fault)
                segment.fault = ""
                return
        if segment.fault:
            return
        segment.created_ns = segment.created_ns or segments.read_header(number).created_ns
        file = OpenFile(segment.path, os.O_RDONLY)
        at = position.offset if number == position.segment else HEADER_BYTES
        appends: Iterator[tuple[int, Append]] = (
            one for one in appends_in(segment, file, at) if one[1].version > position.version
        )
        if segment.paged:  # they were placed in any order
            appends = iter(sorted(appends, key=lambda a: a[1].version))
        self._advance(_Log(segment, file, appends))

    def _advance(self, log: _Log) -> None:
        found = next(log.appends, None)
        if found is not None:
            self._next[found[1].version] = (log, *found)

    def _replay(self) -> None:
        """In the order of versions, which is theirs over all segments, as long as one follows
        another and is whole."""
        while (found := self._next.pop(self._store.position.version + 1, None)) is not None:
            log, at, append = found
            segment = log.segment
            if not self._is_whole(log, at, append):
                self._log.warning("torn append dropped", segment=segment.path.stem, at=at)
                break
            self._apply(segment, append, at)
            segment.length = max(segment.length, end_of(segment, at, append))
            position = self._store.position
            if not segment.paged:
                position = Position(segment.number, segment.length, append.version)
            self._store.position = position._replace(version=append.version)
            self._segments.changed.add(segment.number)
            self._segments.unsynced.add(segment.number)
            self.replayed += 1
            self._advance(log)
        for version, (log, at, _) in sorted(self._next.items()):
            self._log.warning(
                "appends behind a torn one dropped", segment=log.segment.path.stem, at=at,
                version=version, last=self._store.position.version,
            )  # fmt: skip

    def _is_whole(self, log: _Log, at: int, found: Append) -> bool:
        if (
            not 0 < found.length <= CHUNK_BYTES - found.offset
            or len(found.crcs) != block_count(found.length) * CRC_BYTES
        ):
            return False
        data = os.pread(log.file.fd, found.length, bytes_of(log.segment, at, found))
        return len(data) == found.length and records.block_crcs(data) == found.crcs

    def _apply(self, segment: Segment, found: Append, at: int) -> None:
        if self._store.cuts.is_reaped(FileKey(found.ino, found.generation)):
            return
        place = bytes_of(segment, at, found)
        piece = Piece(
            found.offset, found.length, segment.number, place, found.length, 0,
            found.version, found.crcs,
        )  # fmt: skip
        self._store.apply(ChunkKey(found.ino, found.generation, found.chunk), piece)
