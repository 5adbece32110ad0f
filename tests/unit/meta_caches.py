"""Bounded cache directories in tests: what is in one, and what the index says of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from superfs.core.attrs import unpack_attr
from superfs.core.cachedirs import CACHE_XATTR, USAGE_XATTR, CacheSettings, parse_words
from superfs.daemon.clock import ManualClock
from superfs.meta import records
from superfs.meta.fsck import check_store
from superfs.meta.keys import Table, pack_id, parse_dentry
from unit.meta_node import ROOT, TestClient, everybody_had_a_turn, make, ref, running, world

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from superfs.meta.node import MetaNode


async def mkdir(client: TestClient, name: bytes, within: dict[str, int] = ROOT) -> dict[str, int]:
    result = await client.good(mkdir={"dir": within, "name": name, "mode": 0o755})
    return ref(result.attr)


async def set_cache(
    client: TestClient, inode: dict[str, int], bytes_max: int, policy: str = "lru", ttl_s: int = 0
) -> None:
    value = CacheSettings(bytes_max, policy, ttl_s).pack()
    await client.good(setxattr={"inode": inode, "name": CACHE_XATTR, "value": value})
    await filed(client.node)


async def filed(node: MetaNode) -> None:
    """Every directory has been walked, and what was left is done."""
    while True:
        await everybody_had_a_turn()
        with node.environment.reading() as rows:
            if not rows.state.counts[Table.CACHEWALK]:
                return


async def put(
    client: TestClient,
    inode: dict[str, int],
    name: bytes,
    size: int,
    **more: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """A file of so many bytes."""
    return (await client.create(name, dir=inode, inline=b"x" * size, **more)).attr


async def use(client: TestClient, attr: Any, at_ns: int) -> None:  # noqa: ANN401
    """As a mount tells that it was read."""
    body = {
        "place": attr.place,
        "inos": attr.ino.to_bytes(8, "little"),
        "generations": attr.generation.to_bytes(4, "little"),
        "atimes": at_ns.to_bytes(8, "little"),
    }
    await client.good(touch=body)


def cache_of(node: MetaNode, inode: dict[str, int]) -> records.Cache | None:
    with node.environment.reading() as rows:
        record = rows.get(Table.CACHE, pack_id(inode["ino"]))
    return None if record is None else records.unpack_cache(record)


async def usage(client: TestClient, inode: dict[str, int]) -> dict[str, int]:
    result = await client.good(getxattr={"inode": inode, "name": USAGE_XATTR})
    return {name: int(text) for name, text in parse_words(result.data).items()}


def names(node: MetaNode, inode: dict[str, int]) -> list[bytes]:
    prefix = pack_id(inode["ino"])
    with node.environment.reading() as rows:
        return [parse_dentry(key)[1] for key, _ in rows.scan(Table.DENTRY, prefix, prefix)]


def sizes(node: MetaNode) -> int:
    """Of all files there are, by a scan."""
    with node.environment.reading() as rows:
        return sum(unpack_attr(r).size for _, r in rows.scan(Table.INODE, b""))


def sound(node: MetaNode) -> None:
    with node.environment.reading() as rows:
        assert list(check_store(rows)) == []


def with_node(
    directory: Path, run: Callable[[MetaNode, TestClient, ManualClock], Awaitable[None]]
) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with running(make(directory), given=world(clock)) as node:
            client = TestClient(node)
            await client.hello()
            await run(node, client, clock)
            await filed(node)

    asyncio.run(main())


async def code(client: TestClient, **verb: Any) -> int:  # noqa: ANN401
    return int((await client.do(**verb)).code)
