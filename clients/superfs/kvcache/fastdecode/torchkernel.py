"""The attention kernel in torch, for machines without a C compiler: one sequence after the other,
its pages gathered and attended in float32."""

from __future__ import annotations

from itertools import count as count_from
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from superfs.kvcache.fastdecode.form import PAGE_TOKENS, STORAGES, Form, Indices, Memory

if TYPE_CHECKING:
    from superfs.kvcache.fastdecode.kernel import Rows

INT8_MAX = 127.0


class TorchKernel:
    name = "torch"

    def __init__(self, form: Form) -> None:
        self._form = form
        self._wire = getattr(torch, form.wire)
        self._storage = getattr(torch, form.storage)
        self._side_bytes = form.head_dim * PAGE_TOKENS * STORAGES[form.storage]
        self._together = 2 if form.storage == "bfloat16" else 1

    def turns(self) -> Any:  # noqa: ANN401
        return count_from()

    def rows(
        self, pool: Memory, layer: int, tables: Indices, rows: Rows,
        q: Memory, k: Memory, v: Memory, o: Memory, turns: Any,  # noqa: ANN401
    ) -> None:  # fmt: skip
        form = self._form
        queries, out = self._heads(q, form.heads), self._heads(o, form.heads)
        while (row := next(turns)) < len(rows.slots):
            length = int(rows.lengths[row])
            if not length:
                out[row] = 0
                continue
            table = tables[rows.slots[row]]
            self.fill(pool, layer, table, length - 1, 1, k[row : row + 1], v[row : row + 1])
            keys, values = self._gather(pool, layer, table, length)
            # [kv_heads, group, dim], [kv_heads, dim, tokens], [kv_heads, tokens, dim]
            mine = queries[row].float().unflatten(0, (form.kv_heads, -1)) * form.scale
            weights = torch.softmax(mine @ keys, dim=-1)
            out[row] = (weights @ values).flatten(0, 1).to(self._wire)

    def fill(
        self, pool: Memory, layer: int, table: Indices, first: int,
        count: int, k: Memory, v: Memory,
    ) -> None:  # fmt: skip
        form = self._form
        pages = torch.from_numpy(pool[layer]).view(-1, form.kv_heads, form.head_bytes)
        at = torch.arange(first, first + count)
        page = torch.from_numpy(table)[at // PAGE_TOKENS].long()
        place = at % PAGE_TOKENS
        for side, rows in enumerate((k, v)):
            new = self._heads(rows, form.kv_heads)[:count].float()
            if form.storage == "int8":
                most = new.abs().amax(-1)
                scales = pages[..., 2 * self._side_bytes :].view(torch.float32)
                scales[page, :, side * PAGE_TOKENS + place] = most / INT8_MAX
                # INT8_MAX / most would be a reciprocal, rounded, times INT8_MAX, rounded again.
                inverse = torch.full_like(most, INT8_MAX).div(most)
                new = new * torch.where(most > 0, inverse, most).unsqueeze(-1)
                new = new.round()
            part = pages[..., side * self._side_bytes : (side + 1) * self._side_bytes]
            self._store(part.view(self._storage), page, place, new.to(self._storage), side)

    def _store(
        self, kept: torch.Tensor, page: torch.Tensor, place: torch.Tensor, new: torch.Tensor,
        side: int,
    ) -> None:  # fmt: skip
        """`kept`: one side of all pages, flat. `new`: [tokens, kv_heads, dim]."""
        dim, two = self._form.head_dim, self._together
        if side:
            stored = kept.unflatten(-1, (PAGE_TOKENS // two, dim, two))
            if two > 1:
                alone = place % two == 0
                stored[page[alone], :, place[alone] // two, :, 1] = 0
            stored[page, :, place // two, :, place % two] = new
        else:
            stored = kept.unflatten(-1, (dim // two, PAGE_TOKENS, two))
            stored[page, :, :, place] = new.unflatten(-1, (dim // two, two))

    def restore(
        self, pool: Memory, layer: int, table: Indices, first: int, count: int, both: Memory
    ) -> None:
        form = self._form
        sides: Memory = both.reshape(2, form.kv_heads, count, -1).transpose(0, 2, 1, 3)
        k, v = np.ascontiguousarray(sides).reshape(2, count, -1)
        self.fill(pool, layer, table, first, count, k, v)

    def _gather(
        self, pool: Memory, layer: int, table: Indices, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        form, side = self._form, self._side_bytes
        count = -(-length // PAGE_TOKENS)
        pages = torch.from_numpy(pool[layer]).view(-1, form.kv_heads, form.head_bytes)
        mine = pages[torch.from_numpy(table[:count]).long()]
        keys = mine[..., :side].contiguous().view(self._storage).float()
        values = mine[..., side : 2 * side].contiguous().view(self._storage).float()
        dim, two = form.head_dim, self._together
        keys = keys.view(count, form.kv_heads, dim // two, PAGE_TOKENS, two)
        keys = keys.transpose(-1, -2).reshape(count, form.kv_heads, dim, PAGE_TOKENS)
        values = values.view(count, form.kv_heads, PAGE_TOKENS // two, dim, two)
        values = values.transpose(-1, -2).reshape(count, form.kv_heads, PAGE_TOKENS, dim)
        if form.storage == "int8":
            scales = mine[..., 2 * side :].contiguous().view(torch.float32)
            scales = scales.view(count, form.kv_heads, 2, PAGE_TOKENS)
            keys = keys * scales[:, :, 0].unsqueeze(2)
            values = values * scales[:, :, 1].unsqueeze(3)
        keys = keys.permute(1, 2, 0, 3).flatten(2)[..., :length]
        values = values.transpose(0, 1).flatten(1, 2)[:, :length]
        return keys, values

    def _heads(self, rows: Memory, heads: int) -> torch.Tensor:
        """Rows of the wire's bytes as [rows, heads, dim]."""
        flat = torch.from_numpy(np.ascontiguousarray(rows) if not rows.flags.c_contiguous else rows)
        return flat.view(self._wire).unflatten(-1, (heads, self._form.head_dim))
