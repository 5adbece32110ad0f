"""`superfs kv`: what a KVCache pool keeps of a trace of requests; and decoding (`kvdecode`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from superfs.cli import kvdecode
from superfs.cli.options import (
    ClusterOption,
    DirOption,
    JsonOption,
    TokenOption,
    target_of,
)
from superfs.cli.output import EXIT_USAGE, CliError, console, print_json

if TYPE_CHECKING:
    from superfs.kvcache.simulate import Mode

app = typer.Typer(no_args_is_help=True, help="The KVCache pool, and decoding near the cache.")
app.command("plan")(kvdecode.plan)
app.command("generate")(kvdecode.generate)

Trace = Annotated[Path, typer.Argument(metavar="TRACE", help="A trace of Mooncake's form.")]
Policies = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="P", help="lru, lfu, length-aware, fifo, s3-fifo or hazard."),
]
Capacities = Annotated[
    list[int] | None,
    typer.Option("--capacity", metavar="N", help="Blocks that fit; repeatable.", min=1),
]
ModeOption = Annotated[
    str,
    typer.Option(
        "--mode",
        help="leaf-first: no parent goes before its child, as in the pool. reference: as the "
        "literature simulates.",
    ),
]


@app.command("replay")
def replay(
    trace: Trace,
    policies: Policies = None,
    capacities: Capacities = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Without a pool: no cluster is needed.")
    ] = False,
    mode: ModeOption = "leaf-first",
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="A picture, too: .svg, .png or .pdf."),
    ] = None,
    as_json: JsonOption = False,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:
    """Hit rates of a trace for each policy and capacity, on the pool or by simulation."""
    from superfs.kvcache.simulate import MODES
    from superfs.kvcache.simulate import simulate as simulated
    from superfs.kvcache.trace import read_trace

    if mode not in MODES:
        raise CliError(f"--mode must be one of {', '.join(MODES)}", status=EXIT_USAGE)
    checked: Mode = "reference" if mode == "reference" else "leaf-first"
    if not simulate and checked != "leaf-first":
        raise CliError(f"--mode {mode} needs --simulate", status=EXIT_USAGE)
    if plot is not None:
        from superfs.kvcache.plots import check_form

        check_form(plot)
    requests = read_trace(trace)
    wanted = [(p, c) for c in capacities or [10_000] for p in _known(policies or ["lru"])]
    rows: list[dict[str, Any]] = []
    if simulate:
        for policy, capacity in wanted:
            rows.append(simulated(requests, policy, capacity, checked).as_dict())
    else:
        from superfs.client import ClientConfig
        from superfs.kvcache.replay import replay as replayed

        target = target_of(directory, cluster, token_file)
        config = ClientConfig(cluster=target.cluster, token_file=target.token_file)
        for policy, capacity in wanted:
            rows.append(replayed(config, requests, policy, capacity).as_dict())
    if plot is not None:
        from superfs.kvcache.plots import plot as plotted

        plotted(rows, trace.stem, plot)
    _show(rows, as_json=as_json)


def _known(policies: list[str]) -> list[str]:
    from superfs.core.kvcache.policy import POLICIES

    for policy in policies:
        if policy not in POLICIES:
            words = ", ".join(POLICIES)
            raise CliError(f"no policy {policy!r}; there are: {words}", status=EXIT_USAGE)
    return policies


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(rows[0] if len(rows) == 1 else rows)
        return
    from rich.table import Table

    from superfs.kvcache.published import table_1

    table = Table("policy", "mode", box=None)
    for name in ("blocks", "prefix hits", "block hits", "token hits", "Table 1"):
        table.add_column(name, justify="right")
    for row in rows:
        rates = [row[f"{kind}_hit_rate"] for kind in ("prefix", "block", "token")]
        paper = table_1(row["policy"], row["capacity_blocks"])
        cells = [*(f"{rate:.4f}" for rate in rates), f"{paper:.2f}" if paper is not None else ""]
        table.add_row(row["policy"], row["mode"], f"{row['capacity_blocks']:,}", *cells)
    console().print(table)
