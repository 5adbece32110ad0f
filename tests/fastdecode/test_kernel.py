"""The compiled kernel and the one in torch against attention written out plainly, and what a cache
keeps and refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superfs.core.errors import Code, FsError
from superfs.kvcache.fastdecode import kernel as kernels
from superfs.kvcache.fastdecode.cache import Cache
from superfs.kvcache.fastdecode.form import PAGE_TOKENS, STORAGES, WIRES, Form
from superfs.kvcache.fastdecode.kernel import kernel_of
from superfs.kvcache.fastdecode.torchkernel import TorchKernel

if TYPE_CHECKING:
    from pathlib import Path

CLOSE = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 3e-3}
"""Of the wire's type; storage of another is rounded before it is compared."""


def form_of(
    storage: str = "float32", wire: str = "float32", heads: int = 4, kv_heads: int = 2,
    dim: int = 16, layers: int = 2,
) -> Form:  # fmt: skip
    return Form(layers, heads, kv_heads, dim, dim**-0.5, wire, storage)


def kept(rows: torch.Tensor, storage: str) -> torch.Tensor:
    """[..., dim] as it comes back from where it is kept."""
    if storage != "int8":
        return rows.to(getattr(torch, storage)).float()
    most = rows.abs().amax(-1, keepdim=True)
    return (rows * (127 / most)).round() * (most / 127)


class Plain:
    """A cache of lists, and softmax(q k) v of each head alone."""

    def __init__(self, form: Form, cache: Cache, seed: int) -> None:
        self.form, self.cache = form, cache
        self.wire = getattr(torch, form.wire)
        self._random = torch.Generator().manual_seed(seed)
        self.keys: dict[tuple[int, int], torch.Tensor] = {}
        self.values: dict[tuple[int, int], torch.Tensor] = {}

    def rows(self, count: int, heads: int) -> torch.Tensor:
        found = torch.randn(count, heads, self.form.head_dim, generator=self._random) * 2
        return found.to(self.wire)

    def _keep(self, slot: int, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        for kept_rows, rows in ((self.keys, k), (self.values, v)):
            new = kept(rows.float(), self.form.storage)
            before = kept_rows.get((slot, layer), new[:0])
            kept_rows[slot, layer] = torch.cat((before, new))

    def fill(self, slot: int, count: int) -> None:
        first = self.cache.tokens(slot)
        for layer in range(self.form.layers):
            k, v = (self.rows(count, self.form.kv_heads) for _ in range(2))
            self.cache.fill(slot, layer, first, count, memory(k), memory(v))
            self._keep(slot, layer, k, v)

    def free(self, slot: int) -> None:
        self.cache.free([slot])
        for kept_rows in (self.keys, self.values):
            for layer in range(self.form.layers):
                kept_rows.pop((slot, layer), None)

    def step(self, slots: list[int]) -> None:
        rows, refused = self.cache.step(np.array(slots, np.int32))
        assert not refused
        for layer in range(self.form.layers):
            q = self.rows(len(slots), self.form.heads)
            k, v = (self.rows(len(slots), self.form.kv_heads) for _ in range(2))
            o = torch.full_like(q, float("nan"))
            self.cache.attend(rows, layer, memory(q), memory(k), memory(v), memory(o))
            for row, slot in enumerate(slots):
                self._keep(slot, layer, k[row : row + 1], v[row : row + 1])
                expected = self.attend(slot, layer, q[row].float())
                # A quotient that is all but a half may be rounded either way.
                close = 0.05 if self.form.storage == "int8" else CLOSE[self.form.wire]
                torch.testing.assert_close(o[row].float(), expected, rtol=close, atol=close)

    def attend(self, slot: int, layer: int, q: torch.Tensor) -> torch.Tensor:
        group = self.form.heads // self.form.kv_heads
        out = []
        for head in range(self.form.heads):
            k = self.keys[slot, layer][:, head // group]
            v = self.values[slot, layer][:, head // group]
            out.append(torch.softmax(k @ q[head] * self.form.scale, 0) @ v)
        return torch.stack(out)


def memory(rows: torch.Tensor) -> Any:  # noqa: ANN401
    return rows.view(len(rows), -1).view(torch.uint8).numpy()


def both(form: Form) -> list[Any]:
    compiled = kernel_of(form)
    assert compiled.name == "compiled", "there is a compiler where the tests run"
    return [compiled, TorchKernel(form)]


@pytest.mark.parametrize("which", [0, 1], ids=["compiled", "torch"])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 2, 64), (7, 1, 80), (3, 3, 16)])
def test_types_and_shapes(
    which: int, storage: str, wire: str, heads: int, kv_heads: int, dim: int
) -> None:
    form = form_of(storage, wire, heads, kv_heads, dim)
    cache = Cache(form, 12 * form.page_bytes_total, 4, 100, kernel=both(form)[which], threads=2)
    plain = Plain(form, cache, seed=1)
    for slot, count in enumerate((1, 31, 32, 65)):
        plain.fill(slot, count)
    for _ in range(3):
        plain.step([2, 0, 3, 1])
    cache.close()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_history(data: st.DataObject) -> None:
    """Sequences come, grow in any company, and go; others take their pages."""
    form = form_of(data.draw(st.sampled_from(list(STORAGES))), layers=1)
    threads = data.draw(st.integers(1, 3))
    kernel = data.draw(st.sampled_from(both(form)))
    pages = 10
    cache = Cache(form, pages * form.page_bytes_total, 4, 128, kernel=kernel, threads=threads)
    plain = Plain(form, cache, seed=data.draw(st.integers(0, 99)))
    for _ in range(data.draw(st.integers(1, 12))):
        slot = data.draw(st.integers(0, 3))
        used = [slot for slot in range(4) if cache.tokens(slot)]
        act = data.draw(st.sampled_from(["fill", "step", "free"]))
        room = cache.pages_free * PAGE_TOKENS
        if act == "free":
            plain.free(slot)
        elif act == "fill" and room and cache.tokens(slot) < 90:
            plain.fill(slot, data.draw(st.integers(1, min(room, 35))))
        elif used and cache.pages_free >= len(used) and max(map(cache.tokens, used)) < 128:
            plain.step(data.draw(st.permutations(used)))
    for slot in range(4):
        cache.free([slot])
    assert cache.pages_free == pages
    cache.close()


