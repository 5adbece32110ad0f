"""core/config: nothing unknown is accepted, every message names the file, the key and the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from superfs.core.config import ConfigError, dump, from_dict, load


@dataclass(frozen=True)
class Inner:
    size_bytes: int = 4
    ratio: float = 0.5

    def __post_init__(self) -> None:
        if self.size_bytes < 1:
            raise ValueError("size_bytes must be at least 1")
        if self.ratio < 0:
            raise ConfigError("ratio must not be negative")


@dataclass(frozen=True)
class Outer:
    name: str = 'a "quoted" \\ name'
    on: bool = True
    state_dir: Path = Path("/var/lib/x")
    listen: tuple[str, ...] = ("unix:/run/x", "127.0.0.1:1")
    nothing: str | None = None
    inner: Inner = field(default_factory=Inner)


def test_dump_and_load_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    for config in (Outer(), Outer(on=False, listen=(), inner=Inner(7, 1.0))):
        path.write_text(dump(config))
        assert load(Outer, path) == config


def test_whole_number_is_a_float() -> None:
    assert from_dict(Outer, {"inner": {"ratio": 2}}).inner.ratio == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nme = 'x'", "unknown key nme; known: inner, listen"),
        ("[inner]\nsiz = 1", "unknown key inner.siz; known: ratio, size_bytes"),
        ("[inner]\nsize_bytes = 0", "inner: size_bytes must be at least 1"),
        ("[inner]\nratio = -1.0", "inner: ratio must not be negative"),
        ("[inner]\nsize_bytes = 1.5", "inner.size_bytes must be a int"),
        ("on = 1", "on must be a bool"),
        ("name = true", "name must be a str"),
        ("inner = 3", "inner must be a table"),
        ("listen = 'x'", "listen must be a list"),
        ("listen = ['x', 3]", r"listen\[1\] must be a str"),
        ("on = ", "not valid TOML"),
        ("\udcff", "cannot be read"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=message) as caught:
        load(Outer, path)
    assert str(path) in str(caught.value)


def test_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; give an existing one with --config"):
        load(Outer, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Outer, tmp_path)
