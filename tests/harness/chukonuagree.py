"""What Spark answered (tests/golden), and whether another answer is the same."""

from __future__ import annotations

import json
import math
from typing import Any

from harness import chukonuspark

REFUSALS = ("CHUKONU_UNSUPPORTED", "CHUKONU_DATE_RANGE", "DATATYPE_MISMATCH")
GOLDEN = json.loads(chukonuspark.GOLDEN.read_text())


def close(one: Any, other: Any) -> bool:  # noqa: ANN401
    if isinstance(one, dict) and isinstance(other, dict) and "f" in one and "f" in other:
        a, b = float(one["f"]), float(other["f"])
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-300)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    return type(one) is type(other) and bool(one == other)


def rounded(value: Any) -> str:  # noqa: ANN401
    """A key that equal rows share, to sort by; -0.0 and 0.0 are equal."""
    if isinstance(value, dict) and "f" in value:
        return f"{float(value['f']) + 0.0:.6g}"
    if isinstance(value, (list, dict)):
        inner = value.values() if isinstance(value, dict) else value
        return f"[{','.join(map(rounded, inner))}]"
    return json.dumps(value)


def agree(spark: dict[str, Any], ours: dict[str, Any]) -> None:
    if ours.get("error") in REFUSALS:
        return
    if "error" in spark or "error" in ours:
        assert ours.get("error") == spark.get("error"), (spark, ours)
        return
    assert ours["schema"] == spark["schema"]
    mine, theirs = (sorted(x["rows"], key=rounded) for x in (ours, spark))
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert close(a, b), (b, a)
