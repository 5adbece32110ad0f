"""R-workers that are lost, and those that are there again."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.kvcache.fastdecode.link import Link
    from superfs.kvcache.fastdecode.placing import Place, Placing

log = logging.getLogger("superfs.fastdecode")

LATER_S_MIN, LATER_S_MAX = 0.5, 30.0
"""After which a lost R-worker is asked again; twice as long each time."""


class Watched:
    """An R-worker that fails is lost. With `refused`, NO_SPACE is none of that."""

    def __init__(self, place: Place, refused: Callable[[], None] | None = None) -> None:
        self._place, self._refused = place, refused

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, FsError):
            return False
        if error.code is Code.NO_SPACE and self._refused is not None:
            self._refused()
            return True
        log.warning("%s: its sequences are computed again elsewhere", error)
        self._place.lost = True
        self._place.link.close()
        return True


class Returning:
    """Asks lost R-workers again, beside everything else: one thread, one attempt at a time."""

    def __init__(self, placing: Placing, clock: Callable[[], float]) -> None:
        self._placing = placing
        self._clock = clock
        self._pool: ThreadPoolExecutor | None = None
        self._asked: tuple[Place, Future[Link]] | None = None
        self._later: dict[Place, tuple[float, float]] = {}  # when, and how long after that

    def look(self) -> None:
        """Between two steps. Who is there again starts with nothing, and sequences may come."""
        if self._asked is not None:
            if self._asked[1].done():
                self._answered(*self._asked)
                self._asked = None
            return
        for place in self._placing.places:
            if not place.lost:
                self._later.pop(place, None)
                continue
            now = self._clock()
            when, _ = self._later.setdefault(place, (now + LATER_S_MIN, LATER_S_MIN))
            if now >= when and not place.promised_tokens:
                self._pool = self._pool or ThreadPoolExecutor(1, "return")
                self._asked = place, self._pool.submit(place.link.again)
                return

    def close(self) -> None:
        if self._asked is not None and not self._asked[1].cancel():
            with contextlib.suppress(FsError):
                self._asked[1].result().close()
        if self._pool is not None:
            self._pool.shutdown()

    def _answered(self, place: Place, found: Future[Link]) -> None:
        try:
            link = found.result()
        except FsError as error:
            wait_s = min(2 * self._later[place][1], LATER_S_MAX)
            self._later[place] = self._clock() + wait_s, wait_s
            log.debug("%s", error)
            return
        log.info("R-worker %s is there again", link.name)
        self._placing.renew(place, link)
