"""Splits for hosts: what lies on one host is read together there.

A large file's chunks are dealt over several data daemons, and so are small files. A `Unit` is read
in one go, and its number says where its rows are among all rows: in the order of files and of bytes
in them, whatever splits the units are in. Where nobody asks for that order a split is one unit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from superfs.chukonu.sources.splits import Span, Split, compression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from superfs.chukonu.sources.store import FileInfo, Place

Hosts = tuple[str, ...]
"""The best first."""
HOSTS_MAX = 3


@dataclass(frozen=True, slots=True)
class Unit:
    number: int
    split: Split


@dataclass(frozen=True, slots=True)
class Group:
    """What one task reads, and where it should run."""

    units: tuple[Unit, ...]
    hosts: Hosts = ()


def identity(groups: Iterable[Group]) -> str:
    """The same when every task reads the same, in the same order."""
    digest = hashlib.blake2b(digest_size=8)
    for group in groups:
        digest.update(b"group")
        for unit in group.units:
            digest.update(unit.split.identity(str(unit.number)).encode())
    return digest.hexdigest()


def plain(splits: Iterable[Split]) -> list[Group]:
    """For anybody."""
    return [Group((Unit(number, split),)) for number, split in enumerate(splits)]


def by_host(
    files: Iterable[FileInfo],
    places: Callable[[FileInfo], Sequence[Place]],
    split_bytes: int,
    *,
    whole: bool,
    ordered: bool,
) -> list[Group]:
    """`places`: of a file, in order, with no gaps. `whole`: no file is cut. `ordered`: the rows
    of all units, by their numbers, are in the order of files."""
    found: list[tuple[Split, Hosts]] = []
    run: list[tuple[Span, Hosts]] = []
    size = 0

    def close() -> None:
        if run:
            parts = ((span.end - span.start, hosts) for span, hosts in run)
            found.append((Split(tuple(span for span, _ in run)), _most(parts)))
            run.clear()

    for file in files:
        pieces = list(_pieces(file, places(file), split_bytes, whole=whole))
        if len(pieces) > 1 or not ordered:
            close()
            found += [(Split((span,)), hosts) for span, hosts in pieces]
            continue
        if size + file.size > split_bytes:
            close()
        size = size + file.size if run else file.size
        run += pieces
    close()
    return _grouped(found, split_bytes, ordered=ordered)


def _most(parts: Iterable[tuple[int, Hosts]]) -> Hosts:
    """The hosts that have most of these bytes."""
    bytes_of: dict[str, int] = {}
    for size, hosts in parts:
        for host in hosts:
            bytes_of[host] = bytes_of.get(host, 0) + size
    return tuple(sorted(bytes_of, key=lambda host: -bytes_of[host])[:HOSTS_MAX])


def _pieces(
    file: FileInfo, places: Sequence[Place], split_bytes: int, *, whole: bool
) -> Iterator[tuple[Span, Hosts]]:
    """What of the file lies together, cut to what a split may have."""
    if whole or compression(file.path) or not file.size:
        yield Span(file, 0, file.size), _most((end - start, hosts) for start, end, hosts in places)
        return
    runs: list[list[int]] = []
    of_runs: list[Hosts] = []
    for start, end, hosts in places or [(0, file.size, ())]:
        if of_runs and of_runs[-1] == hosts:
            runs[-1][1] = end
        else:
            runs.append([start, end])
            of_runs.append(hosts)
    for (start, end), hosts in zip(runs, of_runs, strict=True):
        count = -(-(end - start) // split_bytes)
        cuts = [start + (end - start) * i // count for i in range(count + 1)]
        for one, other in pairwise(cuts):
            yield Span(file, one, other), hosts


def _grouped(
    found: Sequence[tuple[Split, Hosts]], split_bytes: int, *, ordered: bool
) -> list[Group]:
    """What has the same first host, as much as one task gets, in groups by their first unit."""
    groups: list[tuple[list[Unit], Hosts]] = []
    begun: dict[str, tuple[list[Unit], int]] = {}
    for number, (split, hosts) in enumerate(found):
        key = hosts[0] if hosts else ""
        units, size = begun.get(key, ([], 0))
        if not units or size + split.bytes > split_bytes:
            units, size = [], 0
            groups.append((units, hosts))
        units.append(Unit(number, split))
        begun[key] = units, size + split.bytes
    if ordered:
        return [Group(tuple(units), hosts) for units, hosts in groups]
    made = []
    for number, (units, hosts) in enumerate(groups):
        spans = tuple(span for unit in units for span in unit.split.spans)
        made.append(Group((Unit(number, Split(spans)),), hosts))
    return made
