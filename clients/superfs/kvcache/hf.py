"""Models of Hugging Face transformers in front of a KVCache pool.

    model_print = fingerprint(model, block_tokens=64)
    with KVStore.open(config, "chat", KeyChain(model_print, salt=b"tenant")) as store:
        filled = prefill_with_store(model, prompt_ids, store)
        filled.cache      # a DynamicCache of the whole prompt
        filled.logits     # of its last token

A prompt is computed in chunks that start at multiples of `chunk_tokens`, and what is restored ends
at such a multiple. So every chunk is computed behind the same bits, whoever has computed those, and
what comes out is the same to the last bit, whatever was stored. While a chunk is computed the one
before is stored. A store that fails costs computing.

    block   for each layer: keys, values; of each: for each head: for each token: head_dim numbers,
            all of the cache's type, in the byte order of the machine
"""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.keys import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from superfs.kvcache.admission import Admission
    from superfs.kvcache.store import KVStore

log = logging.getLogger("superfs.kvcache")

FORM = 1  # of a block's bytes
HASH_BYTES = 1 << 26
ROPE_FIXED = ("default", "linear", "llama3", "yarn")  # turn a key by its own place alone


@dataclass(frozen=True, slots=True)
class Prefill:
    cache: DynamicCache  # of the whole prompt
    logits: torch.Tensor  # [vocabulary], of the last token
    restored_tokens: int  # came from the store
    computed_tokens: int  # went through the model
    stored_tokens: int  # of the prompt, that are in the store now


def fingerprint(
    model: Any, *, block_tokens: int = 64, chunk_tokens: int = 0, weights: str = "",  # noqa: ANN401
) -> Fingerprint:  # fmt: skip
    """`chunk_tokens`: a multiple of `block_tokens`, as many by default. `weights`: what names them
    for ever; by default their hash, which takes reading all of them."""
    config = model.config.get_text_config()
    chunk_tokens = chunk_tokens or block_tokens
    if chunk_tokens % block_tokens:
        raise FsError(Code.INVALID, "chunk_tokens must be a multiple of block_tokens")
    heads = config.num_attention_heads
    rope = dict(getattr(config, "rope_parameters", None) or {})
    if rope.get("rope_type", "default") not in ROPE_FIXED:
        raise FsError(Code.NOT_SUPPORTED, f"keys depend on more than their prefix: {rope}")
    return Fingerprint(
        weights=weights or weights_hash(model),
        dtype=str(model.dtype).removeprefix("torch."),
        layers=config.num_hidden_layers,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        block_tokens=block_tokens,
        rope=rope,
        extra={
            "attention": str(config._attn_implementation),
            "byte_order": sys.byteorder,
            "chunk_tokens": chunk_tokens,
            "device": model.device.type,
            "form": FORM,
            "model_type": config.model_type,
        },
    )


