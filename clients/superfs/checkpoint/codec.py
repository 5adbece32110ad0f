"""What is not a tensor, as JSON that tells types apart. Nothing it reads can run code.

    None, bool, int, float, str, list, dict with str keys      as in JSON
    {"$tuple": [...]}  {"$set": [...]}  {"$frozenset": [...]}  {"$size": [...]}  torch.Size
    {"$dict": [[key, value], ...]}  {"$odict": ...}            any keys, order kept
    {"$bytes": base64}  {"$bytearray": base64}
    {"$float": "nan" | "inf" | "-inf"}  {"$complex": [re, im]}
    {"$ndarray": [dtype, shape, base64]}  {"$scalar": ...}     numpy
    {"$tensor": [dtype, shape, base64]}  {"$dtype": name}  {"$device": name}
    {"$pickle": base64}                                        only if both sides allow it

Types are matched exactly: a subclass would come back as something else.
"""

from __future__ import annotations

import base64
import math
import pickle
import sys
from collections import OrderedDict
from typing import Any

from superfs.core.errors import Code, FsError

JsonValue = Any
_PLAIN = (type(None), bool, int, str)
_SEQUENCES: dict[type, str] = {tuple: "$tuple", set: "$set", frozenset: "$frozenset"}


def encode(name: str, value: Any, *, allow_pickle: bool = False) -> JsonValue:  # noqa: ANN401
    """FsError INVALID names the object and the type that has no encoding."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is list:
        return [encode(name, item, allow_pickle=allow_pickle) for item in value]
    if kind in (dict, OrderedDict):
        return _encode_dict(name, value, allow_pickle)
    if kind in _SEQUENCES:
        items = [encode(name, item, allow_pickle=allow_pickle) for item in value]
        return {_SEQUENCES[kind]: items if kind is tuple else sorted(items, key=repr)}
    if kind in (bytes, bytearray):
        return {f"${kind.__name__}": _text(value)}
    if kind is complex:
        parts = [value.real, value.imag]
        return {"$complex": [encode(name, part) for part in parts]}
    found = _encode_numpy(value)
    if found is None:
        found = _encode_torch(value)
    if found is not None:
        return found
    if allow_pickle:
        return {"$pickle": _text(pickle.dumps(value))}
    raise FsError(
        Code.INVALID,
        f"{name!r} has a value of type {kind.__module__}.{kind.__qualname__}, which has no "
        "encoding; store its parts, or allow pickle at save and load",
    )


def decode(name: str, value: JsonValue, *, allow_pickle: bool = False) -> Any:  # noqa: ANN401
    if type(value) is list:
        return [decode(name, item, allow_pickle=allow_pickle) for item in value]
    if type(value) is not dict:
        return value
    if len(value) != 1 or not next(iter(value)).startswith("$"):
        return {k: decode(name, v, allow_pickle=allow_pickle) for k, v in value.items()}
    [(tag, content)] = value.items()
    if tag == "$pickle":
        if not allow_pickle:
            raise FsError(
                Code.NOT_PERMITTED,
                f"{name!r} was stored with pickle, which can run any code when it is read: "
                "allow_pickle=True if you trust its origin",
            )
        return pickle.loads(base64.b64decode(content))
    try:
        return _decode_tagged(name, tag, content, allow_pickle)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FsError(Code.BAD_FORMAT, f"{name!r}: {tag} cannot be read: {error}") from None


def _decode_tagged(name: str, tag: str, content: JsonValue, allow_pickle: bool) -> object:
    def items() -> list[Any]:
        return [decode(name, item, allow_pickle=allow_pickle) for item in content]

    for kind, known in _SEQUENCES.items():
        if tag == known:
            return kind(items())
    if tag in ("$dict", "$odict"):
        return (dict if tag == "$dict" else OrderedDict)(items())
    if tag == "$bytes":
        return base64.b64decode(content)
    if tag == "$bytearray":
        return bytearray(base64.b64decode(content))
    if tag == "$float":
        return float(content)
    if tag == "$complex":
        return complex(*items())
    if tag in ("$ndarray", "$scalar"):
        import numpy as np

        dtype, shape, data = content
        array = np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape).copy()
        return array if tag == "$ndarray" else array[()]
    return _decode_torch(tag, content)


def _decode_torch(tag: str, content: JsonValue) -> object:
    import torch

    from superfs.checkpoint.tensors import dtype_of

    if tag == "$size":
        return torch.Size(content)
    if tag == "$dtype":
        return dtype_of(content)
    if tag == "$device":
        return torch.device(content)
    if tag == "$tensor":
        dtype, shape, data = content
        raw = bytearray(base64.b64decode(data))
        kind = dtype_of(dtype)
        flat = torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)
        return flat.reshape(shape)
    raise ValueError("a type that this program does not know")


def _encode_dict(name: str, value: Any, allow_pickle: bool) -> JsonValue:  # noqa: ANN401
    def inner(item: object) -> JsonValue:
        return encode(name, item, allow_pickle=allow_pickle)

    simple = type(value) is dict and all(type(k) is str and not k.startswith("$") for k in value)
    if simple:
        return {k: inner(v) for k, v in value.items()}
    tag = "$dict" if type(value) is dict else "$odict"
    return {tag: [[inner(k), inner(v)] for k, v in value.items()]}


def _encode_numpy(value: object) -> JsonValue | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    array = numpy.asarray(value)
    exact = type(value) is numpy.ndarray or isinstance(value, numpy.generic)
    if not exact or array.dtype.hasobject or array.dtype.names:
        return None
    tag = "$ndarray" if isinstance(value, numpy.ndarray) else "$scalar"
    return {tag: [array.dtype.str, list(array.shape), _text(array.tobytes())]}


def _encode_torch(value: Any) -> JsonValue | None:  # noqa: ANN401
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if type(value) is torch.Size:
        return {"$size": list(value)}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"$device": str(value)}
    if type(value) is torch.Tensor and value.layout is torch.strided:
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        raw = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        name = str(value.dtype).removeprefix("torch.")
        return {"$tensor": [name, list(value.shape), _text(raw)]}
    return None


def _text(raw: Any) -> str:  # noqa: ANN401
    return base64.b64encode(raw).decode()
