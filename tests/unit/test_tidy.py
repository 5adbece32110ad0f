"""The shape of the source tree: sizes, who may import whom, every module imports, nothing dead."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
ROOTS, KV = ("proto", "daemons", "clients", "fuse"), "superfs.kvcache."
FILE_LINES, FUNCTION_LINES, LINE_CHARS, TIDY_LINES = 400, 70, 100, 105
OF_TRANSFORMERS = ("hf", "prefill", "turns", "fastdecode.batch")
NEEDS = {"vllm": "vllm", **dict.fromkeys(OF_TRANSFORMERS, "transformers")}
MARKS = tuple("TO DO,FIX ME,XX X,NotImplemented Error".replace(" ", "").split(","))

# package -> the packages of ours that it may import, besides itself
OUTER = {"core", "v1", "rpc"}
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "v1": set(),
    "rpc": {"core", "v1"},
    "daemon": OUTER,
    "cluster": OUTER | {"daemon"},
    "meta": OUTER | {"daemon"},
    "data": OUTER | {"daemon"},
    "client": OUTER,
    **dict.fromkeys(("mount", "fsspec", "checkpoint", "kvcache"), OUTER | {"client"}),
    "chukonu": OUTER | {"client", "fsspec"},
    "cli": OUTER | {"client", "checkpoint", "chukonu", "kvcache"},
}
SOURCES = {
    str(path.relative_to(TOP / root).with_suffix("")).replace("/", "."): path
    for root in ROOTS
    for path in sorted((TOP / root).rglob("*.py"))
}
OURS = {name: path for name, path in SOURCES.items() if ".v1." not in name}
CHECKED = [
    *OURS.values(),
    *sorted((TOP / "tests").rglob("*.py")),
    *sorted((TOP / "bench").rglob("*.py")),
]


def imports_of(path: Path) -> set[str]:
    """Every superfs module that a file names in an import, type-checking ones included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("superfs.")}


def test_one_namespace_package_over_four_roots() -> None:
    for root in ROOTS:
        assert not (TOP / root / "superfs" / "__init__.py").exists(), root
        assert not (TOP / root / "__init__.py").exists(), root


@pytest.mark.parametrize("path", CHECKED, ids=lambda p: str(p.relative_to(TOP)))
def test_sizes_and_marks(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    assert len(lines) <= (TIDY_LINES if path.name == "test_tidy.py" else FILE_LINES)
    long = [i for i, line in enumerate(lines, 1) if len(line) > LINE_CHARS]
    assert not long, f"lines over {LINE_CHARS} characters: {long}"
    marked = [i for i, line in enumerate(lines, 1) if any(mark in line for mark in MARKS)]
    assert not marked, f"leftover marks in lines {marked}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{node.name}: {length} lines"


@pytest.mark.parametrize("name", sorted(OURS))
def test_imports_point_inward(name: str) -> None:
    package = name.split(".")[1]
    for target in imports_of(OURS[name]):
        other = target.split(".")[1]
        assert other == package or other in ALLOWED[package], f"{name} imports {target}"


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_module_imports(name: str) -> None:
    if re.search(r"^(import|from) torch\b", SOURCES[name].read_text(), re.MULTILINE):
        pytest.importorskip(NEEDS.get(name.removeprefix(KV), "torch"))
    elif ".chukonu" in name:
        pytest.importorskip("polars")
    importlib.import_module(name.removesuffix(".__init__"))


def test_no_dead_modules() -> None:
    """A module that no other module of the product imports is an entry, for users, or dead."""
    used = {"superfs.meta.memstore", "superfs.checkpoint.delivery", *(KV + n for n in NEEDS)}
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    entries = [project["scripts"], *project["entry-points"].values()]
    used |= {target.split(":")[0] for group in entries for target in group.values()}
    used |= {target for name in OURS for target in imports_of(OURS[name]) - {name}}
    assert not [n for n in OURS if not n.endswith(("__init__", "__main__")) and n not in used]
