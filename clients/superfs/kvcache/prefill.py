"""One prompt through a model, with a store in front of it (superfs.kvcache.hf says what for).

What is stored of the prompt is loaded layer by layer, and each layer is used when it is there
(turns.py); what a layer computes is stored while the next one is computed. One thread talks to the
store, in order: so nothing is stored behind a prefix before all of that was compared.

A pass that was made on a prefix of which a block turns out to be wrong, or not to come, is thrown
away whole, and made again on what is right of it.
"""

from __future__ import annotations

import logging
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from superfs.core.errors import FsError
from superfs.core.limits import KV_KEYS_MAX
from superfs.kvcache.patience import Patience
from superfs.kvcache.turns import LostError, Turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers.cache_utils import Cache

    from superfs.kvcache.admission import Admission
    from superfs.kvcache.byparts import Storing
    from superfs.kvcache.store import KVStore

log = logging.getLogger("superfs.kvcache")


@dataclass(frozen=True, slots=True)
class Prefill:
    cache: DynamicCache  # of the whole prompt
    logits: torch.Tensor  # [vocabulary], of the last token
    restored_tokens: int  # came from the store
    computed_tokens: int  # went through the model
    _stored: Future[int]

    @property
    def stored_tokens(self) -> int:
        """Of the prompt, that are in the store when storing is over: waits for that."""
        return self._stored.result()


