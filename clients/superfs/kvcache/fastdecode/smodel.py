"""The S-part of a Llama-style model of Hugging Face transformers: everything with weights, in
pieces that end where attention begins.

Rows are tokens, of any sequences: [rows, hidden]. The model's own modules compute; only its
attention is elsewhere. It runs wherever the model is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from superfs.core.errors import Code, FsError
from superfs.kvcache.fastdecode.form import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

MODELS = ("llama", "mistral", "qwen2", "qwen3")
ROPE_FIXED = ("default", "linear", "llama3", "yarn")


class Rows:
    """The tokens of a mini-batch on their way through the layers."""

    __slots__ = ("cos", "hidden", "sin")

    def __init__(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
        self.hidden, self.cos, self.sin = hidden, cos, sin


class SModel:
    def __init__(self, model: Any, storage: str = "") -> None:  # noqa: ANN401
        """`storage`: the type in which R-workers keep keys and values; by default the model's.
        NOT_SUPPORTED: a model that does other things than these."""
        config = model.config.get_text_config()
        _check(model, config)
        self.model = model
        self.config = config
        self._layers = model.model.layers
        heads = config.num_attention_heads
        wire = str(model.dtype).removeprefix("torch.")
        self.form = Form(
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            scale=float(self._layers[0].self_attn.scaling),
            wire=wire,
            storage=storage or wire,
        )
        self.form.check()

    @property
    def layers(self) -> int:
        return len(self._layers)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def embed(self, tokens: Sequence[int], positions: Sequence[int]) -> Rows:
        ids = torch.tensor(tokens, device=self.device)
        at = torch.tensor(positions, device=self.device)
        hidden = self.model.model.embed_tokens(ids)
        cos, sin = self.model.model.rotary_emb(hidden, at.unsqueeze(0))
        return Rows(hidden, cos[0], sin[0])

    def before(self, layer: int, rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q [rows, heads, dim], k and v [rows, kv_heads, dim], turned by their places."""
        block = self._layers[layer]
        attention = block.self_attn
        hidden = block.input_layernorm(rows.hidden)
        shape = (len(hidden), -1, self.form.head_dim)
        q, k, v = (
            project(hidden).view(shape)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        q, k = apply_rotary_pos_emb(q, k, rows.cos, rows.sin)
        return q, k, v

    def after(self, layer: int, rows: Rows, o: torch.Tensor) -> None:
        """`o`: [rows, heads, dim]."""
        block = self._layers[layer]
        hidden = rows.hidden + block.self_attn.o_proj(o.to(self.device).flatten(1))
        rows.hidden = hidden + block.mlp(block.post_attention_layernorm(hidden))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, vocabulary], in float32 on the CPU."""
        found: torch.Tensor = self.model.lm_head(self.model.model.norm(hidden))
        return found.float().cpu()


def _check(model: Any, config: Any) -> None:  # noqa: ANN401
    if config.model_type not in MODELS:
        raise FsError(
            Code.NOT_SUPPORTED,
            f"a model of type {config.model_type}; there are {', '.join(MODELS)}",
        )
    if any(type(one) is not DynamicLayer for one in DynamicCache(config=config).layers):
        raise FsError(Code.NOT_SUPPORTED, "only full attention in every layer")
    rope = dict(getattr(config, "rope_parameters", None) or {})
    if rope.get("rope_type", "default") not in ROPE_FIXED:
        raise FsError(Code.NOT_SUPPORTED, f"keys depend on more than their prefix: {rope}")
    if len({parameter.device for parameter in model.parameters()}) != 1:
        raise FsError(Code.NOT_SUPPORTED, "a model on several devices")
    if model.training:
        raise FsError(Code.INVALID, "the model is in training mode: call eval() first")
