"""The connector of vLLM step by step, with a stand-in for vLLM: what is loaded, stored, reported.
With vLLM itself: test_vllm.py."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.errors import FsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

torch = pytest.importorskip("torch")

BLOCK, LAYERS, BLOCKS = 4, 2, 32
SETTINGS = {"cluster": ["unix:/nowhere"], "token_file": "/nowhere", "namespace": "n"}


@dataclass
class FullAttentionSpec:
    block_size: int = BLOCK
    num_kv_heads: int = 1
    head_size: int = 2
    dtype: Any = torch.float32
    page_size_bytes: int = 64


class Base:
    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:  # noqa: ANN401
        self._kv_cache_config = kv_cache_config
        self.step: Any = None

    def _get_connector_metadata(self) -> Any:  # noqa: ANN401
        return self.step


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    parts = ["distributed.kv_transfer.kv_connector.v1.base", "v1.kv_cache_interface"]
    made = {"vllm": ModuleType("vllm")}
    for part in parts:
        name = "vllm"
        for piece in part.split("."):
            name = f"{name}.{piece}"
            made[name] = ModuleType(name)
    vars(made["vllm"])["__version__"] = "0"
    base = vars(made[f"vllm.{parts[0]}"])
    base["KVConnectorBase_V1"], base["KVConnectorMetadata"] = Base, object
    vars(made[f"vllm.{parts[1]}"])["FullAttentionSpec"] = FullAttentionSpec
    for name, one in made.items():
        monkeypatch.setitem(sys.modules, name, one)
    sys.modules.pop("superfs.kvcache.vllm", None)
    yield importlib.import_module("superfs.kvcache.vllm")
    sys.modules.pop("superfs.kvcache.vllm", None)


@dataclass
class Stored:
    """A pool in a dictionary."""

    blocks: dict[bytes, bytes] = field(default_factory=dict)
    lost: set[bytes] = field(default_factory=set)  # matched, and not to be had
    asked: list[int] = field(default_factory=list)  # where loads began

    def match(self, keys: Sequence[bytes]) -> int:
        return next((n for n, key in enumerate(keys) if key not in self.blocks), len(keys))

    def get_into(self, keys: Sequence[bytes], buffers: Sequence[Any], first: int = 0) -> int:
        self.asked.append(first)
        for number, buffer in enumerate(buffers):
            key = keys[first + number]
            if key in self.lost or key not in self.blocks:
                return number
            buffer[:] = self.blocks[key]
        return len(buffers)

    def put(self, keys: Sequence[bytes], blocks: Sequence[Any], first: int = 0) -> int:
        assert len(keys) == first + len(blocks)
        self.blocks |= {k: bytes(b) for k, b in zip(keys[first:], blocks, strict=True)}
        return len(keys)

    def close(self) -> None:
        pass


class Engine:
    """Both sides of the connector, and pages that a step fills with what its tokens say."""

    def __init__(self, module: Any, stored: Stored, **more: Any) -> None:  # noqa: ANN401
        transfer = SimpleNamespace(
            kv_connector_extra_config=SETTINGS | {"weights": "w"} | more.pop("settings", {}),
            kv_load_failure_policy=more.pop("failures", "recompute"),
        )
        config = SimpleNamespace(
            kv_transfer_config=transfer,
            parallel_config=SimpleNamespace(world_size=more.pop("ranks", 1)),
            model_config=SimpleNamespace(
                dtype="f", quantization=None, hf_text_config=SimpleNamespace()
            ),
            device_config=SimpleNamespace(device_type="cpu"),
        )
        names = [f"layer.{number}" for number in range(LAYERS)]
        group = SimpleNamespace(kv_cache_spec=more.pop("spec", FullAttentionSpec()))
        group.layer_names = names
        cache = SimpleNamespace(kv_cache_groups=[group], num_blocks=BLOCKS)
        self.connector = module.SuperFSConnector(config, None, cache)
        self.connector._pool._store = stored
        self.pages = {name: torch.zeros(BLOCKS, 1, BLOCK, 4) for name in names}
        self.connector.register_kv_caches(self.pages)

    def asked(self, name: str, tokens: list[int], local: int = 0) -> int:
        request = SimpleNamespace(
            request_id=name, prompt_token_ids=tokens, num_prompt_tokens=len(tokens), mm_features=[],
            cache_salt=None,
        )  # fmt: skip
        more, later = self.connector.get_num_new_matched_tokens(request, local)
        assert not later
        self.connector.update_state_after_alloc(request, None, more)
        return int(more)

    def step(
        self, name: str, tokens: list[int], ids: list[int], computed: int, scheduled: int, *,
        new: bool = True, resumed: bool = False, all_ids: list[int] | None = None,
    ) -> set[int]:  # fmt: skip
        """Which blocks could not be loaded. `ids`: all where it is new or resumed, else more."""
        fresh = SimpleNamespace(req_id=name, block_ids=(ids,), num_computed_tokens=computed)
        again = SimpleNamespace(
            req_ids=[] if new else [name], new_block_ids=[] if new else [(ids,) if ids else None],
            num_computed_tokens=[] if new else [computed],
            resumed_req_ids={name} if resumed else set(),
        )  # fmt: skip
        self.connector.step = self.connector.build_connector_meta(
            SimpleNamespace(
                num_scheduled_tokens={name: scheduled}, scheduled_cached_reqs=again,
                scheduled_new_reqs=[fresh] if new else [],
            )
        )  # fmt: skip
        self.connector.start_load_kv(None)
        for place in range(computed, computed + scheduled):
            for number, page in enumerate(self.pages.values()):
                block = (all_ids or ids)[place // BLOCK]
                page[block, 0, place % BLOCK] = tokens[place] * 10 + number
        self.connector.wait_for_save()
        if self.connector._storing is not None:
            self.connector._storing.result()
        return set(self.connector.get_block_ids_with_load_errors())

    def holds(self, tokens: list[int], ids: list[int], blocks: int) -> bool:
        return all(
            page[ids[place // BLOCK], 0, place % BLOCK].eq(tokens[place] * 10 + number).all()
            for number, page in enumerate(self.pages.values())
            for place in range(blocks * BLOCK)
        )


TOKENS = list(range(100, 119))  # four blocks and three tokens


def test_what_one_stored_another_loads(module: Any) -> None:  # noqa: ANN401
    stored = Stored()
    one, two = Engine(module, stored), Engine(module, stored)
    assert one.asked("a", TOKENS) == 0
    ids = [7, 3, 9, 1, 5]
    assert not one.step("a", TOKENS, ids[:2], 0, 6)
    assert len(stored.blocks) == 1
    assert not one.step("a", TOKENS, ids[2:], 6, 13, new=False, all_ids=ids)
    assert len(stored.blocks) == 4, "full ones only"
    other = [20, 21, 22, 23, 24]
    assert two.asked("b", TOKENS) == 16
    assert not two.step("b", TOKENS, other, 16, 3)
    assert two.holds(TOKENS, other, 4)
    assert stored.asked == [0]
    assert two.asked("c", TOKENS[:16]) == 12, "the last token is computed"


def test_what_the_engine_has_is_not_loaded(module: Any) -> None:  # noqa: ANN401
    stored = Stored()
    one, two = Engine(module, stored), Engine(module, stored)
    one.asked("a", TOKENS)
    one.step("a", TOKENS, [1, 2, 3, 4, 5], 0, 19)
    assert two.asked("b", TOKENS, local=8) == 8
    two.step("b", TOKENS, [11, 12, 13, 14, 15], 16, 3)
    assert stored.asked == [2]
    assert not any(page[[11, 12]].any() for page in two.pages.values())
    assert two.asked("c", TOKENS, local=16) == 0


@pytest.mark.parametrize("right", [0, 1, 2])
def test_behind_what_is_lost_nothing_is_stored(module: Any, right: int) -> None:  # noqa: ANN401
    stored = Stored()
    one, two = Engine(module, stored), Engine(module, stored)
    one.asked("a", TOKENS)
    one.step("a", TOKENS, [1, 2, 3, 4, 5], 0, 12)
    keys = list(stored.blocks)
    stored.lost = {keys[right]}
    ids = [11, 12, 13, 14, 15]
    assert two.asked("b", TOKENS) == 12
    assert two.step("b", TOKENS, ids, 12, 7) == set(ids[right:3])
    assert list(stored.blocks) == keys, "the fourth was computed behind garbage"
    assert not two.step("b", TOKENS, [], BLOCK * right, 19 - BLOCK * right, new=False, all_ids=ids)
    assert not two.connector._failed


def test_resumed_after_it_was_preempted(module: Any) -> None:  # noqa: ANN401
    stored = Stored()
    one = Engine(module, stored)
    one.asked("a", TOKENS)
    one.step("a", TOKENS, [1, 2], 0, 8)
    assert one.asked("a", TOKENS) == 8, "its blocks were given to others"
    ids = [6, 7, 8, 9, 10]
    one.step("a", TOKENS, ids, 8, 11, new=False, resumed=True, all_ids=ids)
    assert one.holds(TOKENS, ids, 4)
    assert len(stored.blocks) == 4
    one.connector.request_finished(SimpleNamespace(request_id="a"), ids)
    assert not one.connector._prompts


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"failures": "fail"}, "recompute"),
        ({"ranks": 2}, "parallel"),
        ({"settings": {"weights": ""}}, "weights"),
        ({"spec": SimpleNamespace()}, "attention"),
    ],
)
def test_what_is_refused(module: Any, more: dict[str, Any], says: str) -> None:  # noqa: ANN401
    with pytest.raises(FsError, match=says):
        Engine(module, Stored(), **more)
