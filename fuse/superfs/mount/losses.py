"""Changes that are lost and that nobody has heard of: those of directories, and of files that
nobody had open. Who syncs one of these next is told, once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.ids import is_directory_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from superfs.mount.nodes import Node

LOST_MAX = 8192
"""So many are remembered, directories rather than files."""


class Losses:
    def __init__(self) -> None:
        self._errors: dict[int, FsError] = {}
        self.count = 0
        """Of inodes, those that somebody had open included; each time that happened."""

    def __contains__(self, ino: int) -> bool:
        return ino in self._errors

    def note(self, inos: Iterable[int], error: FsError) -> None:
        for ino in sorted(inos, key=is_directory_id):
            self._errors.pop(ino, None)
            if len(self._errors) >= LOST_MAX:
                del self._errors[next(iter(self._errors))]
            self._errors[ino] = error

    @contextlib.contextmanager
    def telling(self, node: Node) -> Iterator[None]:
        """Around what syncs it."""
        try:
            yield
        except FsError as error:
            if error.code is Code.IO:
                self._errors.pop(node.ino, None)
            raise
        lost = self._errors.pop(node.ino, None)
        if lost is not None:
            raise FsError(lost.code, lost.detail)
