"""`superfs ls`, `stat` and `cat`: looking at files past the mount."""

from __future__ import annotations

import os
import stat as modes
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from superfs.cli.options import ClusterOption, DirOption, JsonOption, TokenOption, target_of
from superfs.cli.output import console, printable, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.client import FileSystem
    from superfs.core.attrs import Attr

COPY_BYTES = 4 * 1024 * 1024
TYPES = {
    modes.S_IFREG: "file",
    modes.S_IFDIR: "directory",
    modes.S_IFLNK: "symlink",
    modes.S_IFIFO: "fifo",
    modes.S_IFSOCK: "socket",
    modes.S_IFCHR: "character device",
    modes.S_IFBLK: "block device",
}
Paths = Annotated[list[str], typer.Argument(metavar="PATH...", help="From the root of SuperFS.")]


def ls(
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATH...]")] = None,
    long: Annotated[bool, typer.Option("-l", help="With attributes.")] = False,
    everything: Annotated[bool, typer.Option("-a", help="Names with a leading dot too.")] = False,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="Whole trees.")] = False,
    as_json: JsonOption = False,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:
    """List directories."""
    from superfs.cli.reach import file_system

    with file_system(target_of(directory, cluster, token_file)) as fs:
        for number, path in enumerate(paths or ["/"]):
            for folder, entries in _listings(fs, os.fsencode(path), recursive=recursive):
                shown = [e for e in entries if everything or not e[0].startswith(b".")]
                if as_json:
                    for name, found in shown:
                        _print_line({"path": _text(os.path.join(folder, name)), **_json(found)})
                    continue
                if recursive or len(paths or []) > 1:
                    say(f"{chr(10) if number else ''}{printable(folder)}:")
                for name, found in shown:
                    say(_long(name, found) if long else printable(name))


Line = tuple[bytes, os.stat_result]


def _listings(
    fs: FileSystem, path: bytes, *, recursive: bool
) -> Iterator[tuple[bytes, list[Line]]]:
    top = fs.stat(path, follow_symlinks=False)
    if not modes.S_ISDIR(top.st_mode) and not modes.S_ISDIR(_followed(fs, path, top).st_mode):
        yield os.path.dirname(path), [(os.path.basename(path), top)]
    elif recursive:
        for folder, directories, others in fs.walk(path):
            found = [(e.name, e.stat(follow_symlinks=False)) for e in (*directories, *others)]
            yield folder, sorted(found, key=lambda line: line[0])
    else:
        yield path, [(e.name, e.stat(follow_symlinks=False)) for e in fs.scandir(path)]


def _followed(fs: FileSystem, path: bytes, found: os.stat_result) -> os.stat_result:
    if not modes.S_ISLNK(found.st_mode):
        return found
    try:
        return fs.stat(path)
    except OSError:
        return found


def _long(name: bytes, found: os.stat_result) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.st_mtime))
    return (
        f"{modes.filemode(found.st_mode)} {found.st_nlink:>3} {_user(found.st_uid):<8} "
        f"{_group(found.st_gid):<8} {found.st_size:>12} {when} {printable(name)}"
    )


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _json(found: os.stat_result) -> dict[str, Any]:
    return {
        "type": TYPES.get(modes.S_IFMT(found.st_mode), "unknown"),
        "mode": f"{modes.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid,
        "gid": found.st_gid,
        "nlink": found.st_nlink,
        "size": found.st_size,
        "inode": found.st_ino,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
        "atime_ns": found.st_atime_ns,
    }


def _text(name: bytes) -> str:
    """In JSON: undecodable bytes as surrogates, so that a script can get them back."""
    return os.fsdecode(name)


def _print_line(value: dict[str, Any]) -> None:
    import json

    print(json.dumps(value))


def stat(
    paths: Paths,
    follow: Annotated[bool, typer.Option("-L", help="Follow symbolic links.")] = False,
    as_json: JsonOption = False,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show everything about inodes, also what a mount cannot: birth time, where the data is."""
    from superfs.cli.reach import file_system
    from superfs.rpc.pending import run_sync

    with file_system(target_of(directory, cluster, token_file)) as fs:
        for path in paths:
            raw = os.fsencode(path)
            fs.stat(raw, follow_symlinks=follow)  # its error names the path
            attr = run_sync(fs.paths.stat(raw, follow=follow))
            places = fs.locate(raw) if attr.is_regular else []
            if as_json:
                _print_line({"path": path, **_inode(attr), "chunks": [_place(p) for p in places]})
            else:
                _show(path, attr, len(places))


def _inode(attr: Attr) -> dict[str, Any]:
    from superfs.core.attrs import Flag

    return {
        "type": TYPES.get(modes.S_IFMT(attr.mode), "unknown"),
        "mode": f"{modes.S_IMODE(attr.mode):04o}",
        "uid": attr.uid,
        "gid": attr.gid,
        "nlink": attr.nlink,
        "size": attr.size,
        "inode": attr.ino,
        "generation": attr.generation,
        "atime_ns": attr.atime_ns,
        "mtime_ns": attr.mtime_ns,
        "ctime_ns": attr.ctime_ns,
        "btime_ns": attr.btime_ns,
        "flags": [flag.name for flag in Flag if attr.flags & flag],
        "data_generation": attr.data_generation,
        "chains": list(attr.chains),
        "change": attr.change,
    }


def _place(place: Any) -> dict[str, Any]:  # noqa: ANN401
    from dataclasses import asdict

    return asdict(place)


def _show(path: str, attr: Attr, places: int) -> None:
    shown = _inode(attr)
    screen = console()
    screen.print(f"[bold]{printable(os.fsencode(path))}[/]", markup=True)
    mode = modes.filemode(attr.mode)
    say(f"  {shown['type']}, {attr.size} bytes, {mode} ({shown['mode']}), {attr.nlink} links")
    say(f"  owner {_user(attr.uid)} ({attr.uid}), group {_group(attr.gid)} ({attr.gid})")
    say(f"  inode {attr.ino:#x}, generation {attr.generation}, change {attr.change}")
    where = "with its metadata" if attr.is_inline else f"on chains {shown['chains']}"
    if attr.is_regular:
        say(f"  data generation {attr.data_generation}, {where}, {places} ranges")
    for name in ("birth", "change", "modification", "access"):
        ns = shown[f"{name[0]}time_ns"]
        say(
            f"  {name:<13}{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(ns // 10**9))}"
            f".{ns % 10**9:09d}"
        )
    if shown["flags"]:
        say(f"  flags {', '.join(shown['flags'])}")


def cat(
    paths: Paths,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:
    """Write files to standard output."""
    from superfs.cli.reach import file_system

    with file_system(target_of(directory, cluster, token_file)) as fs:
        for path in paths:
            with fs.open_raw(os.fsencode(path), os.O_RDONLY) as file:
                while data := file.read(COPY_BYTES):
                    sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
