"""Bounded cache directories that a client holds exclusively: counted when its log comes, and taken
back when the cache needs the room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.meta.keys import Table
from unit.meta_caches import cache_of, filed, names, set_cache, sound
from unit.meta_exclusive import (
    ExclusiveClient,
    files,
    log,
    mkdir,
    plain,
    until,
    with_directory,
)
from unit.meta_node import everybody_had_a_turn, ref

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.meta.node import MetaNode
    from superfs.v1 import meta_pb2

KIB = 1024


async def ship(client: ExclusiveClient, directory: int, count: int, start: int = 0) -> None:
    made = [
        (b"f%02d" % n, client.file(directory, KIB), b"x" * KIB) for n in range(start, start + count)
    ]
    assert not (await client.good(log=log(files(directory, made)))).code


def test_files_of_a_log_count_and_room_is_made_when_the_holder_lets_go(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: Any) -> None:  # noqa: ANN401
        directory = ref(made)
        await set_cache(client, directory, 10 * KIB)
        assert made.ino in client.mine
        client.acks = False
        await ship(client, made.ino, 4)
        cache = cache_of(node, directory)
        assert cache is not None
        assert cache.bytes == 4 * KIB
        assert not client.recalled()
        # More than fits: nothing goes under its hands, it is asked for the directory.
        await ship(client, made.ino, 12, 4)
        await until(lambda: client.recalled() == {made.ino})
        assert len(names(node, directory)) == 16
        await ship(client, made.ino, 2, 16)  # what it had done by then
        client.lets_go()
        await until(lambda: made.ino not in client.mine)
        await until(lambda: len(names(node, directory)) == 10)
        await everybody_had_a_turn()
        sound(node)
        # Nobody changes anything by himself in one that is full.
        await client.create(b"by asking", dir=directory, inline=b"x")
        assert made.ino not in client.mine
        below = {"dir": directory, "name": b"below", "mode": 0o755}
        reply = await client.ask(client.op(mkdir=below))
        assert not reply.exclusive
        assert reply.results[0].attr.ino not in client.mine

    with_directory(tmp_path, body)


def test_directories_of_a_log_belong_to_the_cache(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: Any) -> None:  # noqa: ANN401
        directory = ref(made)
        await set_cache(client, directory, 1 << 30)
        entry = mkdir(made.ino, b"s", client.generations[0])
        file = client.file(entry.ino, KIB)
        group = files(entry.ino, [(b"f", file, b"x" * KIB)], client.generations[0])
        attr = (await client.good(getattr={"inode": directory})).attr
        now = plain(attr, nlink=3, size=1)
        assert not (await client.good(log=log(entry, group, attrs=[now]))).code
        await filed(node)
        cache = cache_of(node, directory)
        assert cache is not None
        assert (cache.bytes, cache.files) == (KIB, 1)
        with node.environment.reading() as rows:
            assert rows.state.counts[Table.CACHED] == 2

    with_directory(tmp_path, body)


def test_nothing_goes_from_a_directory_whose_maker_has_more_to_ship(tmp_path: Path) -> None:
    """It is not granted, for its cache needs the room; but its maker does not know that yet."""

    async def body(node: MetaNode, client: ExclusiveClient, made: Any) -> None:  # noqa: ANN401
        directory = ref(made)
        await set_cache(client, directory, 10 * KIB)
        client.acks = False
        await ship(client, made.ino, 6)
        await until(lambda: client.recalled() == {made.ino})
        entry = mkdir(made.ino, b"s", client.generations[0])

        def more(start: int) -> meta_pb2.LogEntry:
            rows = [(b"%02d" % n, client.file(entry.ino, KIB), b"x" * KIB) for n in range(8)]
            named = [(b"%d%s" % (start, name), attr, data) for name, attr, data in rows]
            return files(entry.ino, named, client.generations[0])

        attr = (await client.good(getattr={"inode": directory})).attr
        above = plain(attr, nlink=3, size=7)
        reply = await client.ask(client.op(log=log(entry, more(0), attrs=[above])))
        assert not reply.results[0].code
        assert entry.ino not in reply.exclusive
        await everybody_had_a_turn()
        below = {"ino": entry.ino, "generation": 0, "place": entry.ino}
        attr = (await client.good(getattr={"inode": below})).attr
        assert attr.size == 8
        result = await client.do(log=log(more(1), attrs=[plain(attr, size=16)]))
        assert not result.code, result.detail
        client.lets_go()
        await until(lambda: not client.mine & {made.ino, entry.ino})
        await until(lambda: len(names(node, directory)) - 1 + len(names(node, below)) == 10)
        await everybody_had_a_turn()
        sound(node)

    with_directory(tmp_path, body)


def test_a_log_that_is_refused_leaves_nothing_in_the_index(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: Any) -> None:  # noqa: ANN401
        directory = ref(made)
        await set_cache(client, directory, 1 << 30)
        good = (b"f", client.file(made.ino, KIB), b"x" * KIB)
        bad = (b"g", client.file(made.ino, KIB, nlink=2), b"x" * KIB)
        body = log(files(made.ino, [good]), files(made.ino, [bad]))
        assert (await client.do(log=body)).code
        cache = cache_of(node, directory)
        assert cache is not None
        assert cache.files == 0
        await everybody_had_a_turn()
        sound(node)

    with_directory(tmp_path, body)
