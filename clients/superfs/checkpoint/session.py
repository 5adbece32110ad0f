"""What the saves of one process group share: a group of its own, remembered plans, the arena.

One `Session` per process group and process, found again by every writer (`of`) and closed at exit.
All ranks call the same methods in the same order; what fails on one rank is told to all before any
of them waits for another.
"""

from __future__ import annotations

import atexit
import datetime
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from superfs.checkpoint import agreement, holdings, plan, steps
from superfs.checkpoint.agreement import Agreed, Details, Record
from superfs.checkpoint.limits import PLANS_CACHED_MAX
from superfs.checkpoint.plan import Piece, Plan
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.checkpoint.courier import Courier
    from superfs.checkpoint.describe import Local
    from superfs.checkpoint.extentio import ExtentIO

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Remembered:
    pieces: list[Piece]
    plan: Plan | None  # on the coordinator
    groups: list[tuple[int, ...]]  # the ranks of each description, there too
    paths: dict[str, list[str | int]]


@dataclass(slots=True)
class Outcome:
    """A save as agreed: what this rank writes."""

    remembered: Remembered
    objects: tuple[str, ...]  # of what several hold, those that this rank writes


class Flight:
    """A save that has been staged and is being written. It is over when it says so, or when the
    thread that writes it has ended; only then is DCP's group free for another."""

    STARTING_S = 60.0

    def __init__(self, after: Flight | None = None) -> None:
        """`after`: the one that it was skipped for, and that has DCP's group until it is over."""
        self._after = after
        self.done = threading.Event()
        self._thread: threading.Thread | None = None
        self._started = threading.Event()

    def runs_here(self) -> None:
        self._thread = threading.current_thread()
        self._started.set()
        if self._after is not None:
            self._after.join()
            self._after = None

    def end(self) -> None:
        """Written, failed or given up, begun or not."""
        self.done.set()
        self._started.set()

    @property
    def over(self) -> bool:
        return self.done.is_set() or (self._thread is not None and not self._thread.is_alive())

    def wait(self) -> None:
        if not self._started.wait(self.STARTING_S):
            self.end()  # whoever was to write it has given up
        while not self.over:
            self.done.wait(0.02)

    def join(self) -> None:
        self.wait()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


