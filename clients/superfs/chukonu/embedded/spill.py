"""Rows that do not fit in memory: put by a hash of their keys into files, of which one at a time is
brought back. Rows with equal keys are in one file, in the order in which they came.

A file is a row of Arrow streams, each behind its length. Files go when nobody holds their `Spill`.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.chukonu.expressions import Ref

FILES = 64
Frame = Any


class Spill:
    def __init__(self, keys: Sequence[Ref], folder: str | None) -> None:
        self._keys = keys
        self._folder = Path(tempfile.mkdtemp(prefix="chukonu-spill-", dir=folder))
        weakref.finalize(self, shutil.rmtree, self._folder, True)
        self._files: dict[int, Any] = {}
        self._empty: Frame = None

    def add(self, frame: Frame) -> None:
        self._empty = frame.clear()
        for number, part in _parted(frame, self._keys):
            if number not in self._files:
                self._files[number] = (self._folder / f"{number:03}").open("wb")
            stream = io.BytesIO()
            part.write_ipc_stream(stream)
            self._files[number].write(len(stream.getbuffer()).to_bytes(8) + stream.getbuffer())

    def finish(self) -> Spill:
        for file in self._files.values():
            file.close()
        return self

    def part(self, number: int) -> Frame:
        if number not in self._files:
            return self._empty
        found: list[Frame] = []
        with (self._folder / f"{number:03}").open("rb") as file:
            while size := file.read(8):
                found.append(pl.read_ipc_stream(io.BytesIO(file.read(int.from_bytes(size)))))
        return pl.concat(found)


def _parted(frame: Frame, keys: Sequence[Ref]) -> list[tuple[int, Frame]]:
    place = pl.struct([_same(ref).alias(ref.key) for ref in keys]).hash(seed=0) % FILES
    parts = frame.with_columns(place.alias("place")).partition_by(
        "place", as_dict=True, include_key=False, maintain_order=True
    )
    return [(int(number), part) for (number,), part in parts.items()]


def _same(ref: Ref) -> Any:  # noqa: ANN401
    """Equal keys have equal bits: one zero, one NaN."""
    column = pl.col(ref.key)
    if ref.dtype not in (t.FLOAT, t.DOUBLE):
        return column
    return (column + 0.0).fill_nan(float("nan"))


def gathered(
    frames: Iterable[Frame], keys: Sequence[Ref], budget_bytes: int, folder: str | None
) -> list[Frame] | Spill:
    """All of them, or, when they are more than the budget, files. Without keys: all of them."""
    found: list[Frame] = []
    size = 0
    spill: Spill | None = None
    for frame in frames:
        if spill is not None:
            spill.add(frame)
            continue
        found.append(frame)
        size += frame.estimated_size()
        if size > budget_bytes and keys:
            spill = spilled(found, keys, folder)
            found = []
    return found if spill is None else spill.finish()


def spilled(frames: Iterable[Frame], keys: Sequence[Ref], folder: str | None) -> Spill:
    spill = Spill(keys, folder)
    for frame in frames:
        spill.add(frame)
    return spill
