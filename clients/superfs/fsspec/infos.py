"""Attributes as fsspec's dictionaries, the same from `ls` and from `info`.

name (absolute), size (bytes; of a symlink: of what it leads to), type ("file", "directory",
"other"), islink, mode, uid, gid, ino, nlink, mtime and created (seconds since 1970), and
version: equal as long as nothing about the inode has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superfs.core.attrs import Attr

Info = dict[str, Any]


def info_of(name: str, attr: Attr) -> Info:
    if attr.is_dir:
        kind, size = "directory", 0
    elif attr.is_regular:
        kind, size = "file", attr.size
    else:
        kind, size = "other", 0
    return {
        "name": name,
        "size": size,
        "type": kind,
        "islink": False,
        "mode": attr.mode,
        "uid": attr.uid,
        "gid": attr.gid,
        "ino": attr.ino,
        "nlink": attr.nlink,
        "mtime": attr.mtime_ns / 1e9,
        "created": attr.btime_ns / 1e9,
        "version": f"{attr.ino:x}-{attr.generation:x}-{attr.change:x}-{attr.size:x}",
    }


def link_info(name: str, target: Attr) -> Info:
    """A symlink in a listing, by what it leads to. One to a directory is "other", so that nobody
    who walks a tree goes round in circles."""
    info = info_of(name, target)
    if target.is_dir:
        info["type"] = "other"
    info["islink"] = True
    return info
