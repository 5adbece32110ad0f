"""`superfs put`, `get`, `import` and `export`: files and whole trees, in and out past the mount."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from superfs.cli.bar import bar
from superfs.cli.options import ClusterOption, DirOption, JsonOption, TokenOption, target_of
from superfs.cli.output import EXIT_USAGE, CliError, print_json, printable, say, warn

if TYPE_CHECKING:
    from superfs.client import FileSystem
    from superfs.client.progress import Progress

COPY_BYTES = 4 * 1024 * 1024
ERRORS_SHOWN = 20
Recursive = Annotated[bool, typer.Option("-r", "--recursive", help="Whole trees.")]
Words = Annotated[list[str], typer.Argument(metavar="SRC... DST")]


def put(
    words: Words,
    recursive: Recursive = False,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:
    """Copy local files (or - for standard input) in; durable when it returns."""
    from superfs.cli.reach import file_system

    *sources, target = _sources_and_target(words)
    with file_system(target_of(directory, cluster, token_file)) as fs:
        into = _is_directory(fs, target)
        _check_many(sources, target, into)
        for source in sources:
            place = os.path.join(target, _name(source)) if into else target
            if source != "-" and os.path.isdir(source):
                _check_recursive(source, recursive)
                _check(fs.import_tree(source, place))
                _sync(fs)
            else:
                _put_file(fs, source, place)


def get(
    words: Words,
    recursive: Recursive = False,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:
    """Copy files out, to a local place or to - for standard output."""
    from superfs.cli.reach import file_system

    *sources, target = _sources_and_target(words)
    into = target != "-" and os.path.isdir(target)
    _check_many(sources, target, into)
    with file_system(target_of(directory, cluster, token_file)) as fs:
        for source in sources:
            place = os.path.join(target, _name(source)) if into else target
            if _is_directory(fs, source):
                _check_recursive(source, recursive)
                _check(fs.export_tree(source, place))
            else:
                _get_file(fs, source, place)


def import_tree(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Local tree or file.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="In SuperFS; made if missing.")],
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="NAME", help="Leave out what is called so, anywhere."),
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress bar.")] = False,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:
    """Copy a local tree in, with modes, times, owners, links and xattrs; durable at return."""
    from superfs.cli.reach import file_system

    os.lstat(source)
    with (
        file_system(target_of(directory, cluster, token_file)) as fs,
        bar(f"import {_name(source)}", quiet=quiet or as_json, count=source) as advance,
    ):
        done = fs.import_tree(source, target, advance, exclude or ())
        _sync(fs)
    _report(done, as_json=as_json, what="imported", where=target)


def export_tree(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Tree or file in SuperFS.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="Local; made if missing.")],
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress bar.")] = False,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:
    """Copy a tree out, with modes, times, owners, links and extended attributes."""
    from superfs.cli.reach import file_system

    with (
        file_system(target_of(directory, cluster, token_file)) as fs,
        bar(f"export {_name(source)}", quiet=quiet or as_json) as advance,
    ):
        done = fs.export_tree(source, target, advance)
    _report(done, as_json=as_json, what="exported", where=target)


# ---- one file


def _put_file(fs: FileSystem, source: str, target: str) -> None:
    with contextlib.ExitStack() as stack:
        if source == "-":
            reader, mode = sys.stdin.buffer, 0o666
        else:
            reader = stack.enter_context(open(source, "rb"))
            mode = stat.S_IMODE(os.fstat(reader.fileno()).st_mode)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        writer = stack.enter_context(fs.open_raw(target, flags, mode & 0o777))
        while data := reader.read(COPY_BYTES):
            writer.write(data)
        writer.sync()


def _get_file(fs: FileSystem, source: str, target: str) -> None:
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(fs.open_raw(source, os.O_RDONLY))
        if target == "-":
            writer = sys.stdout.buffer
        else:
            mode = stat.S_IMODE(fs.stat(source).st_mode) & 0o777
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            writer = stack.enter_context(open(fd, "wb"))
        while data := reader.read(COPY_BYTES):
            writer.write(data)
        writer.flush()


def _sync(fs: FileSystem) -> None:
    """On disk at every data daemon; metadata always was."""
    from superfs.client.results import os_errors
    from superfs.rpc.pending import run_sync

    with os_errors():
        run_sync(fs.connection.data.commit())


# ---- arguments


def _sources_and_target(words: list[str]) -> list[str]:
    if len(words) < 2:
        raise CliError("at least one SRC and a DST are needed", status=EXIT_USAGE)
    return words


def _check_many(sources: list[str], target: str, into: bool) -> None:
    if len(sources) > 1 and not into and target != "-":
        raise CliError(f"{target} is not a directory", hint="several sources need one")


def _check_recursive(source: str, recursive: bool) -> None:
    if not recursive:
        raise CliError(f"{source} is a directory", hint="use -r for whole trees")


def _name(path: str) -> str:
    if path == "-":
        raise CliError("standard input needs the name of a file as DST", status=EXIT_USAGE)
    return os.path.basename(os.path.normpath(path))


def _is_directory(fs: FileSystem, path: str) -> bool:
    try:
        return stat.S_ISDIR(fs.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


# ---- what became of a tree


def _report(done: Progress, *, as_json: bool, what: str, where: str) -> None:
    if as_json:
        print_json(
            {
                "files": done.files,
                "directories": done.directories,
                "bytes": done.bytes_done,
                "errors": [{"path": path, "reason": reason} for path, reason in done.errors],
                "errors_total": done.errors_total,
            }
        )
    else:
        size = f"{done.bytes_done / 2**20:.1f} MiB"
        say(f"{where}: {what} {done.files} files in {done.directories} directories, {size}")
    _check(done, quiet=as_json)


def _check(done: Progress, *, quiet: bool = False) -> None:
    """Whoever was left out is named, and the exit status says so."""
    if not done.errors_total:
        return
    for path, reason in () if quiet else done.errors[:ERRORS_SHOWN]:
        warn(f"{printable(os.fsencode(path))}: {reason}")
    raise CliError(f"{done.errors_total} entries could not be copied")
