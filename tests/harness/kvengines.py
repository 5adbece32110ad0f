"""What engines keep in a directory, by their own classes: run by the Python of .venv-engines.

    python kvengines.py ENGINE DIRECTORY FIRST COUNT SIZE

Stores COUNT pages of SIZE bytes, the first one being number FIRST, and reads each back at once.
Then asks for all from 0 on, as another process that shares the directory does. Prints as JSON which
of them are found; a page with other bytes than were stored is an error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import torch


def page(number: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)


class SGLang:
    """HiCache with the file back end."""

    def __init__(self, directory: str, size: int) -> None:
        os.environ["SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR"] = directory
        from sglang.srt.mem_cache.hicache_storage import HiCacheFile, HiCacheStorageConfig

        self._size = size
        fields = HiCacheStorageConfig.__dataclass_fields__
        values: dict[str, Any] = {
            "tp_rank": 0, "tp_size": 1, "pp_rank": 0, "pp_size": 1, "is_mla_model": False,
            "is_page_first_layout": True, "model_name": "models/small", "attn_cp_rank": 0,
            "attn_cp_size": 1, "enable_storage_metrics": False,
        }  # fmt: skip
        config = HiCacheStorageConfig(**{k: v for k, v in values.items() if k in fields})
        self._storage = HiCacheFile(config)

    def put(self, number: int, data: torch.Tensor) -> None:
        assert self._storage.set(f"{number:064x}", data)

    def get(self, number: int) -> torch.Tensor | None:
        room = torch.empty(self._size, dtype=torch.uint8)
        found: torch.Tensor | None = self._storage.get(f"{number:064x}", room)
        assert found is not None or not self._storage.exists(f"{number:064x}")
        return found


class LMCache:
    """A remote back end with an `fs://` address."""

    def __init__(self, directory: str, size: int) -> None:
        from lmcache.utils import CacheEngineKey
        from lmcache.v1.memory_allocators.ad_hoc_memory_allocator import AdHocMemoryAllocator
        from lmcache.v1.memory_management import MemoryFormat
        from lmcache.v1.storage_backend.connector.fs_connector import FSConnector

        self._loop = asyncio.new_event_loop()
        self._shape, self._format = torch.Size([2, 1, size // 4, 1]), MemoryFormat.KV_2LTD
        self._memory = AdHocMemoryAllocator(device="cpu")
        self._key = CacheEngineKey
        metadata = SimpleNamespace(
            get_shapes=lambda: [self._shape], get_dtypes=lambda: [torch.bfloat16], use_mla=False,
            chunk_size=size // 4, get_num_groups=lambda: 1,
        )  # fmt: skip
        config = SimpleNamespace(
            extra_config=None, use_layerwise=False,
            get_extra_config_value=lambda _name, default=None: default,
        )  # fmt: skip

        def allocate(shapes: Any, dtypes: Any, fmt: Any) -> Any:  # noqa: ANN401
            return self._memory.allocate(shapes, dtypes, fmt)

        local = SimpleNamespace(config=config, metadata=metadata, allocate=allocate)
        self._connector = FSConnector(self._loop, local, config, base_paths_str=directory)

    def _of(self, number: int) -> Any:  # noqa: ANN401
        return self._key("small", 1, 0, number + 1, torch.bfloat16)

    def put(self, number: int, data: torch.Tensor) -> None:
        room = self._memory.allocate([self._shape], [torch.bfloat16], self._format)
        memoryview(room.byte_array).cast("B")[:] = memoryview(data.numpy())
        self._loop.run_until_complete(self._connector.put(self._of(number), room))

    def get(self, number: int) -> torch.Tensor | None:
        found = self._loop.run_until_complete(self._connector.get(self._of(number)))
        exists = self._connector.exists_sync(self._of(number))
        assert found is not None or not exists
        if found is None:
            return None
        return torch.frombuffer(bytearray(found.byte_array), dtype=torch.uint8)


class VLLM:
    """The file tier of the offloading connector."""

    def __init__(self, directory: str, size: int) -> None:
        from vllm.v1.kv_offload.base import make_offload_key
        from vllm.v1.kv_offload.file_mapper import FileMapper
        from vllm.v1.kv_offload.tiering.fs import io

        self._io, self._key, self._size = io, make_offload_key, size
        self._files = FileMapper(
            directory, "models/small", 16, 1, 1, 1, 1, 1, 0, "bfloat16",
        )  # fmt: skip
        os.makedirs(self._files.base_path, exist_ok=True)
        self._direct = io.probe_o_direct(self._files.base_path)

    def _path(self, number: int) -> str:
        digest = number.to_bytes(4, "big") * 8
        path: str = self._files.get_file_name(self._key(digest, 0))
        return path

    def _room(self) -> memoryview:
        import mmap

        return memoryview(mmap.mmap(-1, self._size))

    def put(self, number: int, data: torch.Tensor) -> None:
        room = self._room()
        room[:] = memoryview(data.numpy())
        self._io.batch_store_block([self._path(number)], room, [0], self._size, self._direct)

    def get(self, number: int) -> torch.Tensor | None:
        room = self._room()
        try:
            self._io.batch_load_block([self._path(number)], room, [0], self._size, self._direct)
        except OSError:
            assert not os.path.exists(self._path(number))
            return None
        return torch.frombuffer(bytearray(room), dtype=torch.uint8)


def main() -> None:
    engine, directory, *numbers = sys.argv[1:]
    first, count, size = map(int, numbers)
    made: Any = {"sglang": SGLang, "lmcache": LMCache, "vllm": VLLM}[engine](directory, size)
    for number in range(first, first + count):
        made.put(number, page(number, size))
        found = made.get(number)
        assert found is not None
        assert torch.equal(found, page(number, size)), f"page {number} has other bytes"
    hits = []
    for number in range(first + count):
        found = made.get(number)
        if found is not None:
            assert torch.equal(found, page(number, size)), f"page {number} has other bytes"
            hits.append(number)
    print("FOUND", json.dumps(hits))


if __name__ == "__main__":
    main()
