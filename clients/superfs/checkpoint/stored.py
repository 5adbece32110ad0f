"""From what ranks say that they have written to the manifest. No IO, no torch."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from superfs.checkpoint import manifest as manifests
from superfs.checkpoint.manifest import (
    Manifest,
    Objects,
    StoredPiece,
    StoredShard,
    StoredTensor,
)
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superfs.checkpoint.extentio import Way
    from superfs.checkpoint.plan import Plan


@dataclass(frozen=True, slots=True)
class WrittenObjects:
    own: bool
    names: tuple[str, ...]
    offset: int
    length: int
    xxh3: int


@dataclass(slots=True)
class Written:
    """What one rank reports. `hashes`: of the blocks of each piece, in the order of the plan."""

    rank: int
    file: str
    bytes: int = 0
    hashes: list[list[int]] = field(default_factory=list)
    objects: list[WrittenObjects] = field(default_factory=list)
    exported: list[Any] = field(default_factory=list)  # of another format, if it was asked for
    way: Way | None = None  # None: it had nothing to write


def file_name(rank: int) -> str:
    return f"r{rank:05}.data"


def assemble(
    plan: Plan,
    paths: dict[str, list[str | int]],
    written: Sequence[Written],
    sizes: Mapping[str, int],
    *,
    attempt: str,
    made_by: str,
) -> Manifest:
    """`sizes`: the files as the coordinator sees them. FsError if anything is not as planned."""
    files: dict[int, int] = {}  # rank -> place in the list of files
    listed: list[tuple[str, int]] = []
    for report in sorted(written, key=lambda w: w.rank):
        if len(report.hashes) != len(plan.pieces[report.rank]):
            raise FsError(Code.INTERNAL, f"rank {report.rank} has not written all of its pieces")
        if not report.bytes:
            continue
        seen = sizes.get(report.file)
        if seen is None:
            raise FsError(
                Code.NOT_FOUND,
                f"rank {report.rank} has written {report.file}, and it is not to be seen here: is "
                "the checkpoint's path on a file system that all ranks share?",
            )
        if seen != report.bytes:
            raise FsError(
                Code.DAMAGED,
                f"{report.file} has {seen} bytes where rank {report.rank} wrote {report.bytes}",
            )
        files[report.rank] = len(listed)
        listed.append((report.file, report.bytes))
    hashes = {report.rank: report.hashes for report in written}
    manifest = Manifest(
        id=attempt,
        created_unix_s=time.time(),
        world_size=len(plan.pieces),
        made_by=made_by,
        files=listed,
        tensors=_tensors(plan, files, hashes),
        same=plan.same,
        objects=[
            Objects(w.rank if o.own else -1, o.names, files[w.rank], o.offset, o.length, o.xxh3)
            for w in written
            for o in w.objects
        ],
        paths=paths,
    )
    manifests.check(manifest, "the checkpoint")
    return manifest


def _tensors(
    plan: Plan, files: dict[int, int], hashes: dict[int, list[list[int]]]
) -> list[StoredTensor]:
    found = []
    for tensor in plan.tensors:
        shards = []
        for shard in tensor.shards:
            if not shard.bytes:
                continue
            pieces = []
            for rank, number in shard.placed:
                _, start, stop, offset = plan.pieces[rank][number]
                if rank not in files:
                    raise FsError(Code.INTERNAL, f"rank {rank} has not reported what it wrote")
                its = tuple(hashes[rank][number])
                pieces.append(StoredPiece(files[rank], offset, start, stop - start, its))
            pieces.sort(key=lambda piece: piece.start)
            shards.append(StoredShard(shard.box, tuple(pieces)))
        found.append(
            StoredTensor(tensor.name, tensor.rank, tensor.dtype, tensor.shape, tuple(shards))
        )
    return found
