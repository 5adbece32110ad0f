"""How one rank's bytes get into its file: straight from its tensors, or through the arena."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import xxhash

from superfs.checkpoint import steps, tensors
from superfs.checkpoint.blocks import BlockWriter
from superfs.checkpoint.courier import Courier
from superfs.checkpoint.exporting import export
from superfs.checkpoint.limits import BLOCK_BYTES, aligned
from superfs.checkpoint.stored import Written, WrittenObjects, file_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.checkpoint.courier import Span
    from superfs.checkpoint.describe import Local
    from superfs.checkpoint.extentio import ExtentIO, Way
    from superfs.checkpoint.holdings import Description
    from superfs.checkpoint.options import Options
    from superfs.checkpoint.plan import Piece
    from superfs.checkpoint.session import Outcome, Session


@dataclass(slots=True)
class Staged:
    """A rank's file as far as it lies in the arena."""

    pieces: list[Piece]
    description: Description
    shared: dict[str, str]  # the objects that everybody has and this rank writes
    hashes: list[list[int]]  # of each piece, of what has been written
    size: int  # of the whole file
    spans: list[Span] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)  # of each span: its piece; -1: objects
    objects: list[WrittenObjects] = field(default_factory=list)
    end: int = 0  # of what has been staged
    waves: int = 0  # that have been written and are gone from the arena


def write_now(
    io: ExtentIO, attempt: str, rank: int, local: Local, outcome: Outcome, *, durable: bool
) -> Written:
    written = Written(rank, file_name(rank))
    sink = None
    try:
        end, out = 0, None
        for offset, data, objects in _file(local, outcome):
            if sink is None or out is None:
                size = _size(local, outcome)
                sink = io.create(attempt, written.file, durable=durable, size=size)
                written.way = sink.way
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


def room(session: Session, outcome: Outcome, local: Local, arena_bytes: int | None) -> bool:
    """Makes the arena; whether all that this rank writes fits."""
    if session.courier is None or not session.courier.alive:
        if session.courier is not None:
            session.courier.close()
        session.courier = Courier()
    size = _size(local, outcome)
    return session.courier.arena(size, arena_bytes, session.neighbours).numel() >= size


def stage(
    io: ExtentIO, attempt: str | None, session: Session, local: Local, outcome: Outcome
) -> Staged:
    """Copies what this rank will write, and nothing else, to where the writer process sees it. What
    does not fit at once goes in waves, all but the last of which are written here and now."""
    pieces = outcome.remembered.pieces
    staged = Staged(
        pieces,
        local.state.description,
        _shared(local, outcome),
        [[] for _ in pieces],
        size=_size(local, outcome),
    )
    assert session.courier is not None
    arena = session.courier.staged
    limit, at = arena.numel(), 0
    for number, (offset, data, objects) in enumerate(_file(local, outcome)):
        done, size = 0, data.numel()
        while done < size:
            at = aligned(at)
            if at >= limit or (limit - at < size - done and limit - at < BLOCK_BYTES):
                _wave(io, attempt, session, staged)
                at = 0
            fits = min(size - done, limit - at)
            if fits < size - done:
                fits -= fits % BLOCK_BYTES  # so that no hash covers parts of two waves
            tensors.copy(arena[at : at + fits], data[done : done + fits])
            staged.spans.append((at, offset + done, fits))
            staged.owners.append(number if objects is None else -1)
            at, done = at + fits, done + fits
        if objects is not None:
            staged.objects.append(objects)
        staged.end = offset + size
    return staged


def _wave(io: ExtentIO, attempt: str | None, session: Session, staged: Staged) -> None:
    assert attempt is not None, "who has no room says so first"
    steps.reached("before-wave")
    _deliver(io, attempt, session, staged, durable=False)
    staged.spans, staged.owners = [], []
    staged.waves += 1


def write_staged(
    io: ExtentIO, attempt: str, session: Session, staged: Staged, *, durable: bool
) -> Written:
    written = Written(session.rank, file_name(session.rank))
    if not staged.end:
        return written
    steps.reached("before-delivery")
    written.way = _deliver(io, attempt, session, staged, durable=durable)
    steps.reached("after-delivery")
    written.hashes = staged.hashes
    written.objects = staged.objects
    written.bytes = staged.end
    return written


def _deliver(io: ExtentIO, attempt: str, session: Session, staged: Staged, *, durable: bool) -> Way:
    assert session.courier is not None
    where = io.location(attempt, file_name(session.rank))
    new = not staged.waves
    hashes, way = session.courier.deliver(
        where, staged.spans, new=new, size=staged.size, durable=durable
    )
    for owner, found in zip(staged.owners, hashes, strict=True):
        if owner >= 0:
            staged.hashes[owner] += found
    return way


def _size(local: Local, outcome: Outcome) -> int:
    """Of this rank's file."""
    size = _end(outcome.remembered.pieces)
    for _, _, text in _blobs(local, outcome):
        size = aligned(size) + len(text)
    return size


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
