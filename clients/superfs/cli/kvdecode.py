"""`superfs kv plan` and `superfs kv generate`: FastDecode on the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from superfs.cli.options import (
    ClusterOption,
    DirOption,
    JsonOption,
    Target,
    TokenOption,
    target_of,
)
from superfs.cli.output import EXIT_USAGE, CliError, console, print_json, say
from superfs.core.errors import FsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.core.fastdecode.model import Plan
    from superfs.kvcache.fastdecode.batch import Loaded, Where
    from superfs.kvcache.fastdecode.sampling import Sampling

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A directory with a saved model.")]
Storage = Annotated[
    str,
    typer.Option("--storage", help="Of keys and values: float32, bfloat16, float16 or int8."),
]
Memory = Annotated[int, typer.Option("--memory", metavar="BYTES", help="For keys and values.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="That attend; 0: all.")]
PLANNED_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def plan(
    model: Model,
    length: Annotated[int, typer.Option("--length", min=1, help="Tokens of a sequence.")],
    latency: Annotated[
        float, typer.Option("--latency", metavar="S", help="Seconds that a sequence may take.")
    ] = math.inf,
    memory: Memory = 1 << 30,
    threads: Threads = 0,
    storage: Storage = "",
    as_json: JsonOption = False,
) -> None:
    """How many sequences, and how many R-workers like this machine, by measuring here."""
    with _told():
        from superfs.core.fastdecode.model import plan as planned
        from superfs.kvcache.fastdecode.measure import measure
        from superfs.kvcache.fastdecode.smodel import SModel

        part = SModel(_load(model).model, storage=storage)
        costs = measure(
            part, batches=PLANNED_BATCHES, length=length, memory_bytes=memory,
            threads=threads or len(os.sched_getaffinity(0)),
        )  # fmt: skip
        found = planned(costs, length, latency_s=latency)
    if as_json:
        print_json(
            dataclasses.asdict(found) | {"sequences": found.sequences}
            | {"costs": dataclasses.asdict(costs)}
        )  # fmt: skip
        return
    from rich.table import Table

    table = Table("mini-batch", "T(B), ms a layer", "rows a second", box=None)
    for batch, seconds in costs.s_part_s.items():
        table.add_row(str(batch), f"{1000 * seconds:.3f}", f"{batch / seconds / part.layers:,.0f}")
    console().print(table)
    say(f"R: {1e9 * costs.r_part_s:.2f} ns for a cached token in a layer, of one R-worker")
    say(f"C: {costs.capacity_tokens:,} tokens in one R-worker")
    _show(found)


def _show(found: Plan) -> None:
    say(
        f"\n{found.sequences} sequences in two mini-batches of {found.mini_batch}, "
        f"{found.workers} R-workers\n"
        f"{found.tokens_per_s:,.0f} tokens a second; a token takes "
        f"{1000 * found.token_latency_s:.1f} ms, a sequence {found.sequence_latency_s:.2f} s\n"
        f"what binds: {found.binds}"
    )


def generate(
    model: Model,
    prompt_file: Annotated[
        Path,
        typer.Option(
            "--prompt-file", help='A prompt a line: text, {"prompt": …} or {"tokens": […]}.'
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", help="A line of JSON for each; else to stdout.")
    ] = None,
    rworkers: Annotated[
        list[str] | None,
        typer.Option(
            "--rworker", metavar="SOCKET|HOST:PORT", help="Repeatable; none: in this process."
        ),
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option("--secret-file", help="Of R-workers on other hosts.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Sequences at a time.")] = 64,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1)] = 128,
    temperature: Annotated[float, typer.Option("--temperature", help="0: greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option("--top-k", help="0: all.")] = 0,
    top_p: Annotated[float, typer.Option("--top-p")] = 1.0,
    min_p: Annotated[float, typer.Option("--min-p")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option("--repetition-penalty")] = 1.0,
    presence_penalty: Annotated[float, typer.Option("--presence-penalty")] = 0.0,
    frequency_penalty: Annotated[float, typer.Option("--frequency-penalty")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the first prompt; then counted.")] = 0,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="Repeatable.")] = None,
    logprobs: Annotated[int, typer.Option("--logprobs", help="-1: none.")] = -1,
    local_share: Annotated[
        float, typer.Option("--local-share", help="Of the sequences, that stay in this process.")
    ] = 0.0,
    memory: Memory = 0,
    threads: Threads = 1,
    storage: Storage = "",
    device: Annotated[str, typer.Option("--device", help="Of the weights.")] = "cpu",
    pool: Annotated[
        str, typer.Option("--pool", metavar="NAME", help="Prompts are restored from this "
        "namespace of the cluster's KVCache pool, and stored there.")
    ] = "",
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
) -> None:  # fmt: skip
    """Answers a file of prompts, many at a time."""
    with _told():
        from superfs.kvcache.fastdecode import batch as batches
        from superfs.kvcache.fastdecode.sampling import Sampling

        first = Sampling(
            max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty, seed=seed, stop=tuple(stop or ()),
            logprobs=logprobs,
        )  # fmt: skip
        where = batches.Where(
            rworkers or [], storage, memory, local_share, max(1, threads), secret_file
        )
        found = (pool, target_of(directory, cluster, token_file)) if pool else None
        _generate(_load(model, device), prompt_file, where, found, first, batch, output)


def _generate(
    loaded: Loaded, prompt_file: Path, where: Where, pool: tuple[str, Target] | None,
    first: Sampling, batch: int, output: Path | None,
) -> None:  # fmt: skip
    from superfs.client import ClientConfig
    from superfs.kvcache.fastdecode import batch as batches

    prompts = batches.read_prompts(prompt_file, loaded)
    longest = max(map(len, prompts)) + first.max_tokens
    each = [dataclasses.replace(first, seed=first.seed + n) for n in range(len(prompts))]
    failed = 0
    with contextlib.ExitStack() as opened:
        store = None
        if pool is not None:
            name, target = pool
            config = ClientConfig(cluster=target.cluster, token_file=target.token_file)
            store = opened.enter_context(batches.open_store(loaded, name, config))
        engine = opened.enter_context(
            batches.engine_of(
                loaded, where, batch=min(batch, len(prompts)), tokens_max=longest, store=store
            )
        )
        into = sys.stdout if output is None else opened.enter_context(output.open("w"))
        told = opened.enter_context(_bar(len(prompts)))
        for number, request in batches.generate(engine, prompts, each, told):
            failed += request.finish == "failed"
            _write(into, batches.as_dict(number, request, loaded))
    if failed:
        raise CliError(f"{failed} of {len(prompts)} prompts failed", hint="see their errors")


def _load(directory: Path, device: str = "cpu") -> Loaded:
    from transformers.utils.logging import disable_progress_bar

    from superfs.kvcache.fastdecode import batch as batches

    disable_progress_bar()
    return batches.load(directory, device)


def _write(target: TextIO, line: dict[str, Any]) -> None:
    target.write(json.dumps(line, ensure_ascii=False) + "\n")
    target.flush()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors of the engine, and packages that are not there, in words."""
    try:
        yield
    except FsError as error:
        raise CliError(error.detail or str(error), status=EXIT_USAGE) from None
    except OSError as error:
        raise CliError(str(error)) from None
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("superfs"):
            raise
        raise CliError(
            f"{error.name} is not installed", hint="pip install 'superfs[fastdecode]'"
        ) from None


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int, int], None]]:
    """On standard error, where a person looks at it."""
    if not sys.stderr.isatty():
        yield lambda _ended, _tokens: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.completed} of {task.total}"), BarColumn(),
        TextColumn("{task.fields[tokens]} tokens"), TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as screen:  # fmt: skip
        task = screen.add_task("", total=total, tokens=0)
        yield lambda ended, tokens: screen.update(task, completed=ended, tokens=tokens)
