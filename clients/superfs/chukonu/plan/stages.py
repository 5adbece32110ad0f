"""Cutting a plan into stages: between two wide dependencies everything is one fused segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.chukonu.plan import logical as p

if TYPE_CHECKING:
    from superfs.chukonu.expressions import Ref


@dataclass(frozen=True)
class Stage:
    """`root` gives partitions (a scan, local rows, or a wide node over `inputs`); `steps` are
    applied to each of them in one go."""

    root: p.Node
    steps: tuple[p.Node, ...]
    inputs: tuple[Stage, ...]

    @property
    def output(self) -> tuple[Ref, ...]:
        return (self.steps[-1] if self.steps else self.root).output


def cut(node: p.Node) -> Stage:
    steps: list[p.Node] = []
    while not isinstance(node, (p.Scan, p.Local, *p.WIDE)):
        steps.append(node)
        node = node.children[0]
    return Stage(node, tuple(reversed(steps)), tuple(cut(child) for child in node.children))
