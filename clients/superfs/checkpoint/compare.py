"""What differs between two checkpoints. Equal layouts are compared by their hashes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.checkpoint.contents import Contents
    from superfs.checkpoint.manifest import StoredTensor


@dataclass(frozen=True, slots=True)
class Difference:
    name: str
    kind: str  # only-left, only-right, type, contents
    detail: str = ""


def differences(
    left: Contents, right: Contents, progress: Callable[[int], None] = lambda _: None
) -> Iterator[Difference]:
    """In the order of names; `progress` gets the bytes of each tensor that was compared."""
    ours, theirs = _named(left), _named(right)
    for name in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(name), theirs.get(name)
        if one is None or other is None:
            yield Difference(name, "only-right" if one is None else "only-left")
            continue
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            detail = f"{one.dtype} {list(one.shape)}, {other.dtype} {list(other.shape)}"
            yield Difference(name, "type", detail)
        elif not _alike(left, one, right, other):
            yield Difference(name, "contents")
        progress(one.bytes)
    a, b = left.all_objects(), right.all_objects()
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            yield Difference(name, "only-right" if name not in a else "only-left")
        elif a[name] != b[name]:
            yield Difference(name, "contents", f"{_short(a[name])}, {_short(b[name])}")


def _named(contents: Contents) -> dict[str, StoredTensor]:
    found = {}
    for tensor in contents.manifest.tensors:
        found[tensor.name + ("" if tensor.rank < 0 else f"@{tensor.rank}")] = tensor
    for name, first in contents.manifest.same.items():
        if first in found:
            found[name] = found[first]
    return found


def _alike(left: Contents, one: StoredTensor, right: Contents, other: StoredTensor) -> bool:
    if _layout(one) == _layout(other):
        return _hashes(one) == _hashes(other)
    return left.tensor(one) == right.tensor(other)


def _layout(tensor: StoredTensor) -> list[object]:
    return [(s.box, [(p.start, p.length) for p in s.pieces]) for s in tensor.shards]


def _hashes(tensor: StoredTensor) -> list[object]:
    return [piece.hashes for shard in tensor.shards for piece in shard.pieces]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
