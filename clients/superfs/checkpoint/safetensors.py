"""The safetensors format, read and written by ranges: 8 bytes of length, a JSON header, the bytes.

{"name": {"dtype": "F32", "shape": [...], "data_offsets": [start, stop]}, "__metadata__": {...}}
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from superfs.checkpoint.holdings import tensor_bytes
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from superfs.checkpoint.boxes import Ints

NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
HEADER_BYTES_MAX = 100_000_000
_LENGTH = struct.Struct("<Q")


def write(
    path: Path,
    tensors: Iterable[tuple[str, str, Ints]],
    contents: Iterable[bytes | bytearray],
    about: Mapping[str, str],
) -> None:
    """`tensors`: (name, dtype, shape); `contents`: the bytes of each, asked for one by one."""
    header: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    at = 0
    for name, dtype, shape in tensors:
        if name == "__metadata__":
            raise FsError(Code.NOT_SUPPORTED, f"safetensors keeps the name {name!r} for itself")
        if dtype not in NAMES:
            raise FsError(Code.NOT_SUPPORTED, f"tensor {name!r}: safetensors has no {dtype}")
        size = tensor_bytes(dtype, shape)
        header[name] = {
            "dtype": NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for one in contents:
            file.write(one)


def header_of(path: Path) -> tuple[dict[str, tuple[str, Ints, int, int]], dict[str, str]]:
    """name -> (dtype, shape, offset in the file, bytes), and the metadata. FsError BAD_FORMAT."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            [length] = _LENGTH.unpack(file.read(_LENGTH.size))
            if length > min(HEADER_BYTES_MAX, size - _LENGTH.size):
                raise ValueError("its header is longer than it is")
            header = json.loads(file.read(length))
        base = _LENGTH.size + length
        about = header.pop("__metadata__", {})
        found = {}
        for name, entry in header.items():
            dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
            start, stop = entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (start, *shape)):
                raise ValueError(f"the shape of {name!r} is none")
            if stop - start != tensor_bytes(dtype, shape) or base + stop > size or start < 0:
                raise ValueError(f"the offsets of {name!r} do not fit")
            found[name] = (dtype, shape, base + start, stop - start)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise FsError(Code.BAD_FORMAT, f"{path} is no safetensors file: {error}") from None
    return found, about
