"""vLLM in front of a KVCache pool: a connector for its V1 engine.

    LLM(model, kv_transfer_config=KVTransferConfig(
        kv_connector="SuperFSConnector", kv_connector_module_path="superfs.kvcache.vllm",
        kv_role="kv_both", kv_load_failure_policy="recompute",
        kv_connector_extra_config={
            "cluster": ["unix:/run/superfs/clusterd.sock"], "token_file": "/etc/superfs/token",
            "namespace": "chat", "weights": "sha256:…", "quota_bytes": 8 << 30,
        },
    ))

The scheduler's side asks how much of a prompt is stored beyond what vLLM has itself, and tells the
worker's side what to load before a step and what to store after it: full blocks of prompts. Loads
are waited for; what cannot be had after all is reported, and vLLM computes it. Stores
are copies that are written behind the next steps. A pool that fails costs computing.

    block   for each layer, in vLLM's order: its page as vLLM sees it, [heads, tokens, content]
"""

from __future__ import annotations

import contextlib
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
)
from vllm.v1.kv_cache_interface import FullAttentionSpec

from superfs.client import ClientConfig
from superfs.core.errors import Code, FsError
from superfs.core.kvcache.keys import Fingerprint, KeyChain
from superfs.kvcache.store import KVStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger("superfs.kvcache")

FORM = 1  # of a block's bytes
RETRY_S = 10.0  # after a pool could not be opened


@dataclass(slots=True)
class Part:
    """Blocks of a prompt from `first` on. The others say what they are behind."""

    keys: list[bytes]
    ids: list[int]  # which of vLLM's blocks they are
    first: int


@dataclass(slots=True)
class Step(KVConnectorMetadata):  # type: ignore[misc]
    loads: list[Part] = field(default_factory=list)
    stores: list[Part] = field(default_factory=list)


@dataclass(slots=True)
class _Prompt:
    """A request that is served, as the scheduler's side knows it."""

    keys: list[bytes]  # of all its full blocks
    ids: list[int] = field(default_factory=list)
    have: int = 0  # blocks that vLLM has itself
    load: bool = False  # those behind them, that the pool has
    stored: int = 0  # blocks that are in the pool, or on their way


