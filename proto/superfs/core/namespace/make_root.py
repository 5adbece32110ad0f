"""make_root: the one directory that no mkdir made. Run once, on an empty store."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.attrs import Attr
from superfs.core.ids import ROOT, ROOT_GENERATION
from superfs.core.namespace.txn import Directory

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Txn


def make_root(txn: Txn, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
    assert txn.get_directory(ROOT) is None, "the root exists"
    now = txn.now_ns
    attr = Attr(
        ROOT, ROOT_GENERATION, ROOT, stat.S_IFDIR | mode & 0o7777, 2, uid, gid, 0, 0,
        now, now, now, now, change=txn.commit,
    )  # fmt: skip
    txn.put_directory(Directory(attr, ROOT, b""))
