"""Which leases an answer tells about: the directory that was asked, found something in it or not,
and the place of every inode whose attributes are in the answer. An inode without a name has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

    from superfs.core.namespace.outcome import Outcome
    from superfs.meta.exclusive import Exclusive
    from superfs.v1 import meta_pb2


class Listener(Protocol):
    """The stream of a session. Neither call waits; what is pushed to a broken one is lost, and
    made good by the hello that follows."""

    def push(self, invalidate: meta_pb2.Invalidate) -> None: ...
    def close(self, reason: str) -> None:
        """The client shall say hello again."""
        ...


@dataclass(slots=True)
class Telling:
    """What the answer to one batch tells, and what it has to wait for."""

    session: int
    listener: Listener | None = None
    """The stream it goes to; None: it is granted nothing."""
    leases: set[int] = field(default_factory=set)
    replayed: bool = False
    """A stored answer is in it: what its first run has touched is not known any more."""
    granted: set[int] = field(default_factory=set)
    sought: set[int] = field(default_factory=set)
    """What it would have been granted exclusively, but that others have leases on it."""
    exclusives: list[Exclusive] = field(default_factory=list)
    """What it was granted exclusively in the transaction,"""
    confirmed: list[int] = field(default_factory=list)
    """and what of this was still so when the commit was announced."""
    pending: asyncio.Future[None] | None = None
    """Until then the answer is not given."""

    def clear(self) -> None:
        """The transaction runs again."""
        self.leases.clear()
        self.sought.clear()
        self.exclusives.clear()
        self.replayed = False


# fmt: off
_IN_DIRECTORY = frozenset((
    "lookup", "read_dir", "get_many", "create", "mkdir", "unlink", "rmdir", "link", "reserve",
    "create_many", "remove_tree",
))
_OF_INODE = frozenset((
    "getattr", "read_inline", "getxattr", "listxattr", "open", "link", "setattr", "publish",
    "append", "new_data", "setxattr", "removexattr",
))
# fmt: on


def hints(told: set[int], verb: str, body: Any) -> None:  # noqa: ANN401
    """What an operation is about, as far as it says. Access times wait for nobody: in a directory
    that is another client's they are passed over."""
    note(told, verb, body, None)


def note(told: set[int], verb: str, body: Any, outcome: Outcome | None) -> None:  # noqa: ANN401
    """`outcome`: None for an error, which tells as much about what was asked."""
    if verb in _IN_DIRECTORY:
        told.add(body.dir.ino)
    elif verb == "rename":
        told.add(body.old_dir.ino)
        told.add(body.new_dir.ino)
    if outcome is None:
        if verb in _OF_INODE:
            told.add(body.inode.place or body.inode.ino)
        return
    attr, other = outcome.attr, outcome.other
    if attr is not None and attr.nlink:
        told.add(attr.place)
    if other is not None and other.nlink:
        told.add(other.place)
    if outcome.dirs:
        told.update(a.place for a in outcome.dirs if a.nlink)
    told |= outcome.places
    if outcome.entries:
        told.update(e.attr.place for e in outcome.entries if e.attr is not None and e.attr.nlink)
