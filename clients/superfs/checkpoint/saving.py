"""How one rank's bytes get into its file: straight from its tensors, or through the arena."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import xxhash

from superfs.checkpoint import steps, tensors
from superfs.checkpoint.blocks import BlockWriter
from superfs.checkpoint.courier import Courier
from superfs.checkpoint.exporting import export
from superfs.checkpoint.limits import aligned
from superfs.checkpoint.stored import Written, WrittenObjects, file_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.checkpoint.courier import Span
    from superfs.checkpoint.describe import Local
    from superfs.checkpoint.extentio import ExtentIO
    from superfs.checkpoint.holdings import Description
    from superfs.checkpoint.options import Options
    from superfs.checkpoint.plan import Piece
    from superfs.checkpoint.session import Outcome, Session


@dataclass(slots=True)
class Staged:
    """A rank's file as it lies in the arena."""

    pieces: list[Piece]
    spans: list[Span]
    objects: list[WrittenObjects]
    description: Description
    shared: dict[str, str]  # the objects that everybody has and this rank writes


def write_now(
    io: ExtentIO, attempt: str, rank: int, local: Local, outcome: Outcome, *, durable: bool
) -> Written:
    written = Written(rank, file_name(rank))
    sink = None
    try:
        end, out = 0, None
        for offset, data, objects in _file(local, outcome):
            if sink is None or out is None:
                sink = io.create(attempt, written.file)
                out = BlockWriter(sink)
                steps.reached("file-created")
            hashes = out.write(tensors.memory(data), offset)
            end = offset + data.numel()
            if objects is None:
                written.hashes.append(hashes)
            else:
                written.objects.append(objects)
            steps.reached("piece-written")
        if out is not None and sink is not None:
            out.flush()
            written.bytes = end
            steps.reached("before-sync")
            if durable:
                sink.sync()
            steps.reached("after-sync")
    finally:
        if sink is not None:
            sink.close()
    return written


def stage(session: Session, local: Local, outcome: Outcome, *, arena_bytes: int | None) -> Staged:
    """Copies what this rank will write, and nothing else, to where the writer process sees it."""
    if session.courier is None or not session.courier.alive:
        if session.courier is not None:
            session.courier.close()
        session.courier = Courier()
    staged = Staged(
        outcome.remembered.pieces, [], [], local.state.description, _shared(local, outcome)
    )
    blobs = _blobs(local, outcome)
    size = _end(outcome.remembered.pieces)
    for _, _, text in blobs:
        size = aligned(size) + len(text)
    arena = session.courier.arena(size, arena_bytes)
    for offset, data, objects in _file(local, outcome):
        arena[offset : offset + data.numel()].copy_(data)
        staged.spans.append((offset, offset, data.numel()))
        if objects is not None:
            staged.objects.append(objects)
    return staged


def write_staged(
    io: ExtentIO, attempt: str, session: Session, staged: Staged, *, durable: bool
) -> Written:
    written = Written(session.rank, file_name(session.rank))
    if not staged.spans:
        return written
    assert session.courier is not None
    path = io.location(attempt, written.file)
    steps.reached("before-delivery")
    hashes = session.courier.deliver(path, staged.spans, durable=durable)
    steps.reached("after-delivery")
    written.hashes = hashes[: len(staged.pieces)]
    written.objects = staged.objects
    _, offset, size = staged.spans[-1]
    written.bytes = offset + size
    return written


def _end(pieces: Sequence[Piece]) -> int:
    return pieces[-1].file_offset + pieces[-1].stop - pieces[-1].start if pieces else 0


def _file(
    local: Local, outcome: Outcome
) -> Iterator[tuple[int, torch.Tensor, WrittenObjects | None]]:
    """The contents of a rank's file: offset and bytes of each piece, then of the objects."""
    pieces = outcome.remembered.pieces
    for holding, start, stop, offset in pieces:
        yield offset, tensors.part(local.tensors[holding], start, stop), None
    end = _end(pieces)
    for own, names, text in _blobs(local, outcome):
        offset = aligned(end)
        end = offset + len(text)
        data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        yield (
            offset,
            data,
            WrittenObjects(own, names, offset, len(text), xxhash.xxh3_64_intdigest(text)),
        )


def _blobs(local: Local, outcome: Outcome) -> list[tuple[bool, tuple[str, ...], bytes]]:
    shared, state = _shared(local, outcome), local.state
    return [
        (own, tuple(objects), _joined(objects))
        for own, objects in ((False, shared), (True, state.own_objects))
        if objects
    ]


def _shared(local: Local, outcome: Outcome) -> dict[str, str]:
    return {name: local.state.objects[name] for name in outcome.objects}


def export_now(
    io: ExtentIO, attempt: str, local: Local, outcome: Outcome, written: Written, options: Options
) -> None:
    pieces = (
        (piece, tensors.part(local.tensors[piece.holding], piece.start, piece.stop))
        for piece in outcome.remembered.pieces
    )
    shared, description = _shared(local, outcome), local.state.description
    written.exported = export(
        io,
        attempt,
        written.rank,
        description,
        pieces,
        shared,
        durable=options.durable,
        allow_pickle=options.allow_pickle,
    )


def export_staged(
    io: ExtentIO,
    attempt: str,
    session: Session,
    staged: Staged,
    written: Written,
    options: Options,
) -> None:
    arena = session.courier.staged if session.courier is not None else None
    pieces = (
        (piece, arena[at : at + size])
        for piece, (at, _, size) in zip(staged.pieces, staged.spans, strict=False)
        if arena is not None
    )
    written.exported = export(
        io,
        attempt,
        written.rank,
        staged.description,
        pieces,
        staged.shared,
        durable=options.durable,
        allow_pickle=options.allow_pickle,
    )


def _joined(objects: dict[str, str]) -> bytes:
    members = (f"{json.dumps(name)}:{encoded}" for name, encoded in objects.items())
    return ("{" + ",".join(members) + "}").encode()
