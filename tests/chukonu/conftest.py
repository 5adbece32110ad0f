"""Tests of Chukonu need Polars and pyarrow, which not every environment has."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.chukonu import Session

collect_ignore_glob = [] if find_spec("polars") and find_spec("pyarrow") else ["test_*.py"]


@pytest.fixture(scope="session")
def session() -> Iterator[Session]:
    from superfs.chukonu import Session

    with Session.builder.config("chukonu.threads", 2).getOrCreate() as found:
        yield found
