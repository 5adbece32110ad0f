"""Which machine this is."""

from __future__ import annotations

from pathlib import Path


def host_id() -> str:
    """The machine-id: who has the same one can reach our Unix sockets. "" if there is none."""
    try:
        return Path("/etc/machine-id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
