"""Structured logs on stderr: one JSON object a line, or columns for people ("console").

Everything, our own events and the libraries', goes through the standard `logging`. Secrets are
cut out by name before anything is written.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("json", "console")

_SECRET = ("token", "capability", "secret", "cluster_key")

Event = MutableMapping[str, Any]


def configure(level: str, form: str, **bound: object) -> structlog.stdlib.BoundLogger:
    """Sets up the process's logging and returns its logger, with `bound` in every line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_secrets,
    ]
    last: list[structlog.typing.Processor] = (
        [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=repr, ensure_ascii=True),
        ]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(output)
    root.setLevel(level.upper())
    structlog.contextvars.clear_contextvars()
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("superfs")
    return logger.bind(**bound)


def _without_secrets(_logger: object, _method: str, event: Event) -> Event:
    for name in event:
        if name.endswith(_SECRET):
            event[name] = "(not shown)"
    return event
