"""Splits for several hosts: every byte once, in order if that is asked for, where its host is."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from superfs.chukonu.sources.grouping import Group, by_host
from superfs.chukonu.sources.store import FileInfo

if TYPE_CHECKING:
    from superfs.chukonu.sources.store import Place

CHUNK, SPLIT = 4 << 20, 16 << 20
HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def some_files(rng: random.Random) -> tuple[list[FileInfo], dict[str, list[Place]]]:
    files: list[FileInfo] = []
    places: dict[str, list[Place]] = {}
    for number in range(rng.randrange(1, 60)):
        size = rng.choice([0, rng.randrange(1, 50_000), rng.randrange(1, 40 << 20), CHUNK * 3])
        path = f"/in/{number:04}{rng.choice(['.json', '.json', '.json.gz'])}"
        files.append(FileInfo(path, size, "1"))
        first = rng.randrange(len(HOSTS))
        places[path] = [
            (start, min(start + CHUNK, size), (HOSTS[(first + at) % len(HOSTS)],))
            for at, start in enumerate(range(0, size, CHUNK))
        ]
    return files, places


def _places_of(places: dict[str, list[Place]], file: FileInfo) -> list[Place]:
    return places[file.path]


def pieces(groups: list[Group]) -> list[tuple[int, str, int, int]]:
    return sorted(
        (unit.number, span.file.path, span.start, span.end)
        for group in groups
        for unit in group.units
        for span in unit.split.spans
    )


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_every_byte_is_in_one_group(ordered: bool, whole: bool) -> None:
    for seed in range(60):
        files, places = some_files(random.Random(seed))
        of = partial(_places_of, places)
        groups = by_host(files, of, SPLIT, whole=whole, ordered=ordered)
        found = pieces(groups)
        numbers = [unit.number for group in groups for unit in group.units]
        assert len(set(numbers)) == len(numbers), seed
        covered = {file.path: 0 for file in files}
        for _, path, start, end in sorted(found, key=lambda piece: piece[1:]):
            assert start == covered[path], (seed, path)
            covered[path] = end
        assert covered == {file.path: file.size for file in files}, seed
        if ordered:
            in_order = [piece[1:] for piece in found]
            assert in_order == sorted(in_order), seed
        for group in groups:
            sizes = [unit.split.bytes for unit in group.units]
            assert sum(sizes) <= SPLIT or len(group.units) == 1, seed


def test_what_is_read_is_where_its_task_prefers_to_be() -> None:
    files = [FileInfo(f"/in/{n:03}.json", 40 << 20, "1") for n in range(8)]
    files += [FileInfo(f"/in/s{n:04}.json", 10_240, "1") for n in range(3000)]

    def places(file: FileInfo) -> list[Place]:
        first = sum(file.path.encode()) % len(HOSTS)
        return [
            (start, min(start + CHUNK, file.size), (HOSTS[(first + at) % len(HOSTS)],))
            for at, start in enumerate(range(0, file.size, CHUNK))
        ]

    groups = by_host(files, places, SPLIT, whole=False, ordered=False)
    for group in groups:
        for unit in group.units:
            for span in unit.split.spans:
                where = [h for s, e, h in places(span.file) if s < span.end and e > span.start]
                assert set(where) == {group.hosts}
    assert len(groups) <= -(-sum(file.size for file in files) // SPLIT) + len(HOSTS)


def test_a_file_on_several_hosts_that_is_not_cut_goes_to_the_one_that_has_most() -> None:
    file = FileInfo("/in/a.parquet", 12 << 20, "1")
    where = [("a",), ("b",), ("b",)]
    places: list[Place] = [(n * CHUNK, (n + 1) * CHUNK, hosts) for n, hosts in enumerate(where)]
    (group,) = by_host([file], lambda _: places, SPLIT, whole=True, ordered=True)
    assert group.hosts == ("b", "a")