class Session:
    def __init__(self, group: dist.ProcessGroup | None, *, timeout_s: float) -> None:
        self.rank, self.world_size = 0, 1
        self._group: Any = None
        self.ranks = [dist.get_rank()] if dist.is_initialized() else [0]  # of the whole world
        if group is not None:
            self.rank, self.world_size = dist.get_rank(group), dist.get_world_size(group)
            self.ranks = dist.get_process_group_ranks(group)
            self._group = dist.new_group(
                self.ranks,
                backend="gloo",
                timeout=datetime.timedelta(seconds=timeout_s),
                use_local_synchronization=group is not dist.group.WORLD,
            )
        self.neighbours = self.everybody(_machine()).count(_machine())  # on it, this one included
        self._plans: OrderedDict[bytes, Remembered] = OrderedDict()
        self._saves = 0
        self._pid = os.getpid()
        self.flight: Flight | None = None
        self.courier: Courier | None = None
        self.unfinished: tuple[ExtentIO, str] | None = None  # the coordinator's attempt
        self.statistics = {"plans_made": 0, "plans_remembered": 0}

    # ---- collectives: every rank calls them, in the same order --------------------------------

    def records(self, mine: bytes) -> list[bytes]:
        """The same number of bytes from everybody."""
        if self._group is None:
            return [mine]
        sent = torch.frombuffer(bytearray(mine), dtype=torch.uint8)
        found = [torch.empty_like(sent) for _ in range(self.world_size)]
        dist.all_gather(found, sent, group=self._group)
        return [bytes(one.numpy()) for one in found]

    def gather(self, mine: Any) -> list[Any] | None:  # noqa: ANN401
        """To the coordinator."""
        if self._group is None:
            return [mine]
        found = [None] * self.world_size if self.rank == 0 else None
        dist.gather_object(mine, found, group=self._group, group_dst=0)
        return found

    def scatter(self, parts: Sequence[Any] | None) -> Any:  # noqa: ANN401
        """From the coordinator."""
        if self._group is None:
            assert parts is not None
            return parts[0]
        found = [None]
        dist.scatter_object_list(
            found, list(parts) if parts is not None else None, group=self._group, group_src=0
        )
        return found[0]

    def everybody(self, mine: Any) -> list[Any]:  # noqa: ANN401
        if self._group is None:
            return [mine]
        found = [None] * self.world_size
        dist.all_gather_object(found, mine, group=self._group)
        return found

    def together(self, error: BaseException | None) -> None:
        """Raises on all ranks what failed on any. One byte of each, if nothing did."""
        if any(said != b"\0" for said in self.records(bytes([error is not None]))):
            raise_any(self.everybody(told(error)))

    # ---- agreeing on a save -------------------------------------------------------------------

    def agree(
        self,
        local: Local | None,
        error: BaseException | None,
        *,
        options: str,
        verify: str,
        policy: str,
    ) -> Outcome | None:
        """None: the save is skipped, because an earlier one is not over."""
        self._saves += 1
        steps.reached("before-agreement")
        if policy == "wait" and self.flight is not None:
            self.flight.wait()
        busy = self.flight is not None and not self.flight.over
        encoded, contents, objects = b"", {}, {}
        sample = self._saves if verify == "first" else None
        if local is not None and error is None:
            try:
                encoded = holdings.encode(local.state.description, local.state.paths)
                contents = {} if verify == "never" else local.contents(sample_seed=sample)
                objects = local.object_hashes()
            except Exception as caught:  # whatever it is: all ranks have to hear of it
                error = caught
        mine = Record(
            error is not None,
            busy,
            holdings.key_of(encoded, options),
            agreement.cache_key(self._plans),
            agreement.contents_hash(contents),
            agreement.objects_hash(objects),
        )
        records = [Record.unpack(raw) for raw in self.records(mine.pack())]
        if any(record.failed for record in records):
            self.together(error)
        if any(record.busy for record in records):
            if policy == "skip":
                return None
            late = [rank for rank, record in enumerate(records) if record.busy]
            raise FsError(
                Code.BUSY,
                f"the previous save is not over on {plan.named(late)}: wait for its future, or "
                'choose in_flight="wait" or "skip"',
            )
        assert local is not None
        if self.flight is not None:
            self.flight.join()
            self.flight = None
        key = agreement.global_key(records)
        known = key in self._plans and len({record.cache for record in records}) == 1
        steps.reached("records-exchanged")
        alike = len({(r.contents, r.objects) for r in records}) == 1
        if known and alike:
            self._plans.move_to_end(key)
            self.statistics["plans_remembered"] += 1
            names = tuple(objects) if self.rank == 0 else ()
            return Outcome(self._plans[key], names)
        if not known and verify == "first":
            error, contents = _attempt(lambda: local.contents(sample_seed=None), {})
        sends = agreement.senders(records)[self.rank] and not known
        details = Details(encoded if sends else None, contents, objects)
        return self._plan(key, known, records, details, error)

    def _plan(
        self,
        key: bytes,
        known: bool,
        records: list[Record],
        mine: Details,
        error: BaseException | None,
    ) -> Outcome:
        gathered = self.gather((told(error), mine))
        answers: list[tuple[Any, Agreed | None]] | None = None
        made: Remembered | None = None
        if gathered is not None:
            try:
                raise_any([failed for failed, _ in gathered])
                made, agreed = self._answers(key, known, records, [d for _, d in gathered])
                answers = [(None, one) for one in agreed]
            except Exception as caught:
                answers = [(told(caught), None)] * self.world_size
        failed, answer = self.scatter(answers)
        if failed is not None:
            raise failed[1]
        steps.reached("plan-received")
        if answer.pieces is not None:
            pieces = [Piece(*piece) for piece in answer.pieces]
            self._plans[key] = made or Remembered(pieces, None, [], {})
            self.statistics["plans_made"] += 1
            while len(self._plans) > PLANS_CACHED_MAX:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return Outcome(self._plans[key], answer.objects)

    def _answers(
        self, key: bytes, known: bool, records: list[Record], details: list[Details]
    ) -> tuple[Remembered, list[Agreed]]:
        if known:
            remembered = self._plans[key]
        else:
            held, paths = agreement.held(records, details)
            made = plan.make(self.world_size, held)
            groups = [one.ranks for one in held]
            remembered = Remembered(made.pieces[0], made, groups, paths)
        assert remembered.plan is not None
        agreement.compare_contents(remembered.plan, remembered.groups, details)
        agreement.refuse_two_kinds(remembered.plan, details)
        kept = agreement.compare_objects(details)
        pieces = remembered.plan.pieces
        return remembered, [
            Agreed(names, None if known else list(map(tuple, pieces[rank])))
            for rank, names in enumerate(kept)
        ]

    def give_up(self) -> None:
        """On the coordinator: what a save of this session left behind."""
        if self.unfinished is not None:
            io, attempt = self.unfinished
            self.unfinished = None
            io.abandon(attempt)

    def close(self) -> None:
        if os.getpid() == self._pid:
            self.give_up()
        if self.courier is not None and os.getpid() == self._pid:
            self.courier.close()
        self.courier = None
        self._plans.clear()


def told(error: BaseException | None) -> tuple[str, Exception] | None:
    """An error as others are told: of our own kind as it is, of any other what it says."""
    if error is None:
        return None
    if isinstance(error, FsError):
        return "", FsError(error.code, error.detail)
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        return "", OSError(error.errno, f"{where}{os.strerror(error.errno)}")
    return "", FsError(Code.IO, f"{type(error).__name__}: {error}")


def raise_any(failures: Sequence[tuple[str, Exception] | None]) -> None:
    failed = [(rank, one[1]) for rank, one in enumerate(failures) if one is not None]
    if not failed:
        return
    first = failed[0][1]
    if len({str(error) for _, error in failed}) == len(failures) == 1:
        raise first
    where = plan.named([r for r, error in failed if str(error) == str(first)])
    if isinstance(first, FsError):
        raise FsError(first.code, f"{where}: {first.detail}")
    assert isinstance(first, OSError)
    raise OSError(first.errno, f"{where}: {first.strerror}")


def _attempt(compute: Any, otherwise: Any) -> tuple[Exception | None, Any]:  # noqa: ANN401
    try:
        return None, compute()
    except Exception as error:
        return error, otherwise


def _machine() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text()


_sessions: dict[Any, Session] = {}


def of(
    group: dist.ProcessGroup | None, *, no_dist: bool = False, timeout_s: float = TIMEOUT_S
) -> Session:
    """The session of a group (None: of everybody). The first call of all its ranks is a
    collective."""
    alone = no_dist or not dist.is_available() or not dist.is_initialized()
    if not alone and group is None:
        group = dist.group.WORLD
    found = _sessions.get(None if alone else group)
    if found is None:
        found = Session(None if alone else group, timeout_s=timeout_s)
        _sessions[None if alone else group] = found
    return found


@atexit.register
def close_all() -> None:
    while _sessions:
        _sessions.popitem()[1].close()