class Run:
    def __init__(
        self, model: Any, tokens: list[int], store: KVStore, cache: DynamicCache,  # noqa: ANN401
        admission: Admission | None,
    ) -> None:  # fmt: skip
        """`cache`: an empty one of the model's."""
        self.admission = admission
        self.model = model
        self.tokens = tokens
        self.store = store
        self.print = store.chain.model
        self.block = self.print.block_tokens
        self.chunk = int(str(self.print.extra.get("chunk_tokens", self.block)))
        self.dtype = getattr(torch, self.print.dtype)
        self.keys = store.chain.keys(tokens)
        self.cache = cache
        self.begun: DynamicCache | None = None  # with the first chunk in it, that was computed
        self.stored = 0  # blocks; of the thread that talks to the store
        self._thread = 0

    @property
    def part(self) -> tuple[int, int, int, int]:
        """Of a block, one layer."""
        p = self.print
        return (2, p.kv_heads, p.block_tokens, p.head_dim)

    def run(self) -> Prefill:
        """Storing may go on behind it: who asks the store for something else waits."""
        worker = ThreadPoolExecutor(1, "kvcache", self._begin)
        try:
            restored, logits = self._go(Pass(self, worker, self._wanted(), None))
        except BaseException:
            worker.shutdown()
            raise
        stored = worker.submit(lambda: self.stored * self.block)
        self.store.behind(stored, lambda: threading.get_ident() == self._thread)
        worker.shutdown(wait=False)
        return Prefill(self.cache, logits, restored, len(self.tokens) - restored, stored)

    def _begin(self) -> None:
        self._thread = threading.get_ident()

    def _go(self, first: Pass) -> tuple[int, torch.Tensor]:
        """Tokens that were restored, and the logits of the last one."""
        current = first
        while True:
            try:
                return current.restored, current.go()
            except LostError:
                log.info("what was loaded of a prompt is not all right: it is computed")
            finally:
                current.end()
            self.cache = DynamicCache(config=self.model.config)
            current = Pass(self, current.worker, current.right, current.room)

    def _wanted(self) -> int:
        """Blocks to be loaded, if they are stored. One token at least is left: somebody wants
        logits."""
        blocks = (len(self.tokens) - 1) // self.chunk * self.chunk // self.block
        if self.admission is None or not blocks:
            return blocks
        if not self.admission.knows_computing:
            self._learn()
        size = self.block_bytes // self.block
        return blocks if self.admission.step(blocks * self.block, self.chunk, size) else 0

    def _learn(self) -> None:
        """How long computing takes: of the first chunk, which need not be computed again if it is
        not loaded."""
        cache = DynamicCache(config=self.model.config)
        self.compute(0, self.chunk, cache, measured=True)
        self.begun = cache

    @property
    def block_bytes(self) -> int:
        return self.print.layers * self.part_bytes

    @property
    def part_bytes(self) -> int:
        return math.prod(self.part) * int(self.dtype.itemsize)

    def compute(self, start: int, end: int, cache: Cache, *, measured: bool) -> torch.Tensor:
        """Of a chunk: the logits of its last token. `measured`: it waits for nobody."""
        admission = self.admission if measured else None
        began = admission.clock() if admission is not None else 0.0
        part = torch.tensor([self.tokens[start:end]], device=self.model.device)
        out = self.model(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = out.logits[0, -1]
        if admission is not None:
            if logits.device.type != "cpu":
                torch.accelerator.synchronize(logits.device)
            admission.computed(end - start, admission.clock() - began)
        return logits


class Pass:
    """One way through the model, behind so many blocks: of the store, or of `room`."""

    def __init__(
        self, run: Run, worker: ThreadPoolExecutor, blocks: int, room: list[torch.Tensor] | None
    ) -> None:
        self.worker = worker
        self.room = room  # for each layer [blocks, 2, heads, tokens, dim]
        self.right = 0  # blocks of it
        self._run = run
        self._lost = False
        self._loading = None
        self._found = threading.Event()
        self._blocks = blocks
        self._patience: Patience | None = None
        self._storings: dict[int, Storing | None] = {}
        self._written, self._writing_s = 0, 0.0
        self._turns: Turns | None = None
        if room is None and blocks:
            self._blocks = 0
            if run.admission is not None:
                self._patience = Patience(run.admission, blocks * run.block, self._lose)
            self._loading = worker.submit(self._load, run.keys[:blocks])
            if self._patience is None:
                self._found.wait()
            else:
                self._patience.wait(self._found)
        elif room is not None:
            self.right = self._blocks = blocks * run.block // run.chunk * run.chunk // run.block
            worker.submit(self._is_stored, self._blocks)
        starts = list(range(self.restored, len(run.tokens), run.chunk))
        self._starts = starts
        self._first = 0  # chunk to be computed
        if not self._blocks and not self._lost and run.begun is not None:
            run.cache, run.begun, self._first = run.begun, None, 1
        self._turns = Turns(
            run.cache, starts, len(run.tokens), self._forward, self._prefix, self._seen
        )
        if self._lost:
            self._turns.lose()
        elif self._loading is None or not self._blocks:
            self._turns.arrive(run.print.layers)
        elif self._arrived:
            self._turns.arrive(self._arrived)

    _arrived = 0

    @property
    def restored(self) -> int:
        return self._blocks * self._run.block

    def go(self) -> torch.Tensor:
        """LostError: the pass is over."""
        assert self._turns is not None
        logits = None
        for number in range(self._first):
            self._turns.pass_by(number)
            for layer, one in enumerate(self._run.cache.layers):
                self._seen(number, layer, one.keys, one.values)
            self.worker.submit(self._commit, number)
        for number in range(self._first, len(self._starts)):
            logits = self._turns.run(number)
            if self._loading is not None and number == self._first:
                self._loading.result()
                if self._lost:
                    raise LostError
            self.worker.submit(self._commit, number)
        assert logits is not None
        return logits

    def end(self) -> None:
        """No thread of it is left, and nothing half stored."""
        assert self._turns is not None
        if self._patience is not None:
            self._patience.end()
        self._turns.end()
        self.worker.submit(self._abort)

    def _forward(self, number: int, cache: Cache) -> torch.Tensor:
        start = self._starts[number]
        end = min(start + self._run.chunk, len(self._run.tokens))
        assert self._turns is not None
        alone = self._turns.is_all_there
        return self._run.compute(start, end, cache, measured=alone)

    # ---- from the store, in its thread

    def _load(self, keys: Sequence[bytes]) -> None:
        run, patience = self._run, self._patience

        def room(found: int) -> list[list[memoryview]]:
            if self._lost:
                return []
            blocks = min(found, len(keys)) * run.block // run.chunk * run.chunk // run.block
            if patience is not None:
                patience.total, patience.tokens = blocks * run.block_bytes, blocks * run.block
            # By layers: such pieces come from the heap, where the pages of the last prompt are.
            sizes = (blocks, *run.part)
            self.room = [torch.empty(sizes, dtype=run.dtype) for _ in range(run.print.layers)]
            self._blocks = blocks
            self._found.set()
            return [[bytes_of(one) for one in layer] for layer in self.room]

        def arrived(layer: int, count: int) -> bool:
            if self._lost:
                return False
            if count == self._blocks:
                self._arrived = layer + 1
                if self._turns is not None:
                    self._turns.arrive(layer + 1)
            if patience is None:
                return True
            patience.done = (layer * self._blocks + count) * run.part_bytes
            return patience.goes_on()

        try:
            sizes = [run.part_bytes] * run.print.layers
            self.right = run.store.get_parts(keys, sizes, room, arrived)
            if patience is not None and run.admission is not None and self.right:
                run.admission.loaded(patience.total, patience.seconds)
        except FsError as error:
            log.warning("the KVCache pool was not read: %s", error)
        finally:
            run.stored = self.right
            if self.right < self._blocks:
                self._lose()
            self._found.set()

    def _lose(self) -> None:
        self._lost = True
        if self._turns is not None:
            self._turns.lose()

    def _is_stored(self, blocks: int) -> None:
        self._run.stored = blocks

    def _prefix(self, layer: int) -> torch.Tensor | None:
        """[blocks, 2, heads, tokens, dim]"""
        if self.room is None or not self._blocks:
            return None
        return self.room[layer][: self._blocks]

    # ---- to the store

    def _seen(self, number: int, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        if keys.shape[2] == self._run.chunk:
            self.worker.submit(self._store, number, layer, keys, values)

    def _store(self, number: int, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """In the thread of the store."""
        run = self._run
        if self._lost:
            return
        count = run.chunk // run.block
        try:
            if layer == 0:
                self._storings[number] = self._room_for(number, count)
            storing = self._storings.get(number)
            if storing is None:
                return
            part = torch.empty((count, *run.part), dtype=run.dtype)
            for side, tensor in enumerate((keys, values)):
                part[:, side] = tensor[0].unflatten(1, (count, run.block)).transpose(0, 1)
            for n in range(count):
                if not self._write(storing, n, bytes_of(part[n])):
                    storing.abort()
                    self._storings[number] = None
                    return
        except FsError as error:
            log.warning("the KVCache pool was not written: %s", error)
            self._storings[number] = None

    def _write(self, storing: Storing, number: int, data: memoryview) -> bool:
        """False: it takes longer than it is worth."""
        admission = self._run.admission
        if admission is None:
            storing.write(number, data)
            return True
        began = admission.clock()
        storing.write(number, data)
        self._written += len(data)
        self._writing_s += admission.clock() - began
        tokens = sum(1 for at in self._starts if at + self._run.chunk <= len(self._run.tokens))
        tokens *= self._run.chunk
        total = tokens // self._run.block * self._run.block_bytes
        return admission.stores_on(self._written, total, self._writing_s, tokens)

    def _room_for(self, number: int, count: int) -> Storing | None:
        """None: what is before it is neither stored nor on its way, or it is not worth it."""
        run = self._run
        if run.admission is not None and not run.admission.stores:
            return None
        first = self._starts[number] // run.block
        before = self._storings.get(number - 1)
        if count > KV_KEYS_MAX or (run.stored != first and before is None):
            return None
        return run.store.storing(run.keys[: first + count], count, run.block_bytes)

    def _abort(self) -> None:
        """What was begun and will not be committed."""
        while self._storings:
            _, storing = self._storings.popitem()
            if storing is not None:
                storing.abort()

    def _commit(self, number: int) -> None:
        storing = self._storings.pop(number, None)
        if storing is None:
            return
        first = self._starts[number] // self._run.block
        if self._lost or self._run.stored != first:
            storing.abort()
        else:
            self._run.stored = storing.commit()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU itself."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())
