"""The generated protobuf code is fresh, and the wire stays compatible with what was published."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

TOP = Path(__file__).parents[2]
PROTO = TOP / "proto"
GOLDEN = TOP / "tests" / "golden" / "descriptors.bin"
SOURCES = sorted(PROTO.glob("superfs/v1/*.proto"))


def protoc(*options: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", f"-I{PROTO}", *options]
    command += map(str, SOURCES)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pb2.FileDescriptorSet:
    path = tmp_path_factory.mktemp("descriptors") / "now.bin"
    protoc(f"--descriptor_set_out={path}")
    return descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())


def test_generated_code_is_what_protoc_writes_now(tmp_path: Path) -> None:
    protoc(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    written = {p.relative_to(tmp_path) for p in tmp_path.rglob("*.py*")}
    committed = {
        p.relative_to(PROTO)
        for p in (PROTO / "superfs/v1").glob("*.py*")
        if p.name != "__init__.py"
    }
    assert written == committed
    stale = [str(p) for p in written if (tmp_path / p).read_bytes() != (PROTO / p).read_bytes()]
    assert not stale, f"run `make proto`: {stale}"


Numbered = dict[str, dict[int, str]]


def fields_of(files: descriptor_pb2.FileDescriptorSet) -> Numbered:
    """Message or enum -> number -> what is there: name, type, label."""
    found: Numbered = {}

    def walk(prefix: str, message: descriptor_pb2.DescriptorProto) -> None:
        name = f"{prefix}.{message.name}"
        found[name] = {f.number: f"{f.name} {f.type}{f.type_name} {f.label}" for f in message.field}
        for inner in message.nested_type:
            walk(name, inner)
        for enum in message.enum_type:
            found[f"{name}.{enum.name}"] = {v.number: v.name for v in enum.value}

    for file in files.file:
        for message in file.message_type:
            walk(file.package, message)
        for enum in file.enum_type:
            found[f"{file.package}.{enum.name}"] = {v.number: v.name for v in enum.value}
    return found


def reserved_of(files: descriptor_pb2.FileDescriptorSet) -> dict[str, set[int]]:
    return {
        f"{file.package}.{message.name}": {
            n for r in message.reserved_range for n in range(r.start, min(r.end, r.start + 1000))
        }
        for file in files.file
        for message in file.message_type
    }


def test_field_numbers_are_never_reused(current: descriptor_pb2.FileDescriptorSet) -> None:
    """The golden set is the published wire. A change may add numbers (run with the new set
    written by `make proto`), retire one by `reserved`, and nothing else."""
    golden = descriptor_pb2.FileDescriptorSet.FromString(GOLDEN.read_bytes())
    now, retired = fields_of(current), reserved_of(current)
    for message, fields in fields_of(golden).items():
        for number, what in fields.items():
            is_retired = number in retired.get(message, set())
            assert is_retired or now.get(message, {}).get(number) == what, (message, number, what)


def test_golden_set_knows_every_number(current: descriptor_pb2.FileDescriptorSet) -> None:
    golden = fields_of(descriptor_pb2.FileDescriptorSet.FromString(GOLDEN.read_bytes()))
    for message, fields in fields_of(current).items():
        new = fields.keys() - golden.get(message, {}).keys()
        assert not new, f"{message}: fields {sorted(new)} are not in {GOLDEN.name}: `make proto`"


def test_methods_are_never_removed(current: descriptor_pb2.FileDescriptorSet) -> None:
    def methods(files: descriptor_pb2.FileDescriptorSet) -> set[str]:
        return {
            f"{s.name}.{m.name} {m.input_type} {m.output_type}"
            f" {m.client_streaming} {m.server_streaming}"
            for file in files.file
            for s in file.service
            for m in s.method
        }

    golden = descriptor_pb2.FileDescriptorSet.FromString(GOLDEN.read_bytes())
    assert methods(golden) <= methods(current)