@pytest.mark.parametrize("wire", WIRES)
def test_int8_is_the_same_in_both(wire: str) -> None:
    """Also where what is kept is exactly between two numbers: byte for byte."""
    form = form_of("int8", wire, layers=1)
    generator = torch.Generator().manual_seed(7)
    table: Any = np.zeros(1, np.int32)
    for power in range(-20, 8):
        halves = torch.randint(-254, 255, (PAGE_TOKENS, form.kv_heads, 16), generator=generator)
        tokens = memory((halves * 0.5 * 2.0**power).to(getattr(torch, wire)))
        pools: list[Any] = [np.zeros((1, form.page_bytes), np.uint8) for _ in range(2)]
        for pool, one in zip(pools, both(form), strict=True):
            one.fill(pool, 0, table, 0, PAGE_TOKENS, tokens, tokens)
        assert (pools[0] == pools[1]).all()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("wire", WIRES)
def test_pages_are_the_same(storage: str, wire: str) -> None:
    """Byte for byte: of both kernels, token by token and together, from rows and from blocks."""
    form = form_of(storage, wire, layers=1)
    count, first = 45, 9
    pages = -(-(first + count) // PAGE_TOKENS)
    generator = torch.Generator().manual_seed(9)
    new = torch.randn(2, count, form.kv_heads, 16, generator=generator).to(getattr(torch, wire))
    k, v = (memory(one) for one in new)
    both_sides: Any = memory(new.transpose(1, 2).contiguous()).reshape(-1)
    table: Any = np.arange(pages, dtype=np.int32)[::-1].copy()
    found = []
    for one in both(form):
        pools: list[Any] = [np.zeros((1, pages * form.page_bytes), np.uint8) for _ in range(3)]
        one.fill(pools[0], 0, table, first, count, k, v)
        one.restore(pools[1], 0, table, first, count, both_sides)
        for at in range(count):
            one.fill(pools[2], 0, table, first + at, 1, k[at : at + 1], v[at : at + 1])
        found += pools
    assert all((pool == found[0]).all() for pool in found)
    assert found[0].any()


@pytest.mark.parametrize("which", [0, 1], ids=["compiled", "torch"])
def test_what_was_there_before_is_not_seen(which: int) -> None:
    """Pages come with what others left: here with what is no number."""
    for storage in ("float32", "bfloat16", "float16"):
        form = form_of(storage, storage, layers=1)
        cache = Cache(form, 4 * form.page_bytes_total, 2, 64, kernel=both(form)[which])
        cache._pool[:] = 0xFF
        plain = Plain(form, cache, seed=4)
        plain.fill(0, 1)
        plain.fill(1, 30)
        for _ in range(6):
            plain.step([0, 1])
        cache.close()


def test_blocks_are_restored_in_their_order() -> None:
    form = form_of("bfloat16", "bfloat16", layers=3)
    cache = Cache(form, 8 * form.page_bytes_total, 3, 96, threads=2)
    block: Any = np.zeros(form.layers * 2 * 8 * form.key_bytes, np.uint8)
    assert cache.restore(0, 0, 8, block, lambda: True)
    assert not cache.restore(0, 8, 8, block, lambda: False)
    assert cache.tokens(0) == 8
    for slot, first, count in ((0, 0, 8), (0, 9, 8), (3, 0, 8), (0, 8, 0), (0, 8, 89)):
        with pytest.raises(FsError):
            cache.restore(slot, first, count, block, lambda: True)
    assert cache.tokens(0) == 8
    cache.close()


def test_no_room() -> None:
    """What does not fit is refused, and changes nothing."""
    form = form_of(layers=1)
    cache = Cache(form, 3 * form.page_bytes_total, 3, 96)
    plain = Plain(form, cache, seed=3)
    plain.fill(0, 64)
    with pytest.raises(FsError) as refused:
        plain.fill(1, 33)
    assert refused.value.code is Code.NO_SPACE
    assert cache.pages_free == 1
    plain.fill(1, 20)
    rows, without = cache.step(np.array([1, 0], np.int32))
    assert without == [1]
    q, k, v = plain.rows(2, 4), plain.rows(2, 2), plain.rows(2, 2)
    o = torch.full_like(q, 7.0)
    cache.attend(rows, 0, memory(q), memory(k), memory(v), memory(o))
    assert not o[1].any()
    assert o[0].any()
    assert (cache.tokens(0), cache.tokens(1)) == (64, 21)
    with pytest.raises(FsError, match="available"):
        Cache(form, 1 << 60, 3, 96)
    with pytest.raises(FsError, match="one page"):
        Cache(form, 100, 3, 96)
    cache.close()


def test_what_a_peer_may_not_ask() -> None:
    form = form_of(layers=1)
    cache = Cache(form, 8 * form.page_bytes_total, 3, 96)
    rows = memory(torch.zeros(200, 2, 16))
    for slot, layer, first, count in ((3, 0, 0, 1), (0, 1, 0, 1), (0, 0, 5, 1), (0, 0, 0, 97)):
        with pytest.raises(FsError):
            cache.fill(slot, layer, first, count, rows, rows)
    for slots in ([3], [-1], [1, 1]):
        with pytest.raises(FsError):
            cache.step(np.array(slots, np.int32))
    for change in (
        {"dim": 20}, {"dim": 1024}, {"heads": 3}, {"storage": "int4"}, {"wire": "int8"},
        {"layers": 0},
    ):  # fmt: skip
        with pytest.raises(FsError):
            Cache(form_of(**change), 1 << 20, 3, 96)
    cache.close()


@pytest.mark.allow_log("several times slower")
def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "COMPILERS", ("no-such-compiler",))
    assert kernel_of(form_of(), tmp_path / "a").name == "torch"
    monkeypatch.undo()
    assert kernel_of(form_of(), tmp_path / "b").name == "compiled"
    assert len(list((tmp_path / "b").iterdir())) == 1
    monkeypatch.setattr(kernels, "COMPILERS", ("false",))
    assert kernel_of(form_of(), tmp_path / "c").name == "torch"
