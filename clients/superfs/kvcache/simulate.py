"""What a pool would have kept of a trace: each request looks for its prefix, then stores the rest.

Two modes. `reference` is how the literature simulates: every block may be evicted, and a block
behind a gap counts as a block hit that is no prefix hit. `leaf-first` is what the pool does: no
parent goes before its child, so every hit is a prefix hit. Where nothing may be evicted for the
next block of a request, the rest of it is not stored.

Rates are sums over all requests: of blocks found as a prefix, of blocks found at all, and of the
tokens in the former (the last block of a prompt may hold fewer than 512), to all that was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.digests import DIGEST_BYTES
from superfs.core.kvcache.policy import make_policy
from superfs.core.kvcache.table import Block, BlockTable
from superfs.kvcache.trace import TRACE_BLOCK_TOKENS, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Mode = Literal["reference", "leaf-first"]
MODES: tuple[Mode, ...] = ("reference", "leaf-first")


@dataclass(slots=True)
class Rates:
    policy: str
    mode: str
    capacity_blocks: int
    requests: int = 0
    asked_blocks: int = 0
    asked_tokens: int = 0
    prefix_blocks: int = 0
    found_blocks: int = 0
    prefix_tokens: int = 0

    @property
    def prefix_hit_rate(self) -> float:
        return self.prefix_blocks / self.asked_blocks if self.asked_blocks else 0.0

    @property
    def block_hit_rate(self) -> float:
        return self.found_blocks / self.asked_blocks if self.asked_blocks else 0.0

    @property
    def token_hit_rate(self) -> float:
        return self.prefix_tokens / self.asked_tokens if self.asked_tokens else 0.0

    def count(self, request: Request, prefix: int, found: int) -> None:
        self.requests += 1
        self.asked_blocks += len(request.blocks)
        self.asked_tokens += request.tokens
        self.prefix_blocks += prefix
        self.found_blocks += found
        self.prefix_tokens += min(prefix * TRACE_BLOCK_TOKENS, request.tokens)

    def as_dict(self) -> dict[str, str | int | float]:
        return {
            "policy": self.policy,
            "mode": self.mode,
            "capacity_blocks": self.capacity_blocks,
            "requests": self.requests,
            "asked_blocks": self.asked_blocks,
            "prefix_hit_rate": self.prefix_hit_rate,
            "block_hit_rate": self.block_hit_rate,
            "token_hit_rate": self.token_hit_rate,
        }


class Simulator:
    def __init__(self, policy: str, capacity_blocks: int, mode: Mode = "leaf-first") -> None:
        if capacity_blocks < 1:
            raise FsError(Code.INVALID, "a capacity is at least one block")
        self.leaf_first = mode == "leaf-first"
        made = make_policy(policy, capacity_blocks)
        self.table = BlockTable(made, capacity_blocks, leaf_first=self.leaf_first)
        self.rates = Rates(policy, mode, capacity_blocks)

    def request(self, request: Request) -> None:
        keys = [number.to_bytes(DIGEST_BYTES, "little") for number in request.blocks]
        resident = self.table.blocks
        prefix = self.table.match(keys)
        found = prefix + sum(1 for key in keys[prefix:] if key in resident)
        self.rates.count(request, prefix, found)
        self._use(keys)

    def _use(self, keys: Sequence[bytes]) -> None:
        table = self.table
        parent: Block | None = None
        for depth, key in enumerate(keys):
            block = table.blocks.get(key)
            if block is not None:
                table.touch(block)
            else:
                if parent is not None:
                    table.pin(parent)
                for _ in table.make_room(1):
                    pass
                block = table.insert(key, parent, 1, depth=depth) if table.fits(1) else None
                if parent is not None:
                    table.unpin(parent)
                if block is None:
                    return
                table.unpin(block)
            parent = block if self.leaf_first else None


def simulate(
    trace: Sequence[Request],
    policy: str,
    capacity_blocks: int,
    mode: Mode = "leaf-first",
    advance: Callable[[int], None] | None = None,
) -> Rates:
    simulator = Simulator(policy, capacity_blocks, mode)
    for request in trace:
        simulator.request(request)
        if advance is not None:
            advance(1)
    return simulator.rates
