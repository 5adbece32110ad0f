"""Reads by passed descriptors, as far as a client counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.waiting import wait_until

if TYPE_CHECKING:
    from superfs.client import FileSystem
    from superfs.client.bypass import Moved


def moved(fs: FileSystem) -> Moved:
    return fs.paths.connection.data.bypass.moved


def warm(fs: FileSystem, path: str) -> None:
    """Until reads of it go by descriptor: the socket is opened behind the first request."""

    def goes_past() -> bool:
        before = moved(fs).read_descriptor
        fs.read_bytes(path)
        return moved(fs).read_descriptor > before

    wait_until(goes_past, "a read goes by descriptor")
