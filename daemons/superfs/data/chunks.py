"""The pieces of chunks in memory, ahead of the index.

What a write changed is here at once, so that whoever reads sees it before the index has it, and
goes to the index with the next commit, in one piece: the last state of each changed chunk. Chunks
that the index has are kept too, least recently used first out.

    changed    differs from the index; never forgotten
    committing its state was handed to a commit that has not ended; never forgotten
    clean      as in the index

On the event loop's thread only; a commit works on immutable tuples.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.data.batch import ChunkChange
    from superfs.data.extentmap import Pieces
    from superfs.data.keys import ChunkKey, FileKey


@dataclass(slots=True)
class Entry:
    pieces: Pieces
    stored: Pieces  # what the index has


class Chunks:
    def __init__(
        self,
        load: Callable[[ChunkKey], Pieces],
        clean_max: int,
        on_change: Callable[[FileKey], None],
    ) -> None:
        self._load = load
        self._on_change = on_change
        self._clean_max = clean_max
        self._clean: OrderedDict[ChunkKey, Pieces] = OrderedDict()
        self._changed: dict[ChunkKey, Entry] = {}
        self._committing: dict[ChunkKey, Pieces] = {}
        self._ahead: dict[FileKey, set[int]] = {}  # chunks in _changed or _committing, by file

    def __len__(self) -> int:
        return len(self._changed)

    def get(self, key: ChunkKey) -> Pieces:
        entry = self._changed.get(key)
        if entry is not None:
            return entry.pieces
        pieces = self._committing.get(key)
        if pieces is not None:
            return pieces
        pieces = self._clean.get(key)
        if pieces is not None:
            self._clean.move_to_end(key)
            return pieces
        pieces = self._load(key)
        self._keep(key, pieces)
        return pieces

    def put(self, key: ChunkKey, pieces: Pieces) -> None:
        self._on_change(key.file)
        entry = self._changed.get(key)
        if entry is not None:
            entry.pieces = pieces
            return
        stored = self._committing.get(key)
        if stored is None:
            stored = self._clean.pop(key, None)
            if stored is None:
                stored = self._load(key)
        self._changed[key] = Entry(pieces, stored)
        self._ahead.setdefault(key.file, set()).add(key.chunk)

    def ahead_of(self, file: FileKey) -> set[int]:
        """Chunks of a file that the index may not know, or not as they are."""
        return self._ahead.get(file, set())

    def begin_commit(self) -> list[ChunkChange]:
        assert not self._committing, "one commit at a time"
        changes = [(key, entry.stored, entry.pieces) for key, entry in self._changed.items()]
        self._committing = {key: pieces for key, _, pieces in changes}
        self._changed = {}
        return changes

    def end_commit(self) -> None:
        """The index has what was handed over."""
        committed, self._committing = self._committing, {}
        for key, pieces in committed.items():
            if key in self._changed:
                continue
            chunks = self._ahead[key.file]
            chunks.discard(key.chunk)
            if not chunks:
                del self._ahead[key.file]
            self._keep(key, pieces)

    def _keep(self, key: ChunkKey, pieces: Pieces) -> None:
        self._clean[key] = pieces
        if len(self._clean) > self._clean_max:
            self._clean.popitem(last=False)
