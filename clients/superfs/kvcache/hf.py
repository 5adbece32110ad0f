"""Models of Hugging Face transformers in front of a KVCache pool.

    model_print = fingerprint(model, block_tokens=64)
    with KVStore.open(config, "chat", KeyChain(model_print, salt=b"tenant")) as store:
        filled = prefill_with_store(model, prompt_ids, store)
        filled.cache      # a DynamicCache of the whole prompt
        filled.logits     # of its last token

A prompt is computed in chunks that start at multiples of `chunk_tokens`, and what is restored ends
at such a multiple. So every chunk is computed behind the same bits, whoever has computed those, and
what comes out is the same to the last bit, whatever was stored. Layers are loaded and stored while
others are computed (prefill.py). A store that fails costs computing.

    block   for each layer: keys, values; of each: for each head: for each token: head_dim numbers,
            all of the cache's type, in the byte order of the machine
"""

from __future__ import annotations

import sys
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.keys import Fingerprint
from superfs.kvcache.prefill import Prefill, Run, bytes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.kvcache.admission import Admission
    from superfs.kvcache.store import KVStore

FORM = 1  # of a block's bytes
HASH_BYTES = 1 << 26
__all__ = ["Prefill", "fingerprint", "prefill_with_store", "weights_hash"]

ROPE_FIXED = ("default", "linear", "llama3", "yarn")  # turn a key by its own place alone


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
            found.update(bytes_of(flat[at : at + step].cpu()))
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
        cache = DynamicCache(config=model.config)
        _check(model, cache, store.chain.model)
        return Run(model, tokens, store, cache, admission).run()


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
