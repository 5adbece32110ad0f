"""The manifest, the directory and the codec of checkpoints: what is refused, and what it says."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

import pytest

from superfs.checkpoint import codec, directory, residency
from superfs.checkpoint import manifest as manifests
from superfs.checkpoint.blocks import BlockWriter
from superfs.checkpoint.boxes import Box
from superfs.checkpoint.manifest import Manifest, Objects, StoredPiece, StoredShard, StoredTensor
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VALUES: list[object] = [
    *(None, True, 0, -(10**30), "ü\n", 0.1, -0.0, float("inf"), [], {}, (), set(), b"", 1j),
    *([1, [2]], {"a": {"b": 1}}, {1: 2, (3,): [4]}, {"$a": 1}, ((), ("x",)), {1, 2}, frozenset()),
    *(b"\0\xff", bytearray(b"x"), complex(-0.0, float("inf")), OrderedDict(b=1, a=2)),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was(value: object) -> None:
    encoded = json.loads(json.dumps(codec.encode("x", value)))
    found = codec.decode("x", encoded)
    assert (type(found), repr(found)) == (type(value), repr(value))


def test_nan_comes_back() -> None:
    found = codec.decode("x", codec.encode("x", float("nan")))
    assert found != found


class Odd(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [object(), Odd("x"), [1, {"a": object}], lambda: 0])
def test_an_unknown_type_is_an_error_that_names_it(value: object) -> None:
    with pytest.raises(FsError, match=r"'optim\.x' has a value of type") as caught:
        codec.encode("optim.x", value)
    assert caught.value.code is Code.INVALID


def test_pickle_has_to_be_allowed_on_both_sides() -> None:
    encoded = codec.encode("x", Odd("y"), allow_pickle=True)
    assert type(codec.decode("x", encoded, allow_pickle=True)) is Odd
    with pytest.raises(FsError, match="'x' was stored with pickle"):
        codec.decode("x", encoded)


@pytest.mark.parametrize(
    "encoded",
    [
        *({"$new": 1}, {"$bytes": 3}, {"$complex": ["a", 1]}, {"$dict": [[[], 1]]}),
        *({"$dtype": "save"}, {"$dtype": "load"}, {"$tensor": ["nn", [1], "AA=="]}),
        {"$tensor": ["float32", [2], "AAAA"]},
    ],
)
def test_what_cannot_be_decoded_is_named(encoded: object) -> None:
    pytest.importorskip("torch")
    with pytest.raises(FsError, match="'x'"):
        codec.decode("x", encoded)


def test_tensors_among_objects_are_stored_as_what_they_stand_for() -> None:
    """Conjugates and negatives are views of memory that holds something else."""
    torch = pytest.importorskip("torch")
    value = torch.tensor([1 + 2j, 3 - 4j])
    for lazy in (value.conj(), value.conj().imag, value[1:].conj()):
        found = codec.decode("x", json.loads(json.dumps(codec.encode("x", lazy))))
        assert found.tolist() == lazy.tolist()
        assert found.dtype == lazy.dtype


def manifest(*pieces: StoredPiece) -> Manifest:
    shard = StoredShard(Box((0,), (100,)), pieces or (StoredPiece(0, 0, 0, 100, (7,)),))
    return Manifest(
        id="ab" * 16,
        created_unix_s=1.5,
        world_size=2,
        made_by="test",
        files=[("r00000.data", 8192)],
        tensors=[
            StoredTensor("w", -1, "uint8", (100,), (shard,)),
            StoredTensor("nothing", -1, "float32", (0, 3), ()),
        ],
        same={"tied": "w"},
        objects=[Objects(-1, ("step",), 0, 4096, 10, 2**64 - 1)],
        paths={"w": ["model", 0]},
    )


def test_a_manifest_comes_back_and_is_json() -> None:
    raw = manifests.encode(manifest())
    assert manifests.decode(raw, "here") == manifest()
    assert json.loads(raw)["format"] == "superfs-checkpoint"
    assert set(manifest().tensors_of(1)) == {"w", "nothing", "tied"}


def test_every_changed_byte_of_a_manifest_is_noticed() -> None:
    raw = manifests.encode(manifest())
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(FsError):
            manifests.decode(bytes(changed), "here")
        with pytest.raises(FsError):
            manifests.decode(raw[:at], "here")


@pytest.mark.parametrize(
    "pieces",
    [
        [StoredPiece(0, 0, 0, 99, (7,))],
        [StoredPiece(0, 0, 0, 60, (7,)), StoredPiece(0, 60, 50, 50, (7,))],
        [StoredPiece(0, 0, 0, 60, (7,)), StoredPiece(0, 30, 60, 40, (7,))],
        [StoredPiece(1, 0, 0, 100, (7,))],
        [StoredPiece(0, 4090, 0, 100, (7,))],
        [StoredPiece(0, 8100, 0, 100, (7,))],
        [StoredPiece(0, 0, 0, 100, (7, 8))],
    ],
)
def test_a_manifest_in_which_bytes_are_missing_or_shared_is_refused(
    pieces: Sequence[StoredPiece],
) -> None:
    with pytest.raises(FsError) as caught:
        manifests.decode(manifests.encode(manifest(*pieces)), "here")
    assert caught.value.code is Code.DAMAGED


def test_attempts_become_checkpoints_and_nothing_is_replaced(tmp_path: Path) -> None:
    io = directory.DirectoryIO(tmp_path / "runs" / "step-1")
    one, two = "1" * 32, "2" * 32
    for attempt in (one, two):
        io.begin(attempt)
        sink = io.create(attempt, "r00000.data", durable=True)
        out = BlockWriter(sink)
        out.write(memoryview(attempt.encode()), 0)
        out.write(memoryview(b"more"), 4096)
        out.flush()
        sink.close()
    assert [a[:2] for a in directory.attempts(io.path.parent)] == [
        ("step-1", one),
        ("step-1", two),
    ]
    assert directory.committed(io.path.parent) == []
    io.publish(one, manifests.encode(manifest()), durable=True)
    assert directory.committed(io.path.parent) == [io.path]
    with pytest.raises(FsError, match="never overwritten"):
        io.publish(two, manifests.encode(manifest()), durable=True)
    with pytest.raises(FsError, match="never overwritten"):
        io.begin("3" * 32)
    assert (io.path / "r00000.data").read_bytes()[:33] == one.encode() + b"\0"
    io.abandon(two)
    io.abandon(two)
    assert directory.attempts(io.path.parent) == []


def test_directories_made_for_a_checkpoint_are_durable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(directory, "sync_directory", synced.append)
    io = directory.DirectoryIO(tmp_path / "a" / "b" / "c")
    io.begin("0" * 32)
    assert set(synced) == {tmp_path, tmp_path / "a"}
    io.publish("0" * 32, b"manifest", durable=True)
    assert tmp_path / "a" / "b" in synced


def test_room_is_taken_before_anything_is_written(tmp_path: Path) -> None:
    size = 5 * 2**20
    sink = directory.FileSink(tmp_path / "f", size=size)
    found = os.stat(tmp_path / "f")
    assert found.st_size == 0, "the coordinator sees by the size what has been written"
    if found.st_blocks == 0:
        pytest.skip("this file system takes no room ahead")
    assert found.st_blocks * 512 >= size
    sink.pwrite([memoryview(b"x" * 100)], 0)
    sink.close()
    assert os.stat(tmp_path / "f").st_size == 100


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        *((errno.ENOSPC, "No space left"), (errno.EDQUOT, "No quota left")),
        *((errno.EOPNOTSUPP, ""), (errno.ENOSYS, ""), (errno.EINTR, "")),
    ],
)
def test_room_that_is_not_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, refused: str
) -> None:
    def fallocate(_fd: int, _mode: int, _offset: int, _size: int) -> int:
        ctypes.set_errno(error)
        return -1

    monkeypatch.setattr(directory, "_fallocate", fallocate)
    open_before = len(os.listdir("/proc/self/fd"))
    if refused:
        with pytest.raises(FsError, match=refused):
            directory.FileSink(tmp_path / "f", size=1000)
    else:
        directory.FileSink(tmp_path / "f", size=1000).close()
    assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.mark.parametrize("tells", [True, False])
def test_what_is_in_memory_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    """By both ways of asking: without waiting, and, where the file system cannot, by its pages."""
    path, size = tmp_path / "f", 3 * 2**20
    with path.open("wb") as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())
        source = directory.FileSource(path)
        if not tells:

            def refuse(*_: object) -> int:
                raise OSError(errno.EOPNOTSUPP, "not here")

            monkeypatch.setattr(os, "preadv", refuse)
        assert source.cached(5, size - 5)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if source.cached(5, size - 5):
            pytest.skip("this file system keeps all in memory")
        source.close()
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    path.read_bytes()
    with path.open("rb") as again:
        assert not residency.resident(again.fileno(), 0, size), "the kernel would say anything"


def test_what_else_is_at_the_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(FsError) as caught:
            directory.DirectoryIO(tmp_path / name).begin("1" * 32)
        assert caught.value.code is Code.EXISTS
    io = directory.DirectoryIO(tmp_path / "empty")
    io.begin("1" * 32)
    io.publish("1" * 32, manifests.encode(manifest()), durable=False)
    assert directory.committed(tmp_path) == [tmp_path / "empty"]


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    for name in ("../x", "/etc/passwd", "", ".."):
        with pytest.raises((FsError, OSError)):
            directory.DirectoryIO(tmp_path).open(name)
