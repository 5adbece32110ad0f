"""Prompts through the S-part: several together, or a long one in chunks.

Keys and values of every layer leave for the R-worker as soon as they are there; those of a prompt
that goes on stay here too, for its next chunk. A prompt may begin with what a KVCache pool had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.kvcache.fastdecode.pool import Prefix
    from superfs.kvcache.fastdecode.smodel import SModel

    Ship = Callable[[int, int, int, torch.Tensor, torch.Tensor], None]
    """Which prompt, layer, first token, keys, values: [tokens, kv_heads, dim]."""


class Prefill:
    """Of prompts that fit in a chunk together, or of one that does not."""

    def __init__(
        self, part: SModel, prompts: Sequence[Sequence[int]], chunk_tokens: int,
        prefix: Prefix | None = None,
    ) -> None:  # fmt: skip
        """`prefix`: of the only prompt; it is in the R-worker already."""
        assert len(prompts) == 1 or sum(map(len, prompts)) <= chunk_tokens
        assert all(prompts)
        self._part = part
        self._prompts = prompts
        self._chunk = chunk_tokens
        self._prefix = prefix
        self._done = prefix.tokens if prefix is not None else 0
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def advance(self, ship: Ship) -> torch.Tensor | None:
        """One chunk. The logits of the prompts' last tokens, [prompts, vocabulary], when all is
        done."""
        whole = len(self._prompts[0])
        if len(self._prompts) == 1 and whole - self._done > self._chunk:
            self._compute(self._done, self._done + self._chunk, ship)
            self._done += self._chunk
            return None
        hidden, ends = self._compute(self._done, None, ship)
        return self._part.logits(hidden[ends])

    def _compute(self, first: int, end: int | None, ship: Ship) -> tuple[torch.Tensor, list[int]]:
        parts = [list(prompt[first:end]) for prompt in self._prompts]
        tokens = [token for part in parts for token in part]
        positions = [first + at for part in parts for at in range(len(part))]
        ends, total = [], 0
        for part in parts:
            total += len(part)
            ends.append(total - 1)
        rows = self._part.embed(tokens, positions)
        for layer in range(self._part.layers):
            q, k, v = self._part.before(layer, rows)
            o = torch.empty_like(q)
            start = 0
            for number, last in enumerate(ends):
                mine = slice(start, last + 1)
                ship(number, layer, first, k[mine], v[mine])
                o[mine] = self._attend(layer, q[mine], k[mine], v[mine], goes_on=end is not None)
                start = last + 1
            self._part.after(layer, rows, o)
        return rows.hidden, ends

    def _attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, goes_on: bool
    ) -> torch.Tensor:
        """Each token attends those before it and itself."""
        if self._done:
            before = self._before(layer)
            k, v = torch.cat((before[0], k)), torch.cat((before[1], v))
        if goes_on:
            if layer < len(self._kept):
                self._kept[layer] = (k, v)
            else:
                self._kept.append((k, v))
        past, new = len(k) - len(q), len(q)
        mask = None
        if past:
            mask = torch.ones(new, past + new, dtype=torch.bool, device=q.device).tril(past)
        o = scaled_dot_product_attention(
            q.transpose(0, 1).unsqueeze(0), k.transpose(0, 1).unsqueeze(0),
            v.transpose(0, 1).unsqueeze(0), attn_mask=mask, is_causal=mask is None,
            scale=self._part.form.scale, enable_gqa=True,
        )  # fmt: skip
        return o[0].transpose(0, 1)

    def _before(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        if layer < len(self._kept):
            return self._kept[layer]
        assert self._prefix is not None
        k, v = self._prefix.layer(layer)
        return k.to(self._part.device), v.to(self._part.device)
