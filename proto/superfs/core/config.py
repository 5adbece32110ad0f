"""Configuration: frozen dataclasses, filled from TOML, nothing unknown accepted.

A config class is a frozen dataclass of scalars, lists and nested config classes, each with a
default beside the code that uses it; relations are checked in `__post_init__` (ValueError).
`load` refuses unknown keys and wrong types with the file and the key in the message; `dump`
writes the same file back, so that an example can be compared with the defaults.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A file that cannot be used; the message names the file, the key and what to do."""


def load(cls: type[T], path: Path) -> T:
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give an existing one with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return from_dict(cls, raw, where=str(path))


def from_dict(cls: type[T], raw: dict[str, Any], *, where: str = "config") -> T:
    return typing.cast("T", _build(cls, raw, where, ""))


def _build(cls: type[Any], raw: dict[str, Any], where: str, prefix: str) -> object:
    hints = typing.get_type_hints(cls)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    unknown = sorted(raw.keys() - fields.keys())
    if unknown:
        raise ConfigError(
            f"{where}: unknown key {prefix}{unknown[0]!s}; known: {', '.join(sorted(fields))}"
        )
    values = {k: _value(fields[k], v, where, prefix + k) for k, v in raw.items()}
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {prefix.rstrip('.') or 'top level'}: {error}") from None


def _value(kind: Any, value: Any, where: str, key: str) -> Any:  # noqa: ANN401
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {key} must be a table")
        return _build(typing.cast("type[Any]", kind), value, where, key + ".")
    if origin in (tuple, list):
        if not isinstance(value, list):
            raise ConfigError(f"{where}: {key} must be a list")
        item = typing.get_args(kind)[0]
        return tuple(_value(item, v, where, f"{key}[{i}]") for i, v in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
        return _value(kind, value, where, key)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        name = getattr(kind, "__name__", str(kind))
        raise ConfigError(f"{where}: {key} must be a {name}, not {value!r}")
    return value


def dump(config: Any, prefix: str = "") -> str:  # noqa: ANN401
    """TOML of a config object: scalars first, then its tables. None values are left out."""
    lines: list[str] = []
    tables: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            name = prefix + field.name
            tables.append(f"\n[{name}]\n{dump(value, name + '.')}")
        elif value is not None:
            lines.append(f"{field.name} = {_toml(value)}\n")
    return "".join(lines + tables)


def _toml(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
