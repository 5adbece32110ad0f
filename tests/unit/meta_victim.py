"""Runs operations on a metadata node until it is killed at a failpoint; every answer goes to
standard output before the next operation is sent.

    python meta_victim.py STATE_DIR FAILPOINTS
"""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from superfs.core.attrs import Set
from unit.meta_node import ROOT, FakeDataDaemons, TestClient, config, ref, running, world

ROUNDS = 12


async def workload(client: TestClient, say: Any) -> None:  # noqa: ANN401
    """Always the same operations, with the same sequence numbers: running it again after a kill
    repeats what was answered, and goes on. `say` gets every result."""

    async def do(**verb: Any) -> Any:  # noqa: ANN401
        result = await client.good(**verb)
        say(result)
        return result

    for i in range(ROUNDS):
        entry = {"dir": ROOT, "name": b"f%d" % i}
        made = await do(create={**entry, "mode": 0o100644, "exclusive": True, "inline": b"x" * i})
        attr = made.attr
        await do(mkdir={"dir": ROOT, "name": b"d%d" % i, "mode": 0o755})
        fresh = await do(new_data={"inode": ref(attr)})
        await do(
            publish={
                "inode": ref(attr),
                "data_generation": fresh.number,
                "size": 1000,
                "spill": True,
                "inline_change": fresh.attr.change,
            }
        )
        await do(append={"inode": ref(attr), "length": 500})
        await do(setattr={"inode": ref(attr), "mask": int(Set.SIZE), "size": 700})
        await do(
            rename={
                "old_dir": ROOT,
                "old_name": b"f%d" % i,
                "new_dir": ROOT,
                "new_name": b"g%d" % (i % 4),
            }
        )
        if i % 2:
            await do(rmdir={"dir": ROOT, "name": b"d%d" % i})
            await do(unlink={"dir": ROOT, "name": b"g%d" % (i % 4)})


async def main(state_dir: Path, failpoints: str) -> None:
    made = config(state_dir)
    given = world()
    given.failpoints.arm(failpoints)
    async with running(made, FakeDataDaemons(), given) as node:
        client = TestClient(node)
        await client.hello()

        def say(result: Any) -> None:  # noqa: ANN401
            print(base64.b64encode(result.SerializeToString()).decode(), flush=True)

        await workload(client, say)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
