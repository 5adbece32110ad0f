"""Distributed checkpoints for torch.distributed.checkpoint: every rank writes its own, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.checkpoint.directory import committed

if TYPE_CHECKING:
    from superfs.checkpoint.planner import BalancedSavePlanner
    from superfs.checkpoint.reader import SuperFSReader
    from superfs.checkpoint.writer import SuperFSWriter

__all__ = ["BalancedSavePlanner", "SuperFSReader", "SuperFSWriter", "committed"]


def __getattr__(name: str) -> object:
    """What needs PyTorch is imported when it is asked for: the writer process and the command line
    do without."""
    if name == "SuperFSWriter":
        from superfs.checkpoint.writer import SuperFSWriter

        return SuperFSWriter
    if name == "SuperFSReader":
        from superfs.checkpoint.reader import SuperFSReader

        return SuperFSReader
    if name == "BalancedSavePlanner":
        from superfs.checkpoint.planner import BalancedSavePlanner

        return BalancedSavePlanner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
