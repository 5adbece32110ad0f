"""The S-worker: continuous batches through the weights, attention elsewhere.

    links = [SharedLink(path, part.form, …) for path in sockets]
    with Engine(part, links, EngineConfig(batch=128)) as engine:
        request = engine.submit(prompt, Sampling(max_tokens=64))
        engine.run()
        request.generated

Two mini-batches take turns: while the R-workers attend one, the weights are at the other. What an
R-worker had that is lost is computed again elsewhere, and goes on where it was. One thread calls.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from superfs.core.errors import Code, FsError
from superfs.kvcache.fastdecode.entering import Waiting
from superfs.kvcache.fastdecode.placing import EngineConfig, Mini, Place, Placing
from superfs.kvcache.fastdecode.requests import Request
from superfs.kvcache.fastdecode.returning import Returning, Watched
from superfs.kvcache.fastdecode.sampling import Choice, Sampling, choose
from superfs.kvcache.fastdecode.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.kvcache.fastdecode.entering import Entering
    from superfs.kvcache.fastdecode.link import Link
    from superfs.kvcache.fastdecode.pool import Pool
    from superfs.kvcache.fastdecode.requests import Decode
    from superfs.kvcache.fastdecode.smodel import SModel


@dataclass(slots=True)
class Figures:
    steps: int = 0  # of any mini-batch
    decoded_tokens: int = 0
    prefilled_tokens: int = 0
    restored_tokens: int = 0  # of prompts, from the KVCache pool
    computed_again: int = 0  # sequences whose cache was lost
    load_tokens_max: int = 0  # in all R-workers together
    waited_s: float = 0.0  # for R-workers


@dataclass(slots=True)
class _Group:
    """The rows of one step that one R-part attends."""

    place: Place
    slots: list[int]
    rows: torch.Tensor | None  # which; None: all


@dataclass(slots=True)
class _State:
    mini: Mini
    turns: Iterator[bool]
    entering: Entering | None = None
    groups: list[_Group] = field(default_factory=list)


class Engine:
    def __init__(
        self, part: SModel, links: Sequence[Link], config: EngineConfig, *,
        ends: Sequence[int] = (), decode: Decode | None = None, pool: Pool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        """The links, and the pool, are the engine's to close. `ends`: tokens that end a sequence.
        `decode`: text of tokens, for stop strings. INVALID: a pool of other chunks."""
        if pool is not None and pool.stores and pool.chunk_tokens != config.chunk_tokens:
            raise FsError(
                Code.INVALID, f"the pool has chunks of {pool.chunk_tokens} tokens, and "
                f"chunk_tokens is {config.chunk_tokens}",
            )  # fmt: skip
        self.part = part
        self.config = config
        self.figures = Figures()
        self.placing = Placing(config, links)
        self._weights = Weights(part, config.threads)
        self._returning = Returning(self.placing, clock)
        self._ends = frozenset(ends)
        self._decode = decode
        self._clock = clock
        self._open: dict[int, Request] = {}
        self._pool = pool
        self._waiting = Waiting(part, self.placing, pool, self._forget)
        self._next = 0
        self._states = [_State(mini, iter(())) for mini in self.placing.minis]
        for state in self._states:
            state.turns = self._turns(state)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._weights.close()
        self._returning.close()
        self._waiting.clear()
        if self._pool is not None:
            self._pool.close()
        for place in self.placing.places:
            if not place.lost:
                place.link.close()

    # ---- what is asked

    def submit(self, prompt: Sequence[int], sampling: Sampling) -> Request:
        """INVALID: an empty prompt, tokens that the model does not know, too many. NO_SPACE: no
        R-worker could ever hold it."""
        tokens = [int(token) for token in prompt]
        vocabulary = self.part.config.vocab_size
        if not tokens or min(tokens) < 0 or max(tokens) >= vocabulary:
            raise FsError(
                Code.INVALID, f"a prompt has at least one token, each from 0 to {vocabulary - 1}"
            )
        if sampling.stop and self._decode is None:
            raise FsError(Code.INVALID, "stop strings need an engine with a tokenizer")
        request = Request(self._next, len(tokens), sampling, tokens)
        self._returning.look()  # nobody may have called for long
        self.placing.check(request)
        self._next += 1
        self._open[request.number] = request
        self._waiting.add(request)
        return request

    @property
    def open_requests(self) -> int:
        return len(self._open)

    def run(self) -> None:
        """Until nothing is left to do."""
        while self.advance():
            pass

    def stream(self, request: Request) -> Iterator[int]:
        """Its tokens as they come; the other requests go on meanwhile."""
        told = request.prompt_tokens
        while True:
            while told < len(request.tokens):
                told += 1
                yield request.tokens[told - 1]
            if request.finish:
                break
            self.advance()
        if request.error is not None:
            raise request.error

    def advance(self) -> bool:
        """One layer of each mini-batch, or what is between two steps. False: nothing is left."""
        with torch.inference_mode():
            for state in self._states:
                next(state.turns)
            if self._waiting and not any(mini.size for mini in self.placing.minis):
                self._waiting.idle()
        if self._open and all(place.lost for place in self.placing.places):
            self._fail(FsError(Code.UNAVAILABLE, "every R-worker is lost"))
        return bool(self._open)

    # ---- steps

    def _turns(self, state: _State) -> Iterator[bool]:
        """Endless: yields whenever o is awaited, and when there is nothing to do."""
        mini = state.mini
        while True:
            self._between(state)
            if not mini.requests:
                yield False
                continue
            requests = list(mini.requests)
            state.groups = _groups(requests, self.part.device)
            refused: set[int] = set()
            computed = self._weights.first(
                [r.tokens[-1] for r in requests], [len(r.tokens) - 1 for r in requests]
            )
            for layer in range(self.part.layers):
                if not computed.done():
                    yield True  # meanwhile another mini-batch is served
                ready = computed.result()
                assert ready.sent is not None
                for group in state.groups:
                    self._post(group, mini, layer, *ready.sent)
                yield True
                o = self._attended(state, ready.sent[0], refused)
                computed = self._weights.next(layer, ready.rows, o)
            if not computed.done():
                yield True
            self._decoded(state, requests, computed.result().logits, refused)

    def _post(
        self, group: _Group, mini: Mini, layer: int, q: torch.Tensor, k: torch.Tensor,
        v: torch.Tensor,
    ) -> None:  # fmt: skip
        if group.place.lost:
            return
        if group.rows is not None:
            q, k, v = (t.index_select(0, group.rows) for t in (q, k, v))
        with Watched(group.place):
            group.place.link.post(mini.number, layer, group.slots, q, k, v)

    def _attended(self, state: _State, q: torch.Tensor, refused: set[int]) -> torch.Tensor:
        """Rows whose R-worker is lost go on with zeros, disturb nobody, and are thrown away."""
        o = torch.zeros_like(q) if any(g.place.lost for g in state.groups) else torch.empty_like(q)
        started = self._clock()
        for group in state.groups:
            if group.place.lost:
                continue
            with Watched(group.place):
                found, without = group.place.link.take(state.mini.number)
                which = group.rows if group.rows is not None else torch.arange(len(found))
                o[which] = found.to(o.device)
                refused.update(which[without].tolist())
            if group.place.lost:
                o[group.rows if group.rows is not None else slice(None)] = 0
        self.figures.waited_s += self._clock() - started
        return o

    def _decoded(
        self, state: _State, requests: list[Request], logits: torch.Tensor | None,
        refused: set[int],
    ) -> None:  # fmt: skip
        assert logits is not None
        mini = state.mini
        mini.step += 1
        self.figures.steps += 1
        best = logits.argmax(-1).tolist()
        for row, request in enumerate(requests):
            assert request.place is not None
            if request.place.lost or row in refused:
                self._again(mini, request)
                continue
            self.figures.decoded_tokens += 1
            self._accept(request, best[row], logits[row])
        self._measure(mini)

    def _accept(self, request: Request, best: int, logits: torch.Tensor) -> None:
        if request.sampling.plain:
            choice = Choice(best)
        else:
            choice = choose(logits, request.sampling, request.tokens, request.prompt_tokens)
        request.accept(choice, self._ends, self._decode)

    def _measure(self, mini: Mini) -> None:
        mini.load_tokens_max = sum(len(r.tokens) - 1 for r in mini.requests)
        whole = sum(m.load_tokens_max for m in self.placing.minis)
        self.figures.load_tokens_max = max(self.figures.load_tokens_max, whole)

    # ---- between two steps

    def _between(self, state: _State) -> None:
        mini = state.mini
        self._returning.look()
        for place in self.placing.places:
            if not place.lost:
                with Watched(place):
                    place.link.keep_alive()
        for request in list(mini.requests):
            assert request.place is not None
            if request.cancelled and not request.finish:
                request.finish = "cancelled"
            if request.finish:
                mini.requests.remove(request)
                self._end(request)
            elif request.place.lost:
                self._again(mini, request)
        if state.entering is None:
            state.entering = self._waiting.start(mini)
        if state.entering is not None:
            self._enter(state, state.entering)

    def _enter(self, state: _State, entering: Entering) -> None:
        logits = entering.advance()
        if logits is None and not entering.refused:
            return
        state.entering = None
        mini = state.mini
        for number, request in enumerate(entering.requests):
            mini.entering.remove(request)
            assert request.place is not None
            if request.place.lost or number in entering.refused or logits is None:
                mini.requests.append(request)
                self._again(mini, request)
                continue
            self.figures.prefilled_tokens += len(request.tokens) - entering.restored_tokens
            self.figures.restored_tokens += entering.restored_tokens
            self._accept(request, int(logits[number].argmax()), logits[number])
            mini.requests.append(request)
            if request.finish:
                mini.requests.remove(request)
                self._end(request)

    def _again(self, mini: Mini, request: Request) -> None:
        """Its keys and values are lost: it is computed again, first of all that wait."""
        mini.requests.remove(request)
        self._free(request)
        request.computed_again += 1
        self.figures.computed_again += 1
        self._waiting.add(request, first=True)

    def _end(self, request: Request) -> None:
        self._free(request)
        self._forget(request)

    def _forget(self, request: Request) -> None:
        del self._open[request.number]

    def _free(self, request: Request) -> None:
        place, slot = request.place, request.slot
        assert place is not None
        self.placing.leave(request)
        if not place.lost:
            with Watched(place):
                place.link.free([slot])

    def _fail(self, error: FsError) -> None:
        for request in list(self._open.values()):
            request.finish, request.error = "failed", error
            if request.place is not None:
                self.placing.leave(request)
        for mini in self.placing.minis:
            mini.requests.clear()
            mini.entering.clear()
        for state in self._states:
            state.entering = None
            state.turns = self._turns(state)
        self._waiting.clear()
        self._open.clear()


def _groups(requests: Sequence[Request], device: torch.device) -> list[_Group]:
    found: dict[Place, list[int]] = {}
    for row, request in enumerate(requests):
        assert request.place is not None
        found.setdefault(request.place, []).append(row)
    whole = len(found) == 1
    return [
        _Group(
            place,
            [requests[row].slot for row in rows],
            None if whole else torch.tensor(rows, device=device),
        )
        for place, rows in found.items()
    ]
