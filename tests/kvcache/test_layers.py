"""Layers that come while others are computed: the same bits, whatever comes when, or does not."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.errors import Code, FsError
from superfs.kvcache import KeyChain

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from superfs.kvcache import hf  # noqa: E402 - it needs both

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.slow
BLOCK, LAYERS, WAIT_S = 8, 3, 20.0


def make_model(dtype: str = "float32") -> Any:  # noqa: ANN401
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=101, max_position_embeddings=512,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()


def prompt(count: int) -> list[int]:
    found: list[int] = torch.randint(
        101, (count,), generator=torch.Generator().manual_seed(3)
    ).tolist()
    return found


class Store:
    """Blocks in a dictionary. `before`: called before a part of all blocks is given."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self.chain = KeyChain(hf.fingerprint(model, block_tokens=BLOCK))
        self.blocks: dict[bytes, bytes] = {}
        self.before: Callable[[int], None] = lambda _: None
        self.wrong: dict[int, int] = {}  # block -> the part in which it is
        self.committed: list[int] = []
        self.pending = 0
        self.fails = False

    def get_parts(
        self, keys: Sequence[bytes], sizes: Sequence[int],
        room: Callable[[int], Sequence[Sequence[memoryview]]], arrived: Callable[[int, int], bool],
    ) -> int:  # fmt: skip
        if self.fails:
            raise FsError(Code.UNAVAILABLE)
        found = [self.blocks[key] for key in keys if key in self.blocks]
        at, rooms = 0, room(len(found))
        for part, size in enumerate(sizes):
            self.before(part)
            for n, buffer in enumerate(rooms[part]):
                buffer[:] = found[n][at : at + size]
                if self.wrong.get(n) == part:
                    buffer[7] ^= 1
            if not arrived(part, len(rooms[part])):
                return 0
            at += size
        return min(self.wrong, default=len(rooms[0]))

    def storing(self, keys: Sequence[bytes], count: int, size: int) -> Storing:
        self.pending += 1
        return Storing(self, keys, count, size)

    def behind(self, work: Future[Any], _: Callable[[], bool]) -> None:
        wait([work])


class Storing:
    def __init__(self, store: Store, keys: Sequence[bytes], count: int, size: int) -> None:
        self.store, self.keys, self.count, self.size = store, keys, count, size
        self.made = [b""] * count

    def write(self, number: int, data: memoryview) -> None:
        self.made[number] += bytes(data)

    def commit(self) -> int:
        assert all(len(one) == self.size for one in self.made)
        self.store.pending -= 1
        self.store.committed.append(len(self.keys))
        self.store.blocks |= dict(zip(self.keys[-self.count :], self.made, strict=True))
        return len(self.keys)

    def abort(self) -> None:
        self.store.pending -= 1


class Order:
    """Which layers of which chunks have been begun: (layer, chunk's number in the suffix)."""

    def __init__(self, model: Any, restored: int) -> None:  # noqa: ANN401
        self.begun: list[tuple[int, int]] = []
        self._changed = threading.Condition()
        for number, layer in enumerate(model.model.layers):
            layer.register_forward_pre_hook(self._hook(number, restored), with_kwargs=True)

    def _hook(self, layer: int, restored: int) -> Callable[..., None]:
        def note(_module: Any, _args: Any, kwargs: Any) -> None:  # noqa: ANN401
            chunk = (int(kwargs["position_ids"][0, 0]) - restored) // BLOCK
            with self._changed:
                self.begun.append((layer, chunk))
                self._changed.notify_all()

        return note

    def wait_for(self, layer: int, chunk: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: (layer, chunk) in self.begun, WAIT_S), self.begun


