"""Prompts of a KVCache pool in front of an S-worker: what is stored of them is not computed.

    chain = KeyChain(fingerprint(model), salt=b"tenant")
    with KVStore.open(cluster, "chat", chain) as store:
        with Engine(part, links, EngineConfig(), pool=Pool(store, part)) as engine:
            ...

An R-worker on the pool's host takes blocks from the data daemon's slab itself; what it cannot have
that way comes from the S-worker, which needs the prefix too, for what it computes behind it.

With `fingerprint` prompts are computed in chunks that start at multiples of `chunk_tokens`, each by
itself, and what is restored ends at such a multiple: so what comes out is the same to the last bit,
whatever was stored. Blocks that `kvcache.hf` has stored are restored too, from a store that was
opened with its fingerprint, and nothing is added to them: they were computed otherwise.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from superfs.core.errors import Code, FsError
from superfs.kvcache import hf
from superfs.kvcache.fastdecode.link import Blocks
from superfs.kvcache.prefill import bytes_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from superfs.core.kvcache.keys import Fingerprint
    from superfs.kvcache.fastdecode.link import Link
    from superfs.kvcache.fastdecode.smodel import SModel
    from superfs.kvcache.holding import Hold
    from superfs.kvcache.store import KVStore

log = logging.getLogger("superfs.fastdecode")

MAKER = "fastdecode"


def fingerprint(
    model: Any,  # noqa: ANN401
    *,
    block_tokens: int = 64,
    chunk_tokens: int = 512,
    weights: str = "",
) -> Fingerprint:
    """As `hf.fingerprint`, of what an S-worker computes. `chunk_tokens`: those of the engine."""
    made = hf.fingerprint(
        model, block_tokens=block_tokens, chunk_tokens=chunk_tokens, weights=weights
    )
    return replace(made, extra={**made.extra, "maker": MAKER})


class Pool:
    """One thread talks to the store: nothing waits for it but prompts that may be there."""

    def __init__(self, store: KVStore, part: SModel) -> None:
        """INVALID: the store was opened for another model. The store is not to be used by others
        until this is closed."""
        found = store.chain.model
        self.block_tokens = found.block_tokens
        self.chunk_tokens = int(str(found.extra.get("chunk_tokens", found.block_tokens)))
        self.stores = found.extra.get("maker") == MAKER
        expected = hf.fingerprint(
            part.model, block_tokens=found.block_tokens, chunk_tokens=self.chunk_tokens,
            weights=found.weights,
        )  # fmt: skip
        if self.stores:
            expected = replace(expected, extra={**expected.extra, "maker": MAKER})
        if found.canonical() != expected.canonical():
            raise FsError(Code.INVALID, "the pool was opened for another model")
        self._store = store
        self._part = part
        self._thread = ThreadPoolExecutor(1, "kvcache")
        self._storing: Future[None] | None = None
        self.stored_tokens = 0
        self.unstored_tokens = 0  # that came faster than the pool takes them, or behind such

    def close(self) -> None:
        """When what is being stored is."""
        self._thread.shutdown()

    def has_keys(self, tokens: Sequence[int]) -> bool:
        """Whether a prompt has a chunk that could be stored, or be there."""
        return len(tokens) >= self.chunk_tokens

    def ask(self, tokens: Sequence[int]) -> Future[Prefix]:
        """What there is of a prompt; one token at least is left to be computed. To be released."""
        return self._thread.submit(self._load, list(tokens))

    def keep(self, tokens: Sequence[int], first: int, room: torch.Tensor) -> bool:
        """Stores a chunk of a prompt, from token `first` on, behind everything else. False: the
        pool is still busy with the one before, and this one is not."""
        if self._storing is not None and not self._storing.done():
            self.unstored_tokens += self.chunk_tokens
            return False
        whole = list(tokens[: first + self.chunk_tokens])
        self._storing = self._thread.submit(self._put, whole, first, room)
        return True

    def room(self, tokens: int) -> torch.Tensor:
        """For so many tokens: [blocks, layers, 2, kv_heads, block_tokens, head_dim], on the CPU."""
        form = self._part.form
        shape = (form.layers, 2, form.kv_heads, self.block_tokens, form.head_dim)
        return torch.empty((tokens // self.block_tokens, *shape), dtype=self._part.model.dtype)

    # ---- in its thread

    def _load(self, tokens: list[int]) -> Prefix:
        """Whatever happens: what is not there is computed."""
        whole = (len(tokens) - 1) // self.chunk_tokens * self.chunk_tokens
        try:
            keys = self._store.chain.keys(tokens[:whole])
            hold = self._store.hold(keys) if keys else None
        except FsError as error:
            log.warning("the KVCache pool was not read: %s", error)
            hold = None
        if hold is None:
            return Prefix(self, self.room(0), 0, None)
        room, good = self.room(hold.blocks * self.block_tokens), [False]
        try:
            good = self._store.read(hold, [bytes_of(one) for one in room])
        except FsError as error:
            log.warning("the KVCache pool was not read: %s", error)
        right = good.index(False) if False in good else len(good)
        tokens_right = right * self.block_tokens // self.chunk_tokens * self.chunk_tokens
        if right < len(good) or not tokens_right:
            hold.release(good)
            return Prefix(self, room, tokens_right, None)
        return Prefix(self, room, tokens_right, Held(hold, right))

    def release(self, held: Held) -> None:
        """In its thread, or when there is none any more."""
        try:
            self._thread.submit(held.release)
        except RuntimeError:
            held.release()

    def _put(self, tokens: list[int], first: int, room: torch.Tensor) -> None:
        keys = self._store.chain.keys(tokens)
        start = first // self.block_tokens
        try:
            done = self._store.put(keys, [bytes_of(one) for one in room], first=start)
        except FsError as error:
            log.warning("the KVCache pool was not written: %s", error)
            return
        self.stored_tokens += max(0, done - start) * self.block_tokens


class Held:
    """Where the first blocks of a hold lie, as far as that is on this host."""

    def __init__(self, hold: Hold, blocks: int) -> None:
        """In the thread of the store, which may close its slab at any time."""
        self._hold = hold
        self.parts: list[tuple[int, int, list[int], list[int]]] = []
        for home, places in hold.leased:
            count = min(blocks, len(places.lengths))
            descriptor = home.slab.reader() if home.slab is not None and count else -1
            if home.slab is None or descriptor < 0:
                break
            where = list(places.offsets[:count]), list(places.checksums[:count])
            self.parts.append((descriptor, home.slab.id, *where))
            blocks -= count

    def release(self) -> None:
        while self.parts:
            os.close(self.parts.pop()[0])
        self._hold.release()


class Prefix:
    """The beginning of a prompt, as the pool has it: in the S-worker's memory, and held where it
    lies until it is released."""

    def __init__(self, pool: Pool, room: torch.Tensor, tokens: int, held: Held | None) -> None:
        self._pool = pool
        self._room = room
        self._held = held
        self.tokens = tokens

    def layer(self, number: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """k and v from token `first` on, [tokens, kv_heads, head_dim]."""
        blocks = self._room[: self.tokens // self._pool.block_tokens, number]
        k, v = (blocks[:, side].transpose(1, 2).flatten(0, 1)[first:] for side in (0, 1))
        return k, v

    def restore(self, link: Link, slot: int) -> None:
        """To an R-worker: from the slab, as far as it can have it from there. NO_SPACE."""
        first, size = 0, self._pool.block_tokens
        for descriptor, slab_id, offsets, checksums in self._held.parts if self._held else ():
            count = min(len(offsets), (self.tokens - first) // size)
            if not count:
                break
            blocks = Blocks(descriptor, slab_id, size, offsets[:count], checksums[:count])
            done = link.restore(slot, first, blocks)
            first += done * size
            if done < count:
                break
        if first < self.tokens:
            for layer in range(self._room.shape[1]):
                link.fill(slot, layer, first, *self.layer(layer, first))

    def release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._pool.release(held)


class Chunks:
    """Of one prompt: chunks that were computed, on their way to the pool."""

    def __init__(self, pool: Pool, tokens: Sequence[int]) -> None:
        self._pool = pool
        self._tokens = tokens
        self._room: torch.Tensor | None = None
        self._gap = False  # one is missing, and with it what is behind it

    def add(self, layer: int, first: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Of one chunk; layers come in their order."""
        pool = self._pool
        if not pool.stores or len(k) != pool.chunk_tokens:
            return
        if self._gap:
            pool.unstored_tokens += len(k) if layer == 0 else 0
            return
        if self._room is None:
            self._room = pool.room(len(k))
        for side, new in enumerate((k, v)):
            blocks = new.unflatten(0, (-1, pool.block_tokens)).transpose(1, 2)
            self._room[:, layer, side].copy_(blocks)
        if layer + 1 == self._room.shape[1]:
            self._gap = not pool.keep(self._tokens, first, self._room)
            self._room = None