def weights_hash(model: Any) -> str:  # noqa: ANN401
    """Of every parameter and buffer, by name."""
    found = blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().contiguous().view(-1)
        step = max(1, HASH_BYTES // max(1, flat.element_size()))
        for at in range(0, flat.numel(), step):
            found.update(_bytes(flat[at : at + step].cpu()))
    return f"blake2b-128:{found.hexdigest()}"


def prefill_with_store(
    model: Any, ids: torch.Tensor | Sequence[int], store: KVStore, *,  # noqa: ANN401
    admission: Admission | None = None,
) -> Prefill:  # fmt: skip
    """`ids` of one prompt; the store was opened with the chain of this model's fingerprint.
    `admission`: loads only what it says is sooner loaded than computed; None: what there is."""
    tokens = torch.as_tensor(ids).reshape(-1).tolist()
    if not tokens:
        raise FsError(Code.INVALID, "a prompt has at least one token")
    with torch.no_grad():
        return _Run(model, tokens, store, admission).run()


class _Run:
    """One prompt."""

    def __init__(
        self, model: Any, tokens: list[int], store: KVStore,  # noqa: ANN401
        admission: Admission | None,
    ) -> None:  # fmt: skip
        self.admission = admission
        self.model = model
        self.tokens = tokens
        self.store = store
        self.print = store.chain.model
        self.block = self.print.block_tokens
        self.chunk = int(str(self.print.extra.get("chunk_tokens", self.block)))
        self.dtype = getattr(torch, self.print.dtype)
        self.keys = store.chain.keys(tokens)
        self.cache = DynamicCache(config=model.config)
        self.stored = 0  # blocks
        _check(model, self.cache, self.print)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        p = self.print
        return (p.layers, 2, p.kv_heads, p.block_tokens, p.head_dim)

    def run(self) -> Prefill:
        restored = self._restore()
        start, waiting, logits = restored, None, None
        with ThreadPoolExecutor(1, "kvcache") as worker:
            while start < len(self.tokens):
                end = min(start + self.chunk, len(self.tokens))
                logits = self._compute(start, end)
                self._stored(waiting)
                waiting = None
                if end - start == self.chunk and self.stored == start // self.block:
                    waiting = worker.submit(self._put, self.stored, self._blocks(start, end))
                start = end
            self._stored(waiting)
        assert logits is not None
        return Prefill(
            self.cache, logits, restored, len(self.tokens) - restored, self.stored * self.block
        )

    def _compute(self, start: int, end: int) -> torch.Tensor:
        """Of a chunk: the logits of its last token."""
        began = self.admission.clock() if self.admission is not None else 0.0
        part = torch.tensor([self.tokens[start:end]], device=self.model.device)
        out = self.model(
            input_ids=part, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        logits: torch.Tensor = out.logits[0, -1]
        if self.admission is not None:
            if logits.device.type != "cpu":
                torch.accelerator.synchronize(logits.device)
            self.admission.computed(end - start, self.admission.clock() - began)
        return logits

    # ---- from the store

    def _restore(self) -> int:
        """How many tokens are in the cache then. One at least is left: somebody wants logits."""
        blocks = (len(self.tokens) - 1) // self.chunk * self.chunk // self.block
        if not blocks:
            return 0
        room = torch.empty((blocks, *self.shape), dtype=self.dtype)
        try:
            found = self._load([_bytes(one) for one in room])
        except FsError as error:
            log.warning("the KVCache pool was not read: %s", error)
            return 0
        found = found * self.block // self.chunk * self.chunk // self.block
        if found:
            # [blocks, layers, 2, heads, tokens, dim] -> of each layer [1, heads, tokens, dim]
            whole = room[:found].permute(1, 2, 3, 0, 4, 5)
            for layer in range(self.print.layers):
                keys, values = (
                    whole[layer, side].reshape(1, self.print.kv_heads, -1, self.print.head_dim)
                    for side in (0, 1)
                )
                device = self.model.device
                self.cache.update(keys.to(device), values.to(device), layer)
        self.stored = found
        return found * self.block

    def _load(self, buffers: list[memoryview]) -> int:
        """Blocks."""
        if self.admission is None:
            return self.store.get_into(self.keys[: len(buffers)], buffers)
        size, done, asked = len(buffers[0]), 0, 0
        while done == asked and done < len(buffers):
            left = (len(buffers) - done) * self.block
            asked += self.admission.step(left, self.chunk, size // self.block) // self.block
            if asked == done:
                break
            started = self.admission.clock()
            found = self.store.get_into(self.keys, buffers[done:asked], first=done)
            self.admission.loaded(found * size, self.admission.clock() - started)
            done += found
        return done

    # ---- to the store

    def _blocks(self, start: int, end: int) -> torch.Tensor:
        """What the cache has of these tokens: [blocks, layers, 2, heads, tokens, dim]."""
        count = (end - start) // self.block
        out = torch.empty((count, *self.shape), dtype=self.dtype)
        for number, layer in enumerate(self.cache.layers):
            for side, tensor in enumerate((layer.keys, layer.values)):
                part = tensor[0, :, start:end].unflatten(1, (count, self.block))
                out[:, number, side] = part.transpose(0, 1)
        return out

    def _put(self, first: int, blocks: torch.Tensor) -> int:
        """How many of the whole chain are stored then."""
        try:
            end = first + len(blocks)
            return self.store.put(self.keys[:end], [_bytes(one) for one in blocks], first=first)
        except FsError as error:
            log.warning("the KVCache pool was not written: %s", error)
            return first

    def _stored(self, waiting: Future[int] | None) -> None:
        if waiting is not None:
            self.stored = waiting.result()


def _check(model: Any, cache: DynamicCache, expected: Fingerprint) -> None:  # noqa: ANN401
    """NOT_SUPPORTED: what a layer keeps is not keys and values of every token."""
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        raise FsError(Code.NOT_SUPPORTED, "only full attention in every layer")
    if len({parameter.device for parameter in model.parameters()}) != 1:
        raise FsError(Code.NOT_SUPPORTED, "a model on several devices")
    if model.training:
        raise FsError(Code.INVALID, "the model is in training mode: call eval() first")
    found = fingerprint(
        model, block_tokens=expected.block_tokens, weights=expected.weights,
        chunk_tokens=int(str(expected.extra.get("chunk_tokens", expected.block_tokens))),
    )  # fmt: skip
    if found.canonical() != expected.canonical():
        raise FsError(Code.INVALID, "the store was opened for another model")


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU itself."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())
