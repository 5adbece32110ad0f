"""Opens the client for a command. Imported inside commands only: the client is heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.client import ClientConfig, FileSystem
from superfs.rpc.memory import keep_large_buffers

if TYPE_CHECKING:
    from superfs.cli.options import Target

RETRY_TIMEOUT_S = 30.0


def file_system(target: Target, *, retry_timeout_s: float = RETRY_TIMEOUT_S) -> FileSystem:
    """A context manager; closes its session at the end."""
    keep_large_buffers()
    return FileSystem.connect(
        ClientConfig(
            cluster=target.cluster,
            token_file=target.token_file,
            retry_timeout_s=retry_timeout_s,
            client_name="superfs",
        )
    )
