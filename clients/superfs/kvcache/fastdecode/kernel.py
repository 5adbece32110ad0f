"""The attention kernel: kernel.c, compiled for this machine's processor when it is first needed, or
the same in torch where there is no compiler. What is compiled guards mappings, too (guard.c).

Both read and write the same pages (kernel.c has their layout).
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from superfs.kvcache.fastdecode.form import PAGE_TOKENS, STORAGES, Form, Indices, Memory

log = logging.getLogger("superfs.kvcache")

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernel.c", "guard.c", "numbers.h"))
COMPILERS = ("cc", "gcc")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
COMPILE_S = 120.0


class _CForm(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "dim", "storage", "wire")),
        ("page_bytes", ctypes.c_int64),
        ("head_bytes", ctypes.c_int64),
        ("scale", ctypes.c_float),
    )


class Rows:
    """One mini-batch at one step: which sequences, with the new token counted. `lengths` of 0: a
    row that found no room; its o is zeros."""

    __slots__ = ("lengths", "slots")

    def __init__(self, slots: Indices, lengths: Indices) -> None:
        self.slots = np.ascontiguousarray(slots, np.int32)
        self.lengths = np.ascontiguousarray(lengths, np.int64)


class Kernel(Protocol):
    """Of one form. `pool`: the bytes of all pages, layer by layer. `tables`: the pages of each
    slot. q, k, v and o: the memory of rows of the wire's type. Threads may share one."""

    name: str

    def turns(self) -> Any:  # noqa: ANN401
        """What threads that attend the same rows have in common: who does what next."""
        ...

    def rows(
        self, pool: Memory, layer: int, tables: Indices, rows: Rows,
        q: Memory, k: Memory, v: Memory, o: Memory, turns: Any,  # noqa: ANN401
    ) -> None:  # fmt: skip
        """Stores k and v, and attends, until no turn is left. The rows are done when all threads
        have returned."""
        ...

    def fill(
        self, pool: Memory, layer: int, table: Indices, first: int,
        count: int, k: Memory, v: Memory,
    ) -> None:  # fmt: skip
        """Stores tokens `first` to `first + count` of one sequence."""
        ...

    def restore(
        self, pool: Memory, layer: int, table: Indices, first: int, count: int, both: Memory
    ) -> None:
        """The same from keys, then values, each [kv_heads, count, head_dim]."""
        ...


def kernel_of(form: Form, directory: Path | None = None) -> Kernel:
    """`directory`: where compiled code is kept; by default below the user's home."""
    library = library_in(directory)
    if library is not None:
        return CompiledKernel(form, library)
    from superfs.kvcache.fastdecode.torchkernel import TorchKernel

    return TorchKernel(form)


class CompiledKernel:
    name = "compiled"

    def __init__(self, form: Form, library: ctypes.CDLL) -> None:
        self._form = form
        order = list(STORAGES)
        self._c = _CForm(
            form.heads, form.kv_heads, form.head_dim, order.index(form.storage),
            order.index(form.wire), form.page_bytes, form.head_bytes, form.scale,
        )  # fmt: skip
        self._rows = library.superfs_rows
        self._fill = library.superfs_fill
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._rows.argtypes = [
            pointer, pointer, pointer, number, *[pointer] * 7, number, pointer,
        ]  # fmt: skip
        self._fill.argtypes = [
            pointer, pointer, pointer, number, number, pointer, pointer, number, number,
        ]  # fmt: skip
        self._rows.restype = self._fill.restype = None

    def turns(self) -> Any:  # noqa: ANN401
        return ctypes.c_int64(0)

    def rows(
        self, pool: Memory, layer: int, tables: Indices, rows: Rows,
        q: Memory, k: Memory, v: Memory, o: Memory, turns: Any,  # noqa: ANN401
    ) -> None:  # fmt: skip
        scratch: Memory = np.empty(2 * self._form.heads * (self._form.head_dim + 1), np.float32)
        self._rows(
            ctypes.addressof(self._c), pool[layer].ctypes.data, tables.ctypes.data,
            tables.shape[1], rows.slots.ctypes.data, rows.lengths.ctypes.data,
            q.ctypes.data, k.ctypes.data, v.ctypes.data, o.ctypes.data,
            ctypes.addressof(turns), len(rows.slots), scratch.ctypes.data,
        )  # fmt: skip

    def fill(
        self, pool: Memory, layer: int, table: Indices, first: int,
        count: int, k: Memory, v: Memory,
    ) -> None:  # fmt: skip
        form = self._form
        steps = (form.kv_heads * form.head_dim, form.head_dim)
        self._filled(pool, layer, table, first, count, (k.ctypes.data, v.ctypes.data), steps)

    def restore(
        self, pool: Memory, layer: int, table: Indices, first: int, count: int, both: Memory
    ) -> None:
        form, start = self._form, both.ctypes.data
        assert both.nbytes == 2 * count * form.key_bytes
        sides = (start, start + count * form.key_bytes)
        steps = (form.head_dim, count * form.head_dim)
        self._filled(pool, layer, table, first, count, sides, steps)

    def _filled(
        self, pool: Memory, layer: int, table: Indices, first: int, count: int,
        sides: tuple[int, int], steps: tuple[int, int],
    ) -> None:  # fmt: skip
        assert first + count <= len(table) * PAGE_TOKENS
        self._fill(
            ctypes.addressof(self._c), pool[layer].ctypes.data, table.ctypes.data, first, count,
            *sides, *steps,
        )  # fmt: skip


class Guard:
    """A mapping that reads as zeros where its file was cut short, instead of killing us. Not to be
    closed while somebody reads. OSError: there are too many, or there is no compiler."""

    def __init__(self, memory: Memory, directory: Path | None = None) -> None:
        library = library_in(directory)
        if library is None:
            raise OSError("mappings are guarded by compiled code, and there is none")
        self._unguard = library.superfs_unguard
        library.superfs_guard.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._number = library.superfs_guard(memory.ctypes.data, memory.nbytes)
        if self._number < 0:
            raise OSError("too many mappings are guarded")

    def close(self) -> None:
        self._unguard(self._number)


def library_in(directory: Path | None) -> ctypes.CDLL | None:
    """None: nothing can be compiled here."""
    return _library(directory or Path.home() / ".cache" / "superfs" / "kernels")


@cache
def _library(directory: Path) -> ctypes.CDLL | None:
    """None: it cannot be compiled here; said once."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    try:
        target = directory / f"attention-{_fingerprint()}.so"
        if not target.exists():
            if compiler is None:
                raise OSError("there is no C compiler")
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            _compile(compiler, target)
        if target.stat().st_uid not in (0, os.geteuid()):
            raise OSError(f"{target} belongs to another user")
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("attention runs in torch, several times slower: %s", error)
        return None


def _compiled() -> list[Path]:
    return [path for path in SOURCES if path.suffix == ".c"]


def _compile(compiler: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as room:
        made = Path(room) / target.name
        done = subprocess.run(
            [compiler, *FLAGS, "-o", str(made), *map(str, _compiled()), "-lm"],
            capture_output=True, text=True, timeout=COMPILE_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise OSError(f"{compiler} failed: {done.stderr.strip()[:500]}")
        made.replace(target)


def _fingerprint() -> str:
    """Of the sources, and of what -march=native depends on."""
    found = hashlib.blake2b(b"".join(path.read_bytes() for path in SOURCES), digest_size=16)
    found.update(" ".join(FLAGS).encode())
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model", "flags", "Features", "CPU part", "cpu family")):
            found.update(line.encode())
        if not line:
            break
    return found.hexdigest()
