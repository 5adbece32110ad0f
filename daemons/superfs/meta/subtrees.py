"""Which directories that are held exclusively lie below a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.ids import ROOT

if TYPE_CHECKING:
    from collections.abc import Collection

    from superfs.meta.store import LmdbTxn
    from superfs.v1 import meta_pb2

LOOKED_AT_MAX = 4096
_DEPTH_MAX = 1 << 16


def below(txn: LmdbTxn, tree: meta_pb2.RemoveTree, held: Collection[int]) -> set[int]:
    """Of the first some. Each is followed upwards until somewhere known."""
    dentry = txn.get_dentry(tree.dir.ino, tree.name)
    if dentry is None:
        return set()
    inside: dict[int, bool] = {ROOT: False, dentry.ino: True}
    found = set()
    for lease in list(held)[:LOOKED_AT_MAX]:
        path: list[int] = []
        here = lease
        while here not in inside and len(path) < _DEPTH_MAX:
            path.append(here)
            directory = txn.get_directory(here)
            here = directory.parent if directory is not None else ROOT
        is_inside = inside.get(here, False)
        inside.update(dict.fromkeys(path, is_inside))
        if is_inside:
            found.add(lease)
    return found
