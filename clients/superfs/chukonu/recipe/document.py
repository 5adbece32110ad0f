"""A YAML document whose every value knows the line it is on, and what may stand there.

Nothing of it is executed: scalars are what safe YAML makes of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu.errors import ChukonuError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|KiB|MiB|GiB|TiB)?")
_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class RecipeError(ChukonuError):
    """The recipe is wrong, and where."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__("RECIPE", f"{where}: {detail}")
        self.where = where
        self.why = detail

    def __reduce__(self) -> tuple[type[RecipeError], tuple[str, str]]:
        return type(self), (self.where, self.why)


@dataclass(frozen=True, slots=True)
class Item:
    """`value`: a dict or a list of Items, or a scalar."""

    value: Any
    file: str
    line: int
    name: str

    def error(self, detail: str) -> RecipeError:
        at = f"{self.file}:{self.line}"
        return RecipeError(f"{at}: {self.name}" if self.name else at, detail)

    def _is(self, kind: type | tuple[type, ...], words: str) -> Any:  # noqa: ANN401
        wrong_bool = isinstance(self.value, bool) and kind is not bool
        if not isinstance(self.value, kind) or wrong_bool:
            raise self.error(f"must be {words}, not {_called(self.value)}")
        return self.value

    def mapping(
        self, required: Iterable[str] = (), optional: Iterable[str] | None = ()
    ) -> dict[str, Item]:
        """`optional` None: any keys."""
        found: dict[str, Item] = self._is(dict, "a mapping")
        for key in required:
            if key not in found:
                raise self.error(f"lacks {key!r}")
        if optional is not None:
            known = [*required, *optional]
            for key, item in found.items():
                if key not in known:
                    raise item.error(f"is not known; there are: {', '.join(known)}")
        return found

    def sequence(self) -> list[Item]:
        found: list[Item] = self._is(list, "a list")
        return found

    def text(self) -> str:
        return str(self._is(str, "text"))

    def texts(self) -> list[str]:
        """One, or a list of them."""
        if isinstance(self.value, str):
            return [self.value]
        return [item.text() for item in self.sequence()]

    def whole(self, least: int = 0) -> int:
        found = int(self._is(int, "a whole number"))
        if found < least:
            raise self.error(f"must be at least {least}")
        return found

    def number(self) -> float:
        return float(self._is((int, float), "a number"))

    def one_of(self, words: Iterable[str]) -> str:
        found, known = self.text(), list(words)
        if found not in known:
            raise self.error(f"{found!r} is none of {', '.join(known)}")
        return found

    def size(self) -> int:
        """Bytes: `512 MiB`, or a number."""
        text = str(self._is((int, str), "a size like 512 MiB"))
        found = _SIZE.fullmatch(text)
        if found is None:
            raise self.error(f"{text!r} is no size like 512 MiB")
        return int(float(found[1]) * _UNITS[found[2]])

    def plain(self) -> Any:  # noqa: ANN401
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


def _called(value: object) -> str:
    if value is None:
        return "nothing"
    return "a mapping" if isinstance(value, dict) else f"{value!r:.60}"


def parse(text: str, file: str) -> Item:
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise RecipeError(file, "is empty")
        return _item(loader, node, file, "")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = file if mark is None else f"{file}:{mark.line + 1}"
        raise RecipeError(where, f"not YAML: {getattr(error, 'problem', error)}") from None
    finally:
        loader.dispose()


def _item(loader: Any, node: Any, file: str, name: str) -> Item:  # noqa: ANN401
    import yaml

    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return Item(dict(_pairs(loader, node, file, name)), file, line, name)
    if isinstance(node, yaml.SequenceNode):
        found = [_item(loader, n, file, f"{name}[{i}]") for i, n in enumerate(node.value)]
        return Item(found, file, line, name)
    return Item(loader.construct_object(node), file, line, name)


def _pairs(
    loader: Any,  # noqa: ANN401
    node: Any,  # noqa: ANN401
    file: str,
    name: str,
) -> Iterator[tuple[str, Item]]:
    seen: set[str] = set()
    for key_node, value_node in node.value:
        # As it is written: YAML takes `on`, the key of a join, for a boolean.
        key = key_node.value
        path = f"{name}.{key}" if name else str(key)
        item = _item(loader, value_node, file, path)
        if not isinstance(key, str) or key in seen:
            here = Item(None, file, key_node.start_mark.line + 1, path)
            raise here.error("is there twice" if isinstance(key, str) else "is no text")
        seen.add(key)
        yield key, Item(item.value, file, key_node.start_mark.line + 1, path)
