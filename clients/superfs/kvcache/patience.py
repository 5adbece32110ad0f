"""Who waits for a load no longer than it is worth, even if nothing comes of it at all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.kvcache.admission import Admission


class Patience:
    """With one load, from now on. `done` of `total` bytes have come; `end` it always."""

    def __init__(self, admission: Admission, tokens: int, lose: Callable[[], None]) -> None:
        """`tokens`: what the load stands for. `lose` is called when it is not worth it any more,
        once or more often, in any thread."""
        self.done, self.total = 0, 1
        self.tokens = tokens
        self._admission = admission
        self._lose = lose
        self._began = admission.clock()
        self._each_s = admission.patience_s(tokens)
        self._timer: threading.Timer | None = None
        self._over = False

    @property
    def seconds(self) -> float:
        return self._admission.clock() - self._began

    def goes_on(self) -> bool:
        """Whether the load is worth it still."""
        return self._admission.goes_on(self.done, self.total, self.seconds, self.tokens)

    def wait(self, found: threading.Event) -> None:
        """Until then, or until it is lost; then the load is looked at from time to time."""
        while not found.wait(self._each_s):
            if not self.goes_on():
                self._lose()
                return
        self._arm()

    def end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._each_s is None or self._over:
            return
        self._timer = threading.Timer(self._each_s, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        if self._over:
            return
        if self.goes_on():
            self._arm()
        else:
            self._lose()
