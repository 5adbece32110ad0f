"""Manifests and safetensors files that no writer of ours makes: refused, by what they say."""

from __future__ import annotations

import copy
import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
import xxhash

from superfs.checkpoint import directory, safetensors
from superfs.checkpoint import manifest as manifests
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Body = dict[str, Any]


def body() -> Body:
    """Good: a tensor of two shards, one of each rank's own, a tied one, objects."""
    left = [[0, 0], [4, 2], [[0, 0, 0, 32, "7"]]]
    right = [[0, 2], [4, 2], [[1, 0, 0, 16, "7"], [1, 4096, 16, 16, "8"]]]
    own = [[0], [3], [[0, 4096, 0, 3, "9"]]]
    return {
        "id": "ab" * 16,
        "created_unix_s": 1.5,
        "world_size": 2,
        "block_bytes": 4 * 2**20,
        "made_by": "test",
        "files": [["r00000.data", 9000], ["r00001.data", 9000]],
        "tensors": [
            {"name": "w", "rank": -1, "dtype": "float32", "shape": [4, 4], "shards": [left, right]},
            {"name": "rng", "rank": 0, "dtype": "uint8", "shape": [3], "shards": [own]},
        ],
        "same": {"tied": "w"},
        "objects": [
            {"rank": -1, "names": ["step"], "file": 0, "offset": 8192, "length": 5, "xxh3": "a"},
            {"rank": 1, "names": ["rng"], "file": 1, "offset": 8192, "length": 5, "xxh3": "a"},
        ],
        "paths": {"w": ["model", 0]},
    }


def encoded(made: Body) -> bytes:
    """With a hash that is right: whoever crafts one can do that."""
    text = json.dumps(made, separators=(",", ":")).encode()
    found = xxhash.xxh3_64_intdigest(text)
    head = f'{{"format":"superfs-checkpoint","version":1,"xxh3":"{found:016x}","body":'
    return head.encode() + text + b"}\n"


def test_the_good_one_is_understood() -> None:
    found = manifests.decode(encoded(body()), "here")
    assert set(found.tensors_of(0)) == {"w", "rng", "tied"}
    assert set(found.objects_of(1)) == {"step", "rng"}


def tensor(made: Body) -> Any:  # noqa: ANN401
    return made["tensors"][0]


def shard(made: Body) -> Any:  # noqa: ANN401
    return tensor(made)["shards"][1]


def cut_in_an_element(made: Body) -> None:
    shard(made)[2] = [[1, 0, 0, 18, "7"], [1, 4096, 18, 14, "8"]]


def again(made: Body, where: str, **changed: object) -> None:
    made[where].append({**copy.deepcopy(made[where][0]), **changed})


FALSE: list[tuple[str, Callable[[Body], object]]] = [
    ("outside", lambda m: shard(m)[0].__setitem__(1, 3)),
    ("outside", lambda m: shard(m)[0].__setitem__(0, 4)),
    ("outside", lambda m: shard(m)[0].append(0)),
    ("outside", lambda m: tensor(m)["shards"].append([[0, 0], [0, 4], []])),
    ("cut in two", cut_in_an_element),
    ("cut in two", lambda m: shard(m)[2].insert(0, [1, 4096, 0, 0, ""])),
    ("two things", lambda m: m["objects"][0]["names"].append("w")),
    ("two things", lambda m: m["objects"][0]["names"].append("step")),
    ("two things", lambda m: m["objects"][0]["names"].append("rng")),
    ("two things", lambda m: again(m, "tensors", shape=[0], shards=[])),
    ("of rank 2", lambda m: m["objects"][1].__setitem__("rank", 2)),
    ("is not tied", lambda m: m["same"].__setitem__("w", "rng")),
    ("is not tied", lambda m: m["same"].__setitem__("tied", "step")),
    ("listed twice", lambda m: m["files"].append(["r00000.data", 9000])),
    ("stored twice or not", lambda m: shard(m)[2][0].__setitem__(4, "7 7")),
    ("no place of its own", lambda m: m["objects"][0].__setitem__("offset", 8996)),
    ("not listed", lambda m: m["objects"][0].__setitem__("file", 2)),
    ("not known", lambda m: tensor(m).__setitem__("dtype", "float7")),
    ("cannot be understood", lambda m: tensor(m).__setitem__("dtype", ["float32"])),
    ("cannot be understood", lambda m: tensor(m).__setitem__("shape", [4.0, 4])),
    ("cannot be understood", lambda m: tensor(m).__setitem__("shape", [-4, -4])),
    ("cannot be understood", lambda m: tensor(m).__setitem__("name", None)),
    ("cannot be understood", lambda m: tensor(m).__setitem__("rank", -2)),
    ("cannot be understood", lambda m: shard(m)[2].append(5)),
    ("cannot be understood", lambda m: shard(m)[2][0].__setitem__(1, True)),
    ("cannot be understood", lambda m: shard(m)[2][0].__setitem__(4, 5)),
    ("cannot be understood", lambda m: m.__setitem__("files", [["r00000.data", "9000"]])),
    ("cannot be understood", lambda m: m.__setitem__("same", ["tied"])),
    ("cannot be understood", lambda m: m.__setitem__("paths", {"w": 3})),
    ("cannot be understood", lambda m: m.__setitem__("created_unix_s", "now")),
    ("cannot be understood", lambda m: m.__setitem__("created_unix_s", float("nan"))),
    ("cannot be understood", lambda m: m.__setitem__("created_unix_s", 1e300)),
    ("cannot be understood", lambda m: m.__setitem__("block_bytes", 4096)),
    ("cannot be understood", lambda m: m.pop("world_size")),
]


@pytest.mark.parametrize(("words", "change"), FALSE, ids=range(len(FALSE)))
def test_what_a_manifest_may_not_say(words: str, change: Callable[[Body], object]) -> None:
    made = body()
    change(made)
    with pytest.raises(FsError, match=words) as caught:
        manifests.decode(encoded(made), "here")
    assert caught.value.code in (Code.DAMAGED, Code.BAD_FORMAT)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[]", b"3", b"\xff", b""])
def test_a_body_that_is_no_body(text: bytes) -> None:
    found = xxhash.xxh3_64_intdigest(text)
    head = f'{{"format":"superfs-checkpoint","version":1,"xxh3":"{found:016x}","body":'
    with pytest.raises(FsError, match="cannot be understood"):
        manifests.decode(head.encode() + text + b"}\n", "here")


def test_one_false_manifest_does_not_hide_the_others(tmp_path: Path) -> None:
    false = body()
    false["created_unix_s"] = "now"
    for name, made in (("good", body()), ("false", false)):
        (tmp_path / name).mkdir()
        (tmp_path / name / manifests.FILE_NAME).write_bytes(encoded(made))
    assert [path.name for path in directory.committed(tmp_path)] == ["good"]
    assert len(directory.listed(tmp_path)) == 2


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [-1, -4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [-4, 12]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0.0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        {"dtype": "F32", "shape": [4]},
        {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]},
        [],
    ],
)
def test_what_a_safetensors_header_may_not_say(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"w": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(FsError, match="is no safetensors file"):
        safetensors.header_of(path)


def test_a_tensor_with_the_name_of_the_metadata(tmp_path: Path) -> None:
    tensors = [("__metadata__", "uint8", (1,))]
    with pytest.raises(FsError, match="keeps the name"):
        safetensors.write(tmp_path / "x.safetensors", tensors, [b"x"], {})
