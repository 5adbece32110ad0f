"""Loading or computing: decisions by a clock that the store and the model advance."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import pytest

from superfs.daemon.clock import ManualClock
from superfs.kvcache import KeyChain
from superfs.kvcache.admission import STEP_BYTES, Admission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOKEN_S = 0.001
WAIT_S = 20.0
TURN = threading.Lock()
"""Of the clock: loading takes its time as if nothing were computed meanwhile."""


def test_nothing_is_known_without_a_probe() -> None:
    clock = ManualClock()
    admission = Admission(probe_s=30, clock=clock.monotonic)
    assert admission.step(1000, 64, 1024) == 64
    admission.loaded(64 * 1024, 0.001)
    assert admission.step(1000, 64, 1024) == 960, "computing was never measured"
    admission.computed(64, 64 * TOKEN_S)
    assert admission.step(1000, 64, 1024) == 960
    assert admission.step(63, 64, 1024) == 0
    assert admission.step(10_000_000, 64, 1024) == STEP_BYTES // 1024
    assert admission.step(1000, 64, 2 * STEP_BYTES) == 0, "at that size it is slower"
    admission.loaded(64 * 1024, 1.0)
    assert admission.step(1000, 64, 1024) == 0
    clock.advance(31)
    assert admission.step(1000, 64, 1024) == 64, "perhaps it is better now"
    admission.loaded(64 * 1024, 0.001)
    assert admission.step(1000, 64, 1024) == 960


def test_a_miss_is_no_measurement() -> None:
    admission = Admission()
    admission.loaded(0, 5.0)
    assert admission.step(1000, 64, 1024) == 64


class SlowStore:
    """Blocks in a dictionary; what is read takes its time."""

    def __init__(self, chain: KeyChain, clock: ManualClock, bytes_per_s: float) -> None:
        self.chain = chain
        self.clock = clock
        self.bytes_per_s = bytes_per_s
        self.writes_per_s = float("inf")
        self.blocks: dict[bytes, bytes] = {}
        self.read_bytes = 0

    def get_parts(
        self, keys: Sequence[bytes], sizes: Sequence[int],
        room: Callable[[int], Sequence[Sequence[memoryview]]], arrived: Callable[[int, int], bool],
    ) -> int:  # fmt: skip
        with TURN:
            return self._read(keys, sizes, room, arrived)

    def _read(
        self, keys: Sequence[bytes], sizes: Sequence[int],
        room: Callable[[int], Sequence[Sequence[memoryview]]], arrived: Callable[[int, int], bool],
    ) -> int:  # fmt: skip
        found = [self.blocks[key] for key in keys if key in self.blocks]
        at, rooms = 0, room(len(found))
        if not rooms:
            return 0
        for part, size in enumerate(sizes):
            for n, buffer in enumerate(rooms[part]):
                buffer[:] = found[n][at : at + size]
                self.clock.advance(size / self.bytes_per_s)
                self.read_bytes += size
                if not arrived(part, n + 1):
                    return 0
            at += size
        return len(rooms[0])

    def storing(self, keys: Sequence[bytes], count: int, size: int) -> SlowStoring:
        return SlowStoring(self, keys, count)

    def behind(self, work: Future[Any], _: Callable[[], bool]) -> None:
        wait([work])


class SlowStoring:
    def __init__(self, store: SlowStore, keys: Sequence[bytes], count: int) -> None:
        self.store, self.keys, self.count = store, keys, count
        self.made = [b""] * count

    def write(self, number: int, data: memoryview) -> None:
        self.made[number] += bytes(data)
        self.store.clock.advance(len(data) / self.store.writes_per_s)

    def abort(self) -> None:
        pass

    def commit(self) -> int:
        self.store.blocks |= dict(zip(self.keys[-self.count :], self.made, strict=True))
        return len(self.keys)


class StuckStore(SlowStore):
    """That gives nothing any more when so many parts of blocks have come, until it is let go."""

    def __init__(self, chain: KeyChain, clock: ManualClock) -> None:
        super().__init__(chain, clock, 1e15)
        self.gives = -1  # parts; -1: all
        self.let_go = threading.Event()

    def stop(self) -> None:
        """The clock goes on, the store does not."""
        self.clock.advance(1000)
        TURN.release()
        try:
            assert self.let_go.wait(WAIT_S), "somebody waits for the store"
        finally:
            TURN.acquire()

    def _read(
        self, keys: Sequence[bytes], sizes: Sequence[int],
        room: Callable[[int], Sequence[Sequence[memoryview]]], arrived: Callable[[int, int], bool],
    ) -> int:  # fmt: skip
        left = self.gives

        def counted(part: int, count: int) -> bool:
            nonlocal left
            left -= 1
            goes_on = arrived(part, count)
            if left == 0:
                self.stop()
            return goes_on

        if left == 0:
            self.stop()
        return super()._read(keys, sizes, room, counted)


def timed_model(clock: ManualClock) -> Any:  # noqa: ANN401
    """That takes `TOKEN_S` for each token."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    model: Any = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=101, max_position_embeddings=2048,
        )
    ).eval()  # fmt: skip

    def take(_model: Any, _args: Any, kwargs: Any) -> None:  # noqa: ANN401
        with TURN:
            clock.advance(TOKEN_S * kwargs["input_ids"].shape[1])

    model.register_forward_pre_hook(take, with_kwargs=True)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("bytes_per_s", [1e3, 1e6, 1e15])
