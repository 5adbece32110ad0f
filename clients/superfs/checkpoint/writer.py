"""`SuperFSWriter`: what `dcp.save` and `dcp.async_save` write through."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.default_planner import (
    DefaultSavePlanner,
    create_default_local_save_plan,
)
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.staging import AsyncStager
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult

from superfs.checkpoint import manifest as manifests
from superfs.checkpoint import saving, steps
from superfs.checkpoint import session as sessions
from superfs.checkpoint.describe import describe
from superfs.checkpoint.directory import DirectoryIO
from superfs.checkpoint.exporting import write_metadata
from superfs.checkpoint.metadata import metadata_of
from superfs.checkpoint.options import IO, Options
from superfs.checkpoint.stored import assemble
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch.distributed as dist
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem

    from superfs.checkpoint.describe import Local
    from superfs.checkpoint.extentio import ExtentIO, Way
    from superfs.checkpoint.saving import Staged
    from superfs.checkpoint.session import Outcome, Session
    from superfs.checkpoint.stored import Written


@dataclass(slots=True)
class Save:
    """One save on this rank, from agreement to commit."""

    outcome: Outcome | None  # None: skipped
    attempt: str | None = None  # begun before it was staged
    staged: Staged | None = None
    flight: sessions.Flight | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """What a rank reports instead of what it has written."""

    error: tuple[str, Exception] | None


class SuperFSWriter(StorageWriter, AsyncStager):
    """Every rank writes its own bytes, once, evenly, into a directory that all see.

        dcp.save(state, storage_writer=SuperFSWriter("/mnt/run/step-1000"))

    The arguments must be the same on all ranks. `per_rank`: names (patterns as of the shell) of
    tensors and objects of which every rank stores its own. `verify_replicas`: whether plain
    tensors that several ranks hold are compared: whole the first time and sampled later, whole
    "always", or "never". `in_flight`: what `async_save` does while an earlier one is being
    written. `durable`: sync before the commit. `export_dcp`: write everything once more, as stock
    DCP reads it. `io`: on a SuperFS mount bytes go past it, to the daemons of its cluster, "direct"
    or with an error that says why not; "auto" goes through the "mount" then, and says so in the
    log. `way` is how this rank's bytes went in the last save; None: it had nothing to write.
    """

    _synchronize_after_execute = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        process_group: dist.ProcessGroup | None = None,
        no_dist: bool = False,
        per_rank: Sequence[str] = (),
        verify_replicas: str = "first",
        in_flight: str = "wait",
        durable: bool = True,
        allow_pickle: bool = False,
        export_dcp: bool = False,
        arena_bytes: int | None = None,
        timeout_s: float = sessions.TIMEOUT_S,
        io: str | Callable[[str | os.PathLike[str]], ExtentIO] = "auto",
    ) -> None:
        super().__init__()
        self._options = Options(
            tuple(per_rank),
            verify_replicas,
            in_flight,
            durable,
            allow_pickle,
            export_dcp,
            arena_bytes,
        )
        self._group, self._no_dist, self._timeout_s = process_group, no_dist, timeout_s
        if isinstance(io, str):
            if io not in IO:
                raise ValueError(f"io is one of {', '.join(IO)}, or makes an ExtentIO of a path")
            io = partial(DirectoryIO, io=io)
        self._new_io = io
        self._path = path
        self._io = io(path)
        self.way: Way | None = None
        self._items: Sequence[WriteItem] | None = None
        self._save: Save | None = None
        self._is_coordinator = False
        self._attempt = ""

    def __reduce__(self) -> Any:  # noqa: ANN401
        self._over()  # it was staged, and will not be written
        raise FsError(
            Code.NOT_SUPPORTED,
            "SuperFSWriter cannot be sent to another process: use async_save with its default, "
            "AsyncCheckpointerType.THREAD; the bytes are written by a process of its own anyway",
        )

    @property
    def checkpoint_id(self) -> str | os.PathLike[str]:
        return self._path

    @property
    def session(self) -> Session:
        return sessions.of(self._group, no_dist=self._no_dist, timeout_s=self._timeout_s)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return "://" not in os.fspath(checkpoint_id)

    # ---- AsyncStager ----------------------------------------------------------------------------

    def stage(self, state_dict: dict[str, Any], **_kwargs: object) -> dict[str, Any]:
        """Agrees on the plan first, then copies this rank's bytes only. What DCP saves afterwards
        is the empty state that this returns."""
        session = self.session  # made by all ranks together
        local, error = None, None
        try:
            planner = DefaultSavePlanner()
            planner.set_up_planner(state_dict)
            local = self._describe(planner.create_local_plan().items, planner)
        except Exception as caught:  # whatever it is: all ranks have to hear of it
            error = caught
        outcome = self._agree(session, local, error)
        save = Save(outcome)
        if outcome is None:  # DCP goes through the motions all the same
            save.flight = session.flight = sessions.Flight(session.flight)
        else:
            assert local is not None
            save.attempt = self._make_room(session, local, outcome)
            failed: Exception | None = None
            try:
                save.staged = saving.stage(self._io, save.attempt, session, local, outcome)
            except Exception as caught:
                failed = caught
            try:
                session.together(failed)
            except Exception:
                session.give_up()
                raise
            save.flight = session.flight = sessions.Flight()
        self._save = save
        return {}

    def synchronize_staging(self) -> None:
        """Staging is over when `stage` returns."""

    def close(self) -> None:
        """The arena belongs to the session."""

    # ---- StorageWriter --------------------------------------------------------------------------

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        if checkpoint_id is not None:
            self._path = checkpoint_id
            self._io = self._new_io(checkpoint_id)

    def set_up_storage_writer(
        self,
        is_coordinator: bool,
        *_args: object,
        **kwargs: object,
    ) -> None:
        if not kwargs.get("use_collectives", True):
            raise FsError(
                Code.NOT_SUPPORTED, "use_collectives=False: ranks have to agree on a checkpoint"
            )
        self._is_coordinator = is_coordinator
        session = self.session  # made by all ranks together
        if self._save is not None and self._save.flight is not None:
            self._save.flight.runs_here()
        elif session.flight is not None:
            session.flight.join()  # it talks over the same group

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Records what this rank holds. DCP itself is left nothing to compare, which is what takes
        its planner so long in large worlds."""
        self._items = plan.items if plan.usable else None
        return replace(plan, items=[], planner_data={}, storage_data=os.fspath(self._path))

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        paths = {plan.storage_data for plan in plans}
        if len(paths) > 1:
            raise FsError(Code.INVALID, f"ranks save to different paths: {sorted(paths)}")
        attempt = self._save.attempt if self._save is not None else None
        if attempt is None:
            skipped = self._save is not None and self._save.outcome is None
            attempt = "" if skipped else self._begin()
        steps.reached("attempt-begun")
        return [replace(plan, storage_data=attempt) for plan in plans]

    def write_data(
        self, plan: SavePlan, planner: SavePlanner
    ) -> torch.futures.Future[list[WriteResult]]:
        """What fails here is told to the coordinator instead of raised: there `finish` raises it
        for all, and gives back at once what the others have written."""
        self._attempt = plan.storage_data
        written: Written | None = None
        results = []
        try:
            if self._save is None:
                self._save, written = self._write_now(planner)
            elif self._save.outcome is not None:
                assert self._save.staged is not None
                written = saving.write_staged(
                    self._io,
                    self._attempt,
                    self.session,
                    self._save.staged,
                    durable=self._options.durable,
                )
                if self._options.export_dcp:
                    saving.export_staged(
                        self._io,
                        self._attempt,
                        self.session,
                        self._save.staged,
                        written,
                        self._options,
                    )
        except Exception as caught:
            results.append(WriteResult(MetadataIndex(""), 0, Failed(sessions.told(caught))))
            written = None
        finally:
            if not self._is_coordinator or written is None:
                self._over()
        self.way = written.way if written is not None else None
        if written is not None:
            results.append(WriteResult(MetadataIndex(written.file), written.bytes, written))
        future: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the coordinator, when all have written: checks, and commits."""
        save, session = self._save, self.session
        try:
            found = [[one.storage_data for one in of_rank] for of_rank in results]
            sessions.raise_any([_failure(reports) for reports in found])
            if save is None or save.outcome is None:
                return
            remembered = save.outcome.remembered
            assert remembered.plan is not None, "the coordinator has the plan"
            steps.reached("all-written")
            written = [report for reports in found for report in reports]
            manifest = assemble(
                remembered.plan,
                remembered.paths,
                written,
                self._io.sizes(self._attempt),
                attempt=self._attempt,
                made_by=f"superfs {version('superfs')}, torch {torch.__version__}",
            )
            said = metadata_of(manifest, session.rank)
            if self._options.export_dcp:
                exported = [one for report in written for one in report.exported]
                durable = self._options.durable
                write_metadata(
                    self._io, self._attempt, said, manifest.same, exported, durable=durable
                )
            self._io.publish(
                self._attempt, manifests.encode(manifest), durable=self._options.durable
            )
            session.unfinished = None
            metadata.state_dict_metadata = said.state_dict_metadata
            metadata.planner_data = said.planner_data
        finally:
            session.give_up()
            self._over()

    # ---- behind them ----------------------------------------------------------------------------

    def _begin(self) -> str:
        session, attempt = self.session, uuid.uuid4().hex
        session.give_up()
        self._io.begin(attempt)
        session.unfinished = self._io, attempt
        return attempt

    def _make_room(self, session: Session, local: Local, outcome: Outcome) -> str | None:
        """The arena on all ranks. If what any of them writes does not fit, it is going to write
        while it is staged, so the attempt begins."""
        fits, failed, options = True, None, self._options
        try:
            fits = saving.room(session, outcome, local, options.arena_bytes)
            if options.export_dcp and not fits:
                raise FsError(
                    Code.NO_SPACE,
                    "what this rank stages does not fit the arena at once, and export_dcp needs "
                    "it twice: raise arena_bytes, or use dcp.save",
                )
        except Exception as caught:
            failed = caught
        said = session.records(bytes([2 if failed is not None else int(fits)]))
        if b"\2" in said:
            session.together(failed)
        if b"\0" not in said:
            return None
        answer: tuple[Any, str] = (None, "")
        if session.rank == 0:
            try:
                answer = None, self._begin()
            except Exception as caught:
                answer = sessions.told(caught), ""
        answers = [answer] * session.world_size if session.rank == 0 else None
        refused, attempt = session.scatter(answers)
        if refused is not None:
            raise refused[1]
        return str(attempt)

    def _over(self) -> None:
        if self._save is not None and self._save.flight is not None:
            self._save.flight.end()
        self._save = None

    def _describe(self, items: Sequence[WriteItem], planner: SavePlanner) -> Local:
        return describe(
            items,
            planner,
            ranks=self.session.ranks,
            per_rank=self._options.per_rank,
            allow_pickle=self._options.allow_pickle,
        )

    def _agree(
        self, session: Session, local: Local | None, error: Exception | None
    ) -> Outcome | None:
        options = self._options
        return session.agree(
            local,
            error,
            options=repr((options.per_rank, options.verify_replicas)),
            verify=options.verify_replicas,
            policy=options.in_flight,
        )

    def _write_now(self, planner: SavePlanner) -> tuple[Save, Written | None]:
        session = self.session
        local, error = None, None
        try:
            items = self._items
            if items is None:  # the planner remembers its plan and did not say it again
                items = create_default_local_save_plan(planner.state_dict, False).items
            local = self._describe(items, planner)
        except Exception as caught:  # whatever it is: all ranks have to hear of it
            error = caught
        outcome = self._agree(session, local, error)
        if outcome is None:
            return Save(None), None
        assert local is not None
        written = saving.write_now(
            self._io, self._attempt, session.rank, local, outcome, durable=self._options.durable
        )
        if self._options.export_dcp:
            saving.export_now(self._io, self._attempt, local, outcome, written, self._options)
        return Save(outcome), written


def _failure(reports: Sequence[Written | Failed]) -> tuple[str, Exception] | None:
    return next((report.error for report in reports if isinstance(report, Failed)), None)
