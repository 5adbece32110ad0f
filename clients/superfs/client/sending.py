"""Writes that go straight to their data daemon: for whoever must not wait, and has no need to.

The ordinary way of a large write is into the dirty bytes and out of them again a moment later
(writing.py). Where the daemon reads it out of shared memory and nothing is ahead of it, it can be
sent as it is, at once; from then on it is unpublished like any other.
"""

from __future__ import annotations

from superfs.client.data import Where
from superfs.client.sharedmem import slot_of
from superfs.client.writing import UNPUBLISHED_BYTES_MAX, Writing
from superfs.core.limits import FILE_DATA_BYTES_MAX


class Sending(Writing):
    def write_now(self, offset: int, data: bytes | memoryview) -> bool:
        """As `write`, where nothing has to be waited for; False: nothing was done."""
        if offset < 0 or offset + len(data) > FILE_DATA_BYTES_MAX or self._failure is not None:
            return False
        with self._state:
            if not self._is_full(len(data)):
                self._dirty.write(offset, data)
                self._readahead.drop(offset, offset + len(data))
                self._note_write(False, None)
                return True
        if slot_of(data) is None or not self._turn.acquire_nowait():
            return False
        try:
            assert isinstance(data, memoryview)
            return self._send_now(offset, data)
        finally:
            self._turn.release()

    def _send_now(self, offset: int, data: memoryview) -> bool:
        """With `_turn` held: nobody else sends or publishes."""
        with self._state:
            attr = self._attr
            ahead = bool(self._dirty or self._flying)
            if attr.is_inline or ahead or self._unpublished_bytes >= UNPUBLISHED_BYTES_MAX:
                return False
        answer = self._data.start_write_now(Where.of(attr, self._capability), offset, data)
        if answer is None:
            return False
        with self._state:
            self._note_write(False, None)
            self._readahead.drop(offset, offset + len(data))
            self._answers.append(answer)
            self._written_end = max(self._written_end, offset + len(data))
            self._unpublished_bytes += len(data)
            self._unpublished.append((offset, data))
        return True