def equal(one: hf.Prefill, other: hf.Prefill) -> bool:
    return torch.equal(one.logits, other.logits) and all(
        torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)
        for a, b in zip(one.cache.layers, other.cache.layers, strict=True)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_computing_goes_on_while_the_next_layer_comes(dtype: str) -> None:
    model = make_model(dtype)
    store: Any = Store(model)
    hf.prefill_with_store(model, prompt(80), store)
    tokens = prompt(124)
    other: Any = Store(model)
    alone = hf.prefill_with_store(model, tokens, other)
    order = Order(model, 80)
    chunks = 6  # the last has 4 tokens

    def before(part: int) -> None:
        """A layer comes only when all chunks have gone as far as the one before lets them."""
        for chunk in range(chunks if part else 1):
            order.wait_for(part, chunk)

    store.before = before
    filled = hf.prefill_with_store(model, tokens, store)
    assert (filled.restored_tokens, filled.stored_tokens) == (80, 120)
    assert equal(filled, alone)
    assert order.begun.count((0, 0)) == 1
    assert len(order.begun) == LAYERS * chunks, "nothing is computed twice"
    assert (store.committed[-5:], store.pending) == ([11, 12, 13, 14, 15], 0)
    plain = transformers.DynamicCache(config=model.config).layers[0]
    assert {type(layer) for layer in filled.cache.layers} == {type(plain)}


def test_chunks_are_computed_with_the_processors_of_the_caller() -> None:
    """Torch gives a new thread what any thread has asked for last."""
    model = make_model()
    store: Any = Store(model)
    processors = torch.get_num_threads()
    found: list[tuple[str, int]] = []
    model.register_forward_pre_hook(
        lambda *_: found.append((threading.current_thread().name, torch.get_num_threads()))
    )
    try:
        torch.set_num_threads(2)
        hf.prefill_with_store(model, prompt(80), store)
        other = threading.Thread(target=torch.set_num_threads, args=(1,))
        other.start()
        other.join()
        order = Order(model, 80)
        store.before = lambda part: order.wait_for(part, 0 if part == 0 else 2)
        hf.prefill_with_store(model, prompt(124), store)
        assert "kvcache-chunk" in {name for name, _ in found}
        assert {count for _, count in found} == {2}
    finally:
        torch.set_num_threads(processors)


@pytest.mark.parametrize("part", range(LAYERS))
@pytest.mark.parametrize("block", [0, 4, 9])
def test_what_was_made_of_a_wrong_part_is_thrown_away(part: int, block: int) -> None:
    """And none of it is stored."""
    model = make_model()
    store: Any = Store(model)
    tokens = prompt(124)
    alone = hf.prefill_with_store(model, tokens, store)
    right = dict(store.blocks)
    keys = store.chain.keys(tokens)
    for key in keys[10:]:
        del store.blocks[key]
    store.wrong = {block: part}
    filled = hf.prefill_with_store(model, tokens, store)
    assert filled.restored_tokens == block * BLOCK
    assert equal(filled, alone)
    assert store.blocks == right
    assert store.pending == 0


@pytest.mark.allow_log("the KVCache pool was not")
def test_a_store_that_fails_costs_computing(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model()
    store: Any = Store(model)
    tokens = prompt(60)
    alone = hf.prefill_with_store(model, tokens, store)
    store.fails = True
    filled = hf.prefill_with_store(model, tokens, store)
    assert filled.restored_tokens == 0
    assert equal(filled, alone)
    assert "was not read" in caplog.text

    def broken(*_: object) -> None:
        raise FsError(Code.UNAVAILABLE)

    store.fails, store.storing = False, broken
    store.blocks.clear()
    filled = hf.prefill_with_store(model, tokens, store)
    assert (filled.restored_tokens, filled.stored_tokens) == (0, 0)
    assert equal(filled, alone)


def test_a_model_that_fails_leaves_no_thread() -> None:
    model = make_model()
    store: Any = Store(model)
    tokens = prompt(124)
    hf.prefill_with_store(model, tokens[:80], store)
    order = Order(model, 80)

    def fail(_module: Any, _args: Any, kwargs: Any) -> None:  # noqa: ANN401
        if int(kwargs["position_ids"][0, 0]) == 80 + 2 * BLOCK:
            raise RuntimeError("out of memory")

    model.model.layers[1].register_forward_pre_hook(fail, with_kwargs=True)
    store.before = lambda part: order.wait_for(part, 3) if part == 1 else None
    with pytest.raises(RuntimeError, match="out of memory"):
        hf.prefill_with_store(model, tokens, store)
    assert not [one for one in threading.enumerate() if one.name.startswith("kvcache")]
    assert store.pending == 0