class SuperFSConnector(KVConnectorBase_V1):  # type: ignore[misc]
    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:  # noqa: ANN401
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        transfer = vllm_config.kv_transfer_config
        self._model = fingerprint(vllm_config, kv_cache_config)
        self._block = self._model.block_tokens
        self._pool = _Pool(transfer.kv_connector_extra_config, self._model)
        # The scheduler's side.
        self._prompts: dict[str, _Prompt] = {}
        # The worker's side.
        self._layers: list[torch.Tensor] = []
        self._failed: set[int] = set()  # since vLLM asked
        # What was to be in these blocks is not. Steps that are under way compute behind them all
        # the same, and nothing says when they are right: from them nothing is stored.
        self._wrong: set[tuple[int, bytes]] = set()
        self._thread = ThreadPoolExecutor(1, "kvcache")  # a store has one call at a time
        self._storing: Future[None] | None = None

    def shutdown(self) -> None:
        self._thread.shutdown()
        self._pool.close()

    # ---- the scheduler's side

    def get_num_new_matched_tokens(
        self,
        request: Any,  # noqa: ANN401
        num_computed_tokens: int,
    ) -> tuple[int | None, bool]:
        """One token at least is left: somebody wants its logits."""
        prompt = self._prompts.get(request.request_id)
        if prompt is None:
            prompt = self._prompts[request.request_id] = _Prompt(self._keys(request))
        whole = prompt.keys[: (request.num_prompt_tokens - 1) // self._block]
        found = self._pool.asked(lambda store: store.match(whole), 0) if whole else 0
        prompt.stored = found
        prompt.have = num_computed_tokens // self._block
        more = max(0, found - prompt.have) * self._block
        prompt.load = more > 0
        return more, False

    def update_state_after_alloc(
        self,
        request: Any,  # noqa: ANN401
        blocks: Any,  # noqa: ANN401
        num_external_tokens: int,
    ) -> None:
        prompt = self._prompts.get(request.request_id)
        if prompt is not None and not num_external_tokens:
            prompt.load = False

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:  # noqa: ANN401
        step = Step()
        scheduled = scheduler_output.num_scheduled_tokens
        for new in scheduler_output.scheduled_new_reqs:
            self._serve(
                step, new.req_id, new.block_ids[0], new.num_computed_tokens,
                scheduled[new.req_id], fresh=True,
            )  # fmt: skip
        again = scheduler_output.scheduled_cached_reqs
        for name, ids, computed in zip(
            again.req_ids, again.new_block_ids, again.num_computed_tokens, strict=True
        ):
            resumed = name in again.resumed_req_ids
            more = ids[0] if ids is not None else []
            self._serve(step, name, more, computed, scheduled[name], fresh=resumed)
        return step

    def _serve(
        self, step: Step, name: str, ids: Sequence[int], computed: int, scheduled: int, *,
        fresh: bool,
    ) -> None:  # fmt: skip
        """One request in one step. `computed`: tokens before it, those to be loaded included."""
        prompt = self._prompts.get(name)
        if prompt is None:
            return
        prompt.ids = [*ids] if fresh else [*prompt.ids, *ids]
        if fresh and prompt.load:
            end = computed // self._block
            step.loads.append(Part(prompt.keys[:end], prompt.ids[:end], prompt.have))
        prompt.load = False
        full = min((computed + scheduled) // self._block, len(prompt.keys))
        if full > prompt.stored:
            step.stores.append(Part(prompt.keys[:full], prompt.ids[:full], prompt.stored))
            prompt.stored = full

    def request_finished(
        self,
        request: Any,  # noqa: ANN401
        block_ids: list[int],
    ) -> tuple[bool, dict[str, Any] | None]:
        """Nothing of it is still to be read: stores are copies."""
        self._prompts.pop(request.request_id, None)
        return False, None

    def _keys(self, request: Any) -> list[bytes]:  # noqa: ANN401
        """None where more than tokens makes its blocks (images, adapters)."""
        tokens = request.prompt_token_ids
        if not tokens or request.mm_features or getattr(request, "lora_request", None) is not None:
            return []
        return self._pool.chain(request.cache_salt or "").keys(tokens)

    # ---- the worker's side

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        names = self._kv_cache_config.kv_cache_groups[0].layer_names
        self._layers = [kv_caches[name] for name in names]
        if {layer.shape[0] for layer in self._layers} != {self._kv_cache_config.num_blocks}:
            shapes = [tuple(layer.shape) for layer in self._layers]
            raise FsError(Code.NOT_SUPPORTED, f"pages are not the first dimension: {shapes}")

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:  # noqa: ANN401
        for part in self._get_connector_metadata().loads:
            right = part.first + self._thread.submit(self._load, part).result()
            self._failed.update(part.ids[right:])
            self._wrong.update(zip(part.ids[right:], part.keys[right:], strict=True))

    def wait_for_layer_load(self, layer_name: str) -> None:
        """They are there when the step begins."""

    def save_kv_layer(
        self,
        layer_name: str,
        kv_layer: torch.Tensor,
        attn_metadata: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Layers are taken together, when all are computed."""

    def wait_for_save(self) -> None:
        for part in self._get_connector_metadata().stores:
            if not self._wrong.isdisjoint(zip(part.ids, part.keys, strict=True)):
                continue
            if self._storing is not None:
                self._storing.result()  # one copy at a time
            room = self._copied(part.ids[part.first :])
            self._storing = self._thread.submit(self._store, part, room)

    def get_block_ids_with_load_errors(self) -> set[int]:
        failed, self._failed = self._failed, set()
        return failed

    def _room(self, count: int) -> torch.Tensor:
        layer = self._layers[0]
        return torch.empty((count, len(self._layers), *layer.shape[1:]), dtype=layer.dtype)

    def _load(self, part: Part) -> int:
        room = self._room(len(part.ids) - part.first)
        buffers = [_bytes(one) for one in room]
        found = self._pool.asked(lambda store: store.get_into(part.keys, buffers, part.first), 0)
        ids = torch.tensor(part.ids[part.first : part.first + found], dtype=torch.long)
        for number, layer in enumerate(self._layers):
            layer[ids.to(layer.device)] = room[:found, number].to(layer.device)
        return found

    def _copied(self, ids: list[int]) -> torch.Tensor:
        room = self._room(len(ids))
        for number, layer in enumerate(self._layers):
            room[:, number] = layer[torch.tensor(ids, device=layer.device)].to("cpu")
        return room

    def _store(self, part: Part, room: torch.Tensor) -> None:
        blocks = [_bytes(one) for one in room]
        self._pool.asked(lambda store: store.put(part.keys, blocks, first=part.first), 0)


class _Pool:
    """The store, opened when it is needed; away for a while after it failed."""

    def __init__(self, settings: Mapping[str, Any], model: Fingerprint) -> None:
        self._settings = settings
        self._model = model
        self._store: KVStore | None = None
        self._not_before = 0.0

    def chain(self, salt: str) -> KeyChain:
        tenant = str(self._settings.get("salt", ""))
        return KeyChain(self._model, f"{tenant}\0{salt}".encode() if salt else tenant.encode())

    def asked(self, ask: Callable[[KVStore], int], otherwise: int) -> int:
        try:
            if self._store is None:
                if time.monotonic() < self._not_before:
                    return otherwise
                self._store = self._open()
            return ask(self._store)
        except FsError as error:
            log.warning("the KVCache pool was not used: %s", error)
            self._not_before = time.monotonic() + RETRY_S
            self.close()
            return otherwise

    def _open(self) -> KVStore:
        known = self._settings
        config = ClientConfig(cluster=tuple(known["cluster"]), token_file=Path(known["token_file"]))
        return KVStore.open(
            config, str(known["namespace"]), self.chain(""),
            quota_bytes=int(known.get("quota_bytes", 0)), policy=str(known.get("policy", "")),
        )  # fmt: skip

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(FsError):
                store.close()


def fingerprint(vllm_config: Any, kv_cache_config: Any) -> Fingerprint:  # noqa: ANN401
    """NOT_SUPPORTED and INVALID: what cannot be served, or would not be right."""
    transfer, parallel = vllm_config.kv_transfer_config, vllm_config.parallel_config
    settings = transfer.kv_connector_extra_config
    missing = [n for n in ("cluster", "token_file", "namespace", "weights") if not settings.get(n)]
    if missing:
        raise FsError(Code.INVALID, f"kv_connector_extra_config lacks {', '.join(missing)}")
    if transfer.kv_load_failure_policy != "recompute":
        raise FsError(Code.INVALID, 'kv_load_failure_policy must be "recompute"')
    if parallel.world_size != 1:
        raise FsError(Code.NOT_SUPPORTED, "tensor and pipeline parallel engines")
    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1 or type(groups[0].kv_cache_spec) is not FullAttentionSpec:
        raise FsError(Code.NOT_SUPPORTED, "only full attention in every layer")
    spec = groups[0].kv_cache_spec
    model = vllm_config.model_config
    return Fingerprint(
        weights=str(settings["weights"]),
        dtype=str(spec.dtype).removeprefix("torch."),
        layers=len(groups[0].layer_names),
        kv_heads=spec.num_kv_heads,
        head_dim=spec.head_size,
        block_tokens=spec.block_size,
        rope=dict(getattr(model.hf_text_config, "rope_parameters", None) or {}),
        extra={
            "engine": f"vllm {vllm.__version__}",
            "device": vllm_config.device_config.device_type,
            "form": FORM,
            "model_dtype": str(model.dtype),
            "page_bytes": spec.page_size_bytes,
            "quantization": str(model.quantization),
        },
    )


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU itself."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())
