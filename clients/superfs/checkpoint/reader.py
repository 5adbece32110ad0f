"""`SuperFSReader`: what `dcp.load` reads through."""

from __future__ import annotations

import io as memory_io
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from torch.distributed.checkpoint.planner import LoadItemType
from torch.distributed.checkpoint.storage import StorageReader

from superfs.checkpoint import codec, steps
from superfs.checkpoint import manifest as manifests
from superfs.checkpoint import session as sessions
from superfs.checkpoint.boxes import Box
from superfs.checkpoint.describe import refuse_unsound
from superfs.checkpoint.directory import DirectoryIO
from superfs.checkpoint.hostshare import Host, read_together
from superfs.checkpoint.metadata import metadata_of
from superfs.checkpoint.reading import Reading, Want, blocks_of
from superfs.checkpoint.tensors import dtype_of
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch.distributed as dist
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem

    from superfs.checkpoint.extentio import ExtentIO
    from superfs.checkpoint.manifest import Manifest, Objects

SHARE = ("auto", "always", "never")


class SuperFSReader(StorageReader):
    """Reads what `SuperFSWriter` committed, into any layout, by any number of ranks.

        dcp.load(state, storage_reader=SuperFSReader("/mnt/run/step-1000"))

    `share`: whether ranks of one host read together, each byte once, through shared memory:
    "auto" if what they read is not in this host's memory anyway. `host`: what tells hosts apart.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        process_group: dist.ProcessGroup | None = None,
        no_dist: bool = False,
        share: str = "auto",
        host: str | None = None,
        allow_pickle: bool = False,
        timeout_s: float = sessions.TIMEOUT_S,
        io: Callable[[str | os.PathLike[str]], ExtentIO] = DirectoryIO,
    ) -> None:
        super().__init__()
        if share not in SHARE:
            raise ValueError(f"share is one of {', '.join(SHARE)}")
        self._path, self._new_io, self._io = path, io, io(path)
        self._group, self._no_dist, self._timeout_s = process_group, no_dist, timeout_s
        self._host = Host(host, share)
        self._allow_pickle = allow_pickle
        self._manifest: Manifest | None = None
        self._items: list[ReadItem] = []
        self.statistics: dict[str, int] = {}

    @property
    def checkpoint_id(self) -> str | os.PathLike[str]:
        return self._path

    @property
    def session(self) -> sessions.Session:
        return sessions.of(self._group, no_dist=self._no_dist, timeout_s=self._timeout_s)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return "://" not in os.fspath(checkpoint_id)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        if checkpoint_id is not None:
            self._path = checkpoint_id
            self._io = self._new_io(checkpoint_id)
        self._manifest = None

    def read_metadata(self, *_args: object, **kwargs: object) -> Metadata:
        rank = self.session.rank
        if kwargs:
            # DCP asks again for one rank's own metadata when the first answer was an error, and
            # would go on without collectives if it got any.
            raise FsError(Code.NOT_FOUND, f"{self._path} has no metadata of single ranks")
        manifest = manifests.decode(self._io.manifest(), f"{self._path}/{manifests.FILE_NAME}")
        self._manifest = manifest
        return metadata_of(manifest, rank)

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *_args: object, **kwargs: object
    ) -> None:
        """The manifest was read with the metadata."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """What a rank reads concerns that rank: DCP is left nothing to send to the coordinator and
        back. What a planner of somebody else's makes of it there counts."""
        self._items = plan.items
        return replace(plan, items=[])

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> torch.futures.Future[None]:
        manifest = self._manifest
        assert manifest is not None, "DCP reads the metadata first"
        session, plan = self.session, replace(plan, items=plan.items or self._items)
        reading = Reading(self._io, manifest, self._path)
        error: Exception | None = None
        wants: list[tuple[ReadItem, Want]] = []
        try:
            wants = self._wants(plan, planner, manifest, session.rank)
            blocks = blocks_of(want for _, want in wants)
        except Exception as caught:  # whatever it is: all ranks have to hear of it
            error, blocks = caught, {}
        try:
            steps.reached("before-reading")
            read_together(self._host, session, reading, blocks, error)
            for item, want in wants:
                planner.commit_tensor(item, want.into)
            self._objects(plan, planner, reading, session.rank)
        finally:
            reading.close()
            self.statistics = {"bytes_read": reading.bytes_read}
        future: torch.futures.Future[None] = torch.futures.Future()
        future.set_result(None)
        return future

    def _wants(
        self, plan: LoadPlan, planner: LoadPlanner, manifest: Manifest, rank: int
    ) -> list[tuple[ReadItem, Want]]:
        stored = manifest.tensors_of(rank)
        found = []
        for name, value in getattr(planner, "state_dict", {}).items():
            refuse_unsound(name, value)
        for item in plan.items:
            if item.type is not LoadItemType.TENSOR:
                continue
            tensor = stored[item.storage_index.fqn]
            offsets = tuple(item.storage_index.offset or (0,) * len(tensor.shape))
            into = planner.resolve_tensor(item).detach()
            box = Box(tuple(item.storage_offsets), tuple(item.lengths))
            if not box.volume:
                continue
            shard = next((s for s in tensor.shards if s.box.offsets == offsets), None)
            if shard is None or tuple(into.shape) != box.sizes:
                raise FsError(
                    Code.INVALID,
                    f"{self._path}: tensor {tensor.name!r}: the planner asks for "
                    f"{list(box.sizes)} at {list(offsets)} and wants it in {list(into.shape)}",
                )
            found.append((item, Want(tensor.name, dtype_of(tensor.dtype), shard, box, into)))
        return found

    def _objects(self, plan: LoadPlan, planner: LoadPlanner, reading: Reading, rank: int) -> None:
        places = reading.manifest.objects_of(rank)
        parsed: dict[tuple[int, int], dict[str, Any]] = {}
        for item in plan.items:
            if item.type is not LoadItemType.BYTE_IO:
                continue
            name = item.storage_index.fqn
            objects = places[name]
            place = (objects.file, objects.offset)
            if place not in parsed:
                parsed[place] = read_objects(reading, objects)
            value = codec.decode(name, parsed[place][name], allow_pickle=self._allow_pickle)
            pickled = memory_io.BytesIO()  # of our own making: what planners expect to be given
            torch.save(value, pickled)
            pickled.seek(0)
            planner.load_bytes(item, pickled)


def read_objects(reading: Reading, objects: Objects) -> dict[str, Any]:
    """Encoded, by name."""
    raw = reading.raw(objects.file, objects.offset, objects.length)
    if xxhash.xxh3_64_intdigest(raw) != objects.xxh3:
        file = reading.manifest.files[objects.file][0]
        names = ", ".join(map(repr, objects.names[:3]))
        raise FsError(
            Code.DAMAGED,
            f"{reading.where}: {file}, {objects.length} bytes at {objects.offset} do not match "
            f"their hash: the objects {names}{' ...' if len(objects.names) > 3 else ''}",
        )
    parsed: dict[str, Any] = json.loads(raw)
    return parsed
