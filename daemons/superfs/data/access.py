"""Who may do what with which inode: capabilities, their epochs, and fences.

A capability is a token that a metadata daemon signed. A host session's is good for every inode, a
user session's for the one it names. Truncate, Reap and Fence are for daemons, which show no
capability: their session token says what they are. The permission of a request is decided when it
is taken up, so a fence holds for everything that comes after its answer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.tokens import Authority, Grant, Purpose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from superfs.data.records import FenceRecord

KNOWN_MAX = 4096


class Capabilities:
    """Verified ones are remembered: a stream shows many, again and again."""

    def __init__(self, authority: Authority, now_ns: Callable[[], int]) -> None:
        self._authority = authority
        self._now_ns = now_ns
        self._known: OrderedDict[bytes, Grant] = OrderedDict()

    def verify(self, token: bytes) -> Grant:
        grant = self._known.get(token)
        if grant is None:
            grant = self._authority.verify(Purpose.CAPABILITY, token, self._now_ns())
            self._known[token] = grant
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return grant


class Access:
    """What one stream, or one call, has shown so far."""

    __slots__ = ("_capabilities", "_fences", "_now_ns", "_shown", "grant")

    def __init__(
        self,
        session: Grant,
        capabilities: Capabilities,
        fences: Mapping[int, FenceRecord],
        now_ns: Callable[[], int],
    ) -> None:
        self.grant: Grant | None = session if session.kind == "daemon" else None
        self._shown = b""
        self._capabilities = capabilities
        self._fences = fences
        self._now_ns = now_ns

    def show(self, token: bytes) -> None:
        if token and token != self._shown:
            self.grant = self._capabilities.verify(token)
            self._shown = token

    def _current(self) -> Grant:
        grant = self.grant
        if grant is None:
            raise FsError(Code.UNAUTHENTICATED, "a capability is needed")
        if grant.expired(self._now_ns()):
            raise FsError(Code.UNAUTHENTICATED, "the capability has expired")
        fence = self._fences.get(grant.session_id)
        if fence is not None and grant.epoch < fence.epoch:
            raise FsError(Code.SESSION_EXPIRED, "the session of this capability has ended")
        return grant

    def may_read(self, ino: int) -> None:
        self._may_touch(self._current(), ino)

    def may_write(self, ino: int) -> None:
        grant = self._current()
        self._may_touch(grant, ino)
        if grant.read_only:
            raise FsError(Code.READ_ONLY, "the capability is for reading only")

    def may_write_all(self) -> None:
        grant = self._current()
        if grant.kind != "host" or grant.inode or grant.read_only:
            raise FsError(Code.FORBIDDEN, "only a host session that may write everywhere may")

    def may_hold(self) -> None:
        """Descriptors of whole segments, which show every file."""
        grant = self._current()
        if grant.kind != "host" or grant.inode:
            raise FsError(Code.FORBIDDEN, "only a host session with a right to everything may")

    def may_command(self) -> None:
        if self._current().kind != "daemon":
            raise FsError(Code.FORBIDDEN, "only daemons may do that")

    @staticmethod
    def _may_touch(grant: Grant, ino: int) -> None:
        if grant.inode != ino and (grant.inode or grant.kind == "user"):
            raise FsError(Code.FORBIDDEN, f"the capability is not for inode {ino:#x}")
