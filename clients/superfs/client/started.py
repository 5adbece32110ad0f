"""Reads that are on their way: how long, and what will have the answer."""

from __future__ import annotations

from superfs.client.wire import Reply
from superfs.core.errors import Code, FsError, known_code
from superfs.rpc.pending import Pending

StartedRead = list[tuple[int, Pending[Reply]]]


async def finish_read(started: StartedRead) -> bytes:
    """What is missing at the end of a piece was never written: zeros."""
    parts = []
    for length, pending in started:
        data = check(await pending).data
        parts.append(data if len(data) == length else data.ljust(length, b"\0"))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check(reply: Reply) -> Reply:
    if reply.code != Code.OK:
        raise FsError(known_code(reply.code), reply.detail)
    return reply
