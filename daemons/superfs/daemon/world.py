"""What a daemon is given: time, chance, keys, logs. A test gives it another world."""

from __future__ import annotations

import errno
import logging
import os
import random
import secrets
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from prometheus_client import CollectorRegistry

from superfs.core.config import ConfigError
from superfs.core.errors import Code, FsError
from superfs.daemon.clock import Clock, SystemClock
from superfs.daemon.exits import EXIT_CONFIG, EXIT_FAILURE, EXIT_IO
from superfs.daemon.failpoints import Failpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.core.tokens import Authority

_EXIT_78 = (Code.DAMAGED, Code.WRONG_IDENTITY, Code.BAD_FORMAT)


def exit_code_of(error: BaseException) -> int:
    if isinstance(error, ConfigError):
        return EXIT_CONFIG
    if isinstance(error, FsError) and error.code in _EXIT_78:
        return EXIT_CONFIG
    if isinstance(error, FsError) and error.code in (Code.IO, Code.NO_SPACE):
        return EXIT_IO
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ENOSPC, errno.EROFS):
        return EXIT_IO
    return EXIT_FAILURE


def exit_fatal(message: str, code: int = EXIT_IO) -> NoReturn:
    """Ends the process now, from any thread: no answer goes out after an error that makes it
    unknown what is on disk. What was acknowledged before is durable by definition."""
    structlog.stdlib.get_logger("superfs").critical("fatal", reason=message, exit_code=code)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


@dataclass
class World:
    authority: Authority
    clock: Clock = field(default_factory=SystemClock)
    rng: random.Random = field(default_factory=lambda: random.Random(secrets.randbits(128)))
    failpoints: Failpoints = field(default_factory=Failpoints)
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)
    log: Any = field(default_factory=lambda: structlog.stdlib.get_logger("superfs"))
    fatal: Callable[..., NoReturn] = exit_fatal
    """fatal(message, code=EXIT_IO): stop serving at once. Tests give one that raises."""
