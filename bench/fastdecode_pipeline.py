"""FastDecode's pipeline against its model: balance, R-workers that scale, and the level schedule.

    python bench/fastdecode_pipeline.py [balance] [workers] [schedule] [--rounds 5]

balance   The weights on one processor, an R-worker on the other, contexts so long that a mini-batch
          takes both about as long alone: max(T_S, T_R) of the time that it takes in the pipeline.
workers   R-workers that sleep for so long for each cached token, so that processors do not limit
          them: throughput against the model's max(T_S, W*R/P), and the planner's number of them.
schedule  An engine with and without the level schedule, all sequences of one length: the highest
          load against B(S+F)/2 and B*S. Counts, no times.

Random weights; caches are filled with zeros where only time counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from decoding import TOKENS_MAX, Worker, machine, make_model, memory_of, spread, use

from superfs.core.fastdecode.model import Costs, plan, step_s
from superfs.kvcache.fastdecode.engine import Engine
from superfs.kvcache.fastdecode.link import LocalLink, SharedLink
from superfs.kvcache.fastdecode.placing import EngineConfig
from superfs.kvcache.fastdecode.sampling import Sampling

if TYPE_CHECKING:
    from superfs.kvcache.fastdecode.smodel import SModel

ROWS = 60  # shared evenly by 1 to 6 R-workers
MINIS = 2
STEPS = 8
"""Of a pipeline; at its ends one stage waits for the other, which counts."""


class Pipeline:
    """Two mini-batches through the layers, as the engine does it, and nothing else."""

    def __init__(self, part: SModel, links: list[SharedLink], context: int) -> None:
        self.part, self.links = part, links
        self.each = ROWS // len(links)
        zeros = torch.zeros(context, part.form.kv_heads, part.form.head_dim).to(part.model.dtype)
        for link in links:
            for slot in range(MINIS * self.each):
                for layer in range(part.layers):
                    link.fill(slot, layer, 0, zeros, zeros)
        with torch.inference_mode():
            self.rows = [part.embed([0] * ROWS, [context] * ROWS) for _ in range(MINIS)]
            self.sent = part.before(0, self.rows[0])

    def post(self, mini: int, layer: int, sent: Any) -> None:  # noqa: ANN401
        for number, link in enumerate(self.links):
            mine = slice(number * self.each, (number + 1) * self.each)
            slots = list(range(mini * self.each, (mini + 1) * self.each))
            link.post(mini, layer, slots, *(rows[mine] for rows in sent))

    def take(self, mini: int) -> Any:  # noqa: ANN401
        return torch.cat([link.take(mini)[0] for link in self.links])

    def weights(self, mini: int, layer: int, o: Any) -> Any:  # noqa: ANN401
        self.part.after(layer, self.rows[mini], o)
        return self.part.before((layer + 1) % self.part.layers, self.rows[mini])

    def both_s(self) -> float:
        """Of one layer of one mini-batch, in the pipeline."""
        sent = [self.sent] * MINIS
        posted = [False] * MINIS
        started = time.perf_counter()
        for _ in range(STEPS):
            for layer in range(self.part.layers):
                for mini in range(MINIS):
                    if posted[mini]:
                        before = (layer - 1) % self.part.layers
                        sent[mini] = self.weights(mini, before, self.take(mini))
                    self.post(mini, layer, sent[mini])
                    posted[mini] = True
        for mini in range(MINIS):
            self.weights(mini, self.part.layers - 1, self.take(mini))
        return (time.perf_counter() - started) / (STEPS * self.part.layers * MINIS)

    def weights_s(self) -> float:
        started = time.perf_counter()
        for _ in range(STEPS):
            for layer in range(self.part.layers):
                self.weights(0, layer, self.sent[0])
        return (time.perf_counter() - started) / (STEPS * self.part.layers)

    def attention_s(self) -> float:
        """With the way there and back."""
        started = time.perf_counter()
        for _ in range(STEPS):
            for layer in range(self.part.layers):
                self.post(0, layer, self.sent)
                self.take(0)
        return (time.perf_counter() - started) / (STEPS * self.part.layers)


def opened(part: SModel, worker: Worker, count: int) -> SharedLink:
    return SharedLink(
        worker.path, part.form, rows=ROWS // count, minis=MINIS, slots=MINIS * ROWS // count,
        tokens_max=TOKENS_MAX,
    )  # fmt: skip


def room_for(part: SModel, context: int, rounds: int) -> int:
    return memory_of(part.form, MINIS * ROWS, context + 3 * STEPS * (rounds + 2))


def balance(args: argparse.Namespace) -> None:
    use({0})
    part = make_model(args.hidden, args.layers, args.kv_heads, args.dtype)
    context = 256
    for attempt in range(3):  # the first ones find the context
        with tempfile.TemporaryDirectory() as room, torch.inference_mode():
            worker = Worker(Path(room) / "r", room_for(part, context, args.rounds), {1})
            link = opened(part, worker, 1)
            pipeline = Pipeline(part, [link], context)
            found = [
                (pipeline.weights_s(), pipeline.attention_s(), pipeline.both_s())
                for _ in range(args.rounds + 1)
            ][1:]
            link.close()
            worker.close()
        t_s, t_r = (statistics.median(each[n] for each in found) for n in (0, 1))
        if attempt < 2:
            context = min(TOKENS_MAX // 2, max(64, round(context * t_s / t_r)))
    shares = [max(s, r) / both for s, r, both in found]
    print(
        f"balance: {ROWS} rows a mini-batch, {context} tokens each; alone T_S {1e3 * t_s:.2f} ms, "
        f"T_R {1e3 * t_r:.2f} ms; max(T_S, T_R) / step: {spread(shares)}", flush=True,
    )  # fmt: skip


def costs_of(part: SModel, context: int) -> Costs:
    """T_S measured; R such that four R-workers are balance."""
    took = []
    with torch.inference_mode():
        rows = part.embed([0] * ROWS, [0] * ROWS)
        q, _, _ = part.before(0, rows)
        for number in range(6 * part.layers):
            started = time.perf_counter()
            part.after(number % part.layers, rows, q)
            part.before((number + 1) % part.layers, rows)
            took.append(time.perf_counter() - started)
    t_s = statistics.median(took)
    return Costs(part.layers, {ROWS: t_s}, 4 * t_s / (ROWS * context), TOKENS_MAX * ROWS)


def workers(args: argparse.Namespace) -> None:
    use({0})
    part = make_model(args.hidden, args.layers, args.kv_heads, args.dtype)
    start = 512
    context = start + STEPS * (args.rounds + 2) // 2  # on the average of the rounds
    costs = costs_of(part, context)
    rates: dict[int, float] = {}
    for count in (1, 2, 3, 4, 5, 6):
        with tempfile.TemporaryDirectory() as room, torch.inference_mode():
            each = [
                Worker(
                    Path(room) / str(n),
                    room_for(part, start, args.rounds) // count,
                    {1},
                    costs.r_part_s,
                )
                for n in range(count)
            ]
            links = [opened(part, worker, count) for worker in each]
            pipeline = Pipeline(part, links, start)
            pipeline.both_s()
            took = [pipeline.both_s() for _ in range(args.rounds)]
            for link in links:
                link.close()
            for worker in each:
                worker.close()
        law = step_s(costs, ROWS, 2 * context, count)
        rates[count] = ROWS / part.layers / statistics.median(took)
        print(
            f"workers: {count}: {rates[count]:.0f} tokens/s, "
            f"{spread([law / each for each in took])} of the model's "
            f"{ROWS / part.layers / law:.0f}", flush=True,
        )  # fmt: skip
    enough = next(count for count, rate in rates.items() if rate >= 0.95 * max(rates.values()))
    print(
        f"workers: the planner takes {plan(costs, 2 * context).workers}; {enough} are the fewest "
        f"within 5% of the best; T_S {1e3 * costs.s_part_s[ROWS]:.2f} ms", flush=True,
    )  # fmt: skip


def schedule(args: argparse.Namespace) -> None:
    part = make_model(64, 1, 1, "float32")
    batch, length, interval = 64, 128, 16
    for levelled in (True, False):
        link = LocalLink(
            part.form, rows=batch, minis=1, slots=batch, tokens_max=length + 64,
            memory_bytes=64 << 20,
        )  # fmt: skip
        config = EngineConfig(
            batch=batch, minis=1, tokens_max=length + 64,
            level_length=length if levelled else 0, level_interval=interval if levelled else 0,
        )  # fmt: skip
        with Engine(part, [link], config) as engine:
            for _ in range(4 * batch):
                engine.submit([1], Sampling(max_tokens=length, ignore_eos=True))
            engine.run()
        peak = engine.figures.load_tokens_max
        law = batch * (length + interval) / 2
        name = "with the schedule" if levelled else "all at once"
        print(
            f"schedule: {name}: at most {peak} tokens, B(S+F)/2 is {law:.0f} ({peak / law:.3f}), "
            f"B*S {batch * length} ({peak / (batch * length):.3f})", flush=True,
        )  # fmt: skip


ARMS = {"balance": balance, "workers": workers, "schedule": schedule}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arms", nargs="*", metavar="|".join(ARMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    if unknown := set(args.arms) - set(ARMS):
        parser.error(f"{', '.join(unknown)}: there are {', '.join(ARMS)}")
    print(machine(args))
    for arm in args.arms or ARMS:
        ARMS[arm](args)


if __name__ == "__main__":
    main()
