"""One connection for each process and cluster, shared by every instance and thread.

fsspec makes an instance for each thread, and its instances travel into children, by fork and by
pickle. A connection has threads and a session on the daemons, and does not survive a fork: it is
looked up here at each use, so that a child makes its own when it first needs one. Connections end
with their process.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from superfs.client import ClientConfig, FileSystem

if TYPE_CHECKING:
    from superfs.fsspec.target import Target

_lock = threading.Lock()
_open: dict[Target, FileSystem] = {}
_of_parent: list[FileSystem] = []
"""Kept, so that none of it is collected here: its threads and sockets are the parent's."""


def connection_to(target: Target) -> FileSystem:
    """OSError when the cluster cannot be reached or does not let us in."""
    found = _open.get(target)
    if found is not None:
        return found
    with _lock:
        found = _open.get(target)
        if found is None:
            found = _open[target] = FileSystem.connect(
                ClientConfig(
                    target.cluster,
                    target.token_file,
                    retry_timeout_s=target.retry_timeout_s,
                    client_name=f"fsspec, process {os.getpid()}",
                )
            )
    return found


def close_all() -> None:
    """Of this process. Instances go on: they connect again when they are next used."""
    with _lock:
        found = list(_open.values())
        _open.clear()
    for fs in found:
        fs.close()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _of_parent.extend(_open.values())
    _open.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(close_all)
