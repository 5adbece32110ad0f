"""Every verb of `Op` (meta.proto) that is a rule, by its name there.

Not here: release, which is about a session, statfs, which is about a store, and log, which is
several of these. `READS` change nothing and may run on a read transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.namespace.append import append
from superfs.core.namespace.create import create
from superfs.core.namespace.create_many import create_many
from superfs.core.namespace.get_many import get_many
from superfs.core.namespace.getattr import getattr as getattr_
from superfs.core.namespace.getxattr import getxattr
from superfs.core.namespace.link import link
from superfs.core.namespace.listxattr import listxattr
from superfs.core.namespace.lookup import lookup
from superfs.core.namespace.mkdir import mkdir
from superfs.core.namespace.new_data import new_data
from superfs.core.namespace.open_inode import open_inode
from superfs.core.namespace.publish import publish
from superfs.core.namespace.read_dir import read_dir
from superfs.core.namespace.read_inline import read_inline
from superfs.core.namespace.remove_tree import remove_tree
from superfs.core.namespace.removexattr import removexattr
from superfs.core.namespace.rename import rename
from superfs.core.namespace.reserve import reserve
from superfs.core.namespace.rmdir import rmdir
from superfs.core.namespace.setattr import setattr as setattr_
from superfs.core.namespace.setxattr import setxattr
from superfs.core.namespace.touch import touch
from superfs.core.namespace.unlink import unlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.core.namespace.outcome import Outcome

READS: dict[str, Callable[..., Outcome]] = {
    "lookup": lookup,
    "getattr": getattr_,
    "read_dir": read_dir,
    "read_inline": read_inline,
    "getxattr": getxattr,
    "listxattr": listxattr,
    "open": open_inode,
    "get_many": get_many,
}

MUTATIONS: dict[str, Callable[..., Outcome]] = {
    "create": create,
    "mkdir": mkdir,
    "unlink": unlink,
    "rmdir": rmdir,
    "rename": rename,
    "link": link,
    "setattr": setattr_,
    "publish": publish,
    "touch": touch,
    "append": append,
    "new_data": new_data,
    "setxattr": setxattr,
    "removexattr": removexattr,
    "reserve": reserve,
    "create_many": create_many,
    "remove_tree": remove_tree,
}

VERBS: dict[str, Callable[..., Outcome]] = READS | MUTATIONS
