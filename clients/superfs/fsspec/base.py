"""What every part of the file system stands on: options, the connection, names of paths."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from fsspec.spec import AbstractFileSystem
from fsspec.utils import stringify_path

from superfs.fsspec.pool import connection_to
from superfs.fsspec.target import Target, find_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    from superfs.client import FileSystem

    T = TypeVar("T")

Path = str | os.PathLike[str]


class Base(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    protocol = ("superfs",)
    root_marker = "/"

    def __init__(
        self,
        dir: Path | None = None,  # noqa: A002 - as the command line's --dir
        cluster: str | Sequence[str] | None = None,
        token_file: Path | None = None,
        retry_timeout_s: float = 30.0,
        auto_mkdir: bool = True,
        **storage_options: Any,  # noqa: ANN401 - fsspec's own
    ) -> None:
        """`dir`: of `superfs up --dir`; or `cluster`, addresses of clusterd, with `token_file`.
        None of them: as the command line finds a cluster (target.py). `retry_timeout_s`: how long
        an outage is ridden out. `auto_mkdir`: what is written makes its parent directories.
        Connects at the first use."""
        super().__init__(**storage_options)
        self._where = (dir, cluster, token_file, retry_timeout_s)
        self._target: Target | None = None
        self._auto_mkdir = auto_mkdir
        self._collecting = threading.local()

    # ---- the connection

    @property
    def client(self) -> FileSystem:
        """The SDK's file system, shared by this process."""
        if self._target is None:
            self._target = find_target(*self._where)
        return connection_to(self._target)

    @property
    def fsid(self) -> str:
        return f"superfs-{self.client.connection.map.cluster_id}"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # noqa: ANN401 - a path or a list of them
        if isinstance(path, (list, tuple, set)):
            return [cls._strip_protocol(p) for p in path]
        text = stringify_path(path)
        for prefix in ("superfs://", "superfs::"):
            text = text.removeprefix(prefix)
        return "/" + text.strip("/")

    @contextlib.contextmanager
    def _collect(self, what: str, add: Callable[[Any, Any], None] | None) -> Iterator[None]:
        """Until it ends, this thread's files of that kind go to `add`."""
        setattr(self._collecting, what, add)
        try:
            yield
        finally:
            setattr(self._collecting, what, None)

    def _making_parents(self, names: Iterable[str], write: Callable[[], T]) -> T:
        try:
            return write()
        except FileNotFoundError:
            parents = {self._parent(name) for name in names}
            missing = [p for p in parents if not self.exists(p)] if self._auto_mkdir else []
            if not missing:
                raise
        for parent in sorted(missing):
            self.client.makedirs(parent, exist_ok=True)
        return write()
