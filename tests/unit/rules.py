"""What the tests of the rules share: a store, callers, and short ways to run a verb."""

from __future__ import annotations

import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT, ROOT_GENERATION
from superfs.core.namespace.txn import Caller, Ref
from superfs.meta.memstore import MemStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome

KERNEL = Caller(session=1, umask=0o022)
"""A host session's root."""
ALICE = Caller(1000, 1000, frozenset({2000}), 0o022, 2, trusted=False)
BOB = Caller(1001, 1001, frozenset(), 0o022, 3, trusted=False)
ROOT_USER = Caller(0, 0, frozenset(), 0o022, 4, trusted=False)
TOP = Ref(ROOT, ROOT_GENERATION)


def ref_of(attr: Attr) -> Ref:
    return Ref(attr.ino, attr.generation, attr.place)


class Namespace:
    """A store that is checked after every operation."""

    def __init__(self) -> None:
        self.store = MemStore()

    def do(self, verb: str, *args: object, caller: Caller = KERNEL, **options: object) -> Outcome:
        outcome = self.store.do(verb, caller, *args, **options)
        assert self.store.findings() == []
        return outcome

    def attr(self, verb: str, *args: object, caller: Caller = KERNEL, **options: object) -> Attr:
        attr = self.do(verb, *args, caller=caller, **options).attr
        assert attr is not None
        return attr

    def file(
        self,
        name: bytes,
        mode: int = 0o644,
        within: Ref = TOP,
        *,
        caller: Caller = KERNEL,
        **options: object,
    ) -> Ref:
        mode |= stat.S_IFREG
        return ref_of(self.attr("create", within, name, mode, caller=caller, **options))

    def dir(
        self,
        name: bytes,
        mode: int = 0o755,
        within: Ref = TOP,
        *,
        caller: Caller = KERNEL,
        version_min: int = 0,
    ) -> Ref:
        return ref_of(
            self.attr("mkdir", within, name, mode, caller=caller, version_min=version_min)
        )

    def symlink(self, name: bytes, target: bytes = b"to", within: Ref = TOP) -> Ref:
        return ref_of(self.attr("create", within, name, stat.S_IFLNK, target=target))

    def stat(self, inode: Ref) -> Attr:
        return self.attr("getattr", inode)

    def spilled(self, name: bytes, size: int) -> Ref:
        """A file of `size` bytes on data daemons."""
        inode = self.file(name)
        prepared = self.do("new_data", inode)
        assert prepared.attr is not None
        change = prepared.attr.change
        self.do("publish", inode, prepared.number, size=size, spill=True, inline_change=change)
        return inode


@contextmanager
def refuses(code: Code) -> Iterator[None]:
    with pytest.raises(FsError) as error:
        yield
    assert error.value.code == code, error.value
