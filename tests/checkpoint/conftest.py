"""Tests of checkpoints need PyTorch, which not every environment has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.ranks import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    pytest.importorskip("torch", reason="PyTorch is an extra: make .venv/.test")
    from harness.ranks import Ranks

    found = Ranks()
    yield found
    found.close()
