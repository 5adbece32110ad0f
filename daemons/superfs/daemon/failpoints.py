"""Named points before and after every step whose interruption matters.

    failpoints.hit("metad.commit.before")

Off, a hit costs one attribute check. A daemon arms them from the environment variable
SUPERFS_FAILPOINTS only if its configuration says `failpoints = true`:

    name=action[*count][,name=action...]      action: kill | error | delay:MILLISECONDS

`kill` ends the process with SIGKILL, `error` raises OSError EIO, `delay` sleeps in the calling
thread. With `*count` only the count-th hit acts (the first is 1), without it every one.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from dataclasses import dataclass

from superfs.core.config import ConfigError

ENVIRONMENT = "SUPERFS_FAILPOINTS"


@dataclass(frozen=True, slots=True)
class Action:
    kind: str
    delay_ms: int = 0
    count: int = 0  # 0: every hit


class Failpoints:
    def __init__(self, actions: dict[str, Action] | None = None) -> None:
        self._actions = actions or {}
        self._hits: dict[str, int] = {}
        self._lock = threading.Lock()
        self.armed = bool(self._actions)

    def hit(self, name: str) -> None:
        if self.armed:
            self._act(name)

    def arm(self, text: str) -> None:
        """Replaces all actions; "" disarms. ConfigError if the text cannot be understood."""
        self._actions = parse(text)
        self._hits = {}
        self.armed = bool(self._actions)

    def _act(self, name: str) -> None:
        action = self._actions.get(name)
        if action is None:
            return
        with self._lock:
            hits = self._hits[name] = self._hits.get(name, 0) + 1
        if action.count and hits != action.count:
            return
        if action.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action.kind == "error":
            raise OSError(errno.EIO, f"failpoint {name}")
        else:
            time.sleep(action.delay_ms / 1000)


def from_environment(enabled: bool) -> Failpoints:
    if not enabled:
        return Failpoints()
    return Failpoints(parse(os.environ.get(ENVIRONMENT, "")))


def parse(text: str) -> dict[str, Action]:
    actions = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, rest = item.partition("=")
        what, star, count = rest.partition("*")
        kind, colon, delay = what.partition(":")
        valid = (
            bool(name and equals)
            and kind in ("kill", "error", "delay")
            and (delay.isdecimal() if kind == "delay" else not colon)
            and (count.isdecimal() and int(count) > 0 if star else True)
        )
        if not valid:
            raise ConfigError(
                f"{ENVIRONMENT}: cannot understand {item!r}; expected "
                "name=kill, name=error or name=delay:MS, each with *COUNT behind it or not"
            )
        actions[name] = Action(kind, int(delay or 0), int(count or 0))
    return actions
