"""The table of functions: what each takes, what it gives, its kernel. All else is refused."""

from __future__ import annotations

from superfs.chukonu.catalog import (
    arrays,
    conditions,
    dates,
    decimals,
    maps,
    moments,
    numbers,
    strings,
)
from superfs.chukonu.catalog.aggregates import AGGREGATES
from superfs.chukonu.catalog.base import FUNCTIONS, Function

__all__ = ["AGGREGATES", "FUNCTIONS", "Function", "arrays", "conditions", "dates", "numbers"]
__all__ += ["decimals", "maps", "moments", "strings"]