def test_a_hit_never_hurts(bytes_per_s: float) -> None:
    """After the first one: 1.05 times the time of computing everything at most, and where loading
    pays everything is loaded. The logits are the same always."""
    clock = ManualClock()
    model = timed_model(clock)
    torch = pytest.importorskip("torch")
    from superfs.kvcache import hf

    chain = KeyChain(hf.fingerprint(model, block_tokens=8))
    token_bytes = 2 * 2 * 2 * 16 * 4
    store: Any = SlowStore(chain, clock, bytes_per_s)
    admission = Admission(clock=clock.monotonic)
    tokens = torch.randint(101, (163,), generator=torch.Generator().manual_seed(1)).tolist()
    first = hf.prefill_with_store(model, tokens, store, admission=admission)
    assert first.stored_tokens == 160
    for turn in range(3):
        started = clock.monotonic()
        filled = hf.prefill_with_store(model, tokens, store, admission=admission)
        took = clock.monotonic() - started
        assert torch.equal(filled.logits, first.logits)
        if token_bytes / bytes_per_s < TOKEN_S:
            assert filled.restored_tokens == 160
        elif turn:
            assert filled.restored_tokens == 0
        if turn or token_bytes / bytes_per_s < TOKEN_S:
            assert took <= 1.05 * 163 * TOKEN_S
    store.bytes_per_s = 1e15
    clock.advance(31)
    assert hf.prefill_with_store(model, tokens, store, admission=admission).restored_tokens == 160


@pytest.mark.slow
def test_what_is_not_worth_loading_is_not_worth_storing() -> None:
    """And is found out by storing: nothing was ever loaded."""
    clock = ManualClock()
    model = timed_model(clock)
    from superfs.kvcache import hf

    store: Any = SlowStore(KeyChain(hf.fingerprint(model, block_tokens=8)), clock, 1e3)
    store.writes_per_s = 1e3
    admission = Admission(clock=clock.monotonic)
    write_s, compute_s = 8 * 512 / 2 / 1e3, 163 * TOKEN_S
    tokens = list(range(100)) + list(range(63))
    started = clock.monotonic()
    first = hf.prefill_with_store(model, tokens, store, admission=admission)
    assert first.stored_tokens == 0
    assert clock.monotonic() - started <= 1.05 * compute_s + write_s + 8 * TOKEN_S
    for _ in range(2):
        started = clock.monotonic()
        assert hf.prefill_with_store(model, tokens, store, admission=admission).stored_tokens == 0
        assert clock.monotonic() - started == pytest.approx(compute_s), "nothing is tried"
    store.writes_per_s = store.bytes_per_s = 1e15
    clock.advance(31)
    assert hf.prefill_with_store(model, tokens, store, admission=admission).stored_tokens == 160
    assert hf.prefill_with_store(model, tokens, store, admission=admission).restored_tokens == 160


@pytest.mark.slow
@pytest.mark.parametrize("gives", [0, 1, 25])
def test_a_store_that_is_stuck_is_not_waited_for(gives: int) -> None:
    """Before it says what it has, and at any part of it. Nor is it asked the next time."""
    clock = ManualClock()
    model = timed_model(clock)
    torch = pytest.importorskip("torch")
    from superfs.kvcache import hf

    store: Any = StuckStore(KeyChain(hf.fingerprint(model, block_tokens=8)), clock)
    admission = Admission(clock=clock.monotonic)
    tokens = torch.randint(101, (163,), generator=torch.Generator().manual_seed(1)).tolist()
    alone = hf.prefill_with_store(model, tokens, store, admission=admission)
    store.gives = gives
    store.behind = lambda *_: None
    stuck = hf.prefill_with_store(model, tokens, store, admission=admission)
    assert torch.equal(stuck.logits, alone.logits)
    assert stuck.restored_tokens == 0
    again = hf.prefill_with_store(model, tokens, store, admission=admission)
    assert again.restored_tokens == 0
    store.let_go.set()
    assert again.stored_tokens == stuck.stored_tokens == 0
    clock.advance(31)
    store.gives = -1
    assert hf.prefill_with_store(model, tokens, store, admission=admission).restored_tokens == 160


@pytest.mark.slow
def test_what_was_computed_to_know_how_long_it_takes_is_used() -> None:
    """Nothing is computed twice, stored twice or left out, when nothing is there and when it comes
    too slowly."""
    clock = ManualClock()
    model = timed_model(clock)
    torch = pytest.importorskip("torch")
    from superfs.kvcache import hf

    computed: list[int] = []
    model.register_forward_pre_hook(
        lambda _m, _a, kw: computed.append(kw["input_ids"].shape[1]), with_kwargs=True
    )
    store: Any = SlowStore(KeyChain(hf.fingerprint(model, block_tokens=8)), clock, 1e15)
    tokens = torch.randint(101, (163,), generator=torch.Generator().manual_seed(1)).tolist()
    alone = hf.prefill_with_store(model, tokens, store)
    whole = dict(store.blocks)
    store.blocks.clear()
    computed.clear()
    filled = hf.prefill_with_store(model, tokens, store, admission=Admission(clock=clock.monotonic))
    assert (sum(computed), filled.stored_tokens) == (163, 160)
    assert torch.equal(filled.logits, alone.logits)
    assert store.blocks == whole
    store.bytes_per_s = 1e3
    filled = hf.prefill_with_store(model, tokens, store, admission=Admission(clock=clock.monotonic))
    assert torch.equal(filled.logits, alone.logits)
    for one, other in zip(filled.cache.layers, alone.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
