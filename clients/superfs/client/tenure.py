"""In whose session bytes were written that are not published yet.

While a client is away for too long its session ends, and others go on without it. What it had still
to write was written before what they have written since, and must not come after it. So such bytes
are tied to the session in which they were written: under its capability they go to data daemons,
which are told when it is over, and under its numbers to the metadata daemon. Into another session
they are taken only where the file is what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superfs.client.connection import Connection
    from superfs.client.session import Session


class Tenure:
    __slots__ = ("_connection", "capability", "overtaken", "session")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.begin(connection.session)

    def begin(self, session: Session | None = None) -> None:
        """With the next bytes, or when what there is may go on in this session."""
        self.session = session or self._connection.session
        self.capability = self._connection.capability
        self.overtaken = False

    @property
    def is_over(self) -> bool:
        return self.session is not self._connection.session

    def changed(self) -> None:
        """Somebody else has changed the file."""
        self.overtaken = self.overtaken or self.is_over
