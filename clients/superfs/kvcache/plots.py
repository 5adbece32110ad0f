"""Hit rates by capacity as a picture, beside those of the literature (published.py). Needs
matplotlib (`pip install 'superfs[plot]'`)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from superfs.core.errors import Code, FsError
from superfs.kvcache.published import TABLE_1

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMS = (".svg", ".png", ".pdf")


def check_form(path: Path) -> None:
    """INVALID: no picture that can be made; NOT_SUPPORTED: nothing here makes any."""
    if path.suffix not in FORMS:
        raise FsError(Code.INVALID, f"{path}: a picture ends in {', '.join(FORMS)}")
    try:
        import matplotlib  # noqa: F401 - whether there is one
    except ImportError:
        raise FsError(
            Code.NOT_SUPPORTED, "pictures need matplotlib: pip install 'superfs[plot]'"
        ) from None


def plot(rows: Sequence[dict[str, Any]], trace: str, path: Path) -> None:
    """`rows`: of `Rates.as_dict`; a line for each policy and mode, prefix hits by capacity."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "superfs"  # the same picture of the same numbers
    from matplotlib import pyplot

    lines: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        lines[row["policy"], row["mode"]][row["capacity_blocks"]] = row["prefix_hit_rate"]
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    colours: dict[str, Any] = {}
    for (policy, mode), rates in lines.items():
        places = sorted(rates)
        (line,) = axes.plot(
            places, [rates[n] for n in places], marker="o", label=f"{policy}, {mode}",
            color=colours.get(policy), alpha=0.6 if mode == "reference" else 1.0,
        )  # fmt: skip
        colours.setdefault(policy, line.get_color())
    for policy, published in TABLE_1.items():
        if policy in colours:
            places = sorted(published)
            axes.plot(
                places, [published[n] for n in places], linestyle=":", color=colours[policy],
                label=f"{policy}, Mooncake's Table 1 (another trace)",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set(xlabel="capacity, blocks of 512 tokens", ylabel="prefix hits, of all blocks")
    axes.set_title(trace)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
