"""The caller that path-level calls act for.

In a host's session that is whoever this process is to the kernel; a user's session is always the
user of its token, whatever the process is.
"""

from __future__ import annotations

import os
from pathlib import Path

from superfs.core.namespace.txn import Caller
from superfs.core.tokens import Purpose, claims

DEFAULT_UMASK = 0o022


def own_umask() -> int:
    """Read without setting it: os.umask would change it for a moment, for every thread."""
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return DEFAULT_UMASK


def own_caller(session_token: bytes) -> Caller:
    grant = claims(Purpose.SESSION, session_token)
    if grant.kind == "user":
        return Caller(grant.uid, grant.gid, frozenset(grant.groups), own_umask())
    return Caller(os.geteuid(), os.getegid(), frozenset(os.getgroups()), own_umask())
