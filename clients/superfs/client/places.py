"""Where the bytes of chunks lie in the segments of data daemons on this host: what was located.

Pure bookkeeping, under a lock of its own. A place is good for as long as the mark of its file has
the value that it came with, which whoever reads looks at each time (local.py). The mark changes
when a write is answered; a client must also see those of its own that are only on their way: it
forgets the places of a file when it has sent one, and those that were asked for before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.client.local import LocalLink
    from superfs.core.extents import Extent

ENTRIES_MAX = 65_536
TOUCHED_MAX = 4096

File = tuple[int, int]  # inode, data generation
Key = tuple[int, int, int]  # and chunk


@dataclass(frozen=True, slots=True)
class Place:
    link: LocalLink
    mark: int
    value: bytes
    extents: tuple[Extent, ...]
    starts: tuple[int, ...]  # their offsets
    scattered: bool = False

    def is_current(self) -> bool:
        return self.link.is_current(self.mark, self.value)


@dataclass(eq=False, slots=True)
class Question:
    """Places that are being asked for. `old`: a write was sent behind it. `waiting`: to be called
    when there is an answer, or none will come."""

    file: File
    chunks: frozenset[int]
    old: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)


class Places:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Key, Place] = OrderedDict()
        self._weight = 0
        self._asked: dict[File, list[Question]] = {}
        self._of_file: dict[File, set[Key]] = {}
        self._touched: OrderedDict[File, None] = OrderedDict()

    def get(self, key: Key) -> Place | None:
        """None: not known, or not current."""
        place = self._known.get(key)
        if place is None:
            return None
        if not place.is_current():
            with self._lock:
                self._drop(key)
            return None
        return place

    def touch(self, key: File) -> bool:
        """Whether this file was touched lately: then it is worth a question of its own."""
        with self._lock:
            if key in self._touched:
                self._touched.move_to_end(key)
                return True
            self._touched[key] = None
            if len(self._touched) > TOUCHED_MAX:
                self._touched.popitem(last=False)
            return False

    def ask(self, file: File, chunks: Iterable[int]) -> Question:
        """Before the question is sent."""
        question = Question(file, frozenset(chunks))
        with self._lock:
            self._asked.setdefault(file, []).append(question)
        return question

    def is_asked(self, key: Key) -> bool:
        with self._lock:
            return self._under_way(key) is not None

    def wait(self, key: Key, then: Callable[[], None]) -> bool:
        """`then` is called when a question for this chunk that is on its way has been answered, and
        what it finds here is as good as an answer of its own: nothing of this client has been
        written behind that question, and of others' writes the mark tells. False: nobody asks."""
        with self._lock:
            question = self._under_way(key)
            if question is not None:
                question.waiting.append(then)
            return question is not None

    def _under_way(self, key: Key) -> Question | None:
        for question in self._asked.get(key[:2], ()):
            if not question.old and key[2] in question.chunks:
                return question
        return None

    def answered(self, question: Question, found: dict[Key, Place]) -> None:
        """`found` is empty when there was no answer."""
        self._take_in(question, found)
        for then in question.waiting:  # no more are added: it is not asked any more
            then()

    def _take_in(self, question: Question, found: dict[Key, Place]) -> None:
        with self._lock:
            self._asked[question.file].remove(question)
            if not self._asked[question.file]:
                del self._asked[question.file]
            if question.old:
                return
            for key, place in found.items():
                self._drop(key)
                self._known[key] = place
                self._of_file.setdefault(question.file, set()).add(key)
                self._weight += 1 + len(place.extents)
            while self._weight > ENTRIES_MAX:
                self._drop(next(iter(self._known)))

    def wrote(self, file: File) -> None:
        """After a write was sent, before whoever sent it goes on."""
        with self._lock:
            for question in self._asked.get(file, ()):
                question.old = True
            for key in list(self._of_file.get(file, ())):
                self._drop(key)

    def _drop(self, key: Key) -> None:
        place = self._known.pop(key, None)
        if place is None:
            return
        self._weight -= 1 + len(place.extents)
        keys = self._of_file[key[:2]]
        keys.discard(key)
        if not keys:
            del self._of_file[key[:2]]
