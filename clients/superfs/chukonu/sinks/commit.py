"""Writing an output exactly once.

    .NAME.chukonu-JOB-LAYOUT/part-00000-JOB8.parquet     one for each partition
    .NAME.chukonu-JOB-LAYOUT/_done/00000.json            what is in it: rows, bytes, xxh3, counts
    .NAME.chukonu-JOB-LAYOUT/_manifest.json              all of them, when all are there
    NAME                                                 the attempt, after one rename

JOB is the hash of the plan, the contents it reads and the format; LAYOUT that of the names of its
partitions, which are others when rows were divided otherwise, under another budget of memory for
instance. A job that is started again finds its attempt and goes on with the partitions that have no
record. Readers see NAME when it is whole; attempts of other layouts then go.
A record also has what was counted when its part was made: the statistics of a job that was begun
several times are those of one that was not, but for time and the ways of bytes.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import uuid
from typing import TYPE_CHECKING, Any, Protocol

import xxhash

from superfs.chukonu.plan.fingerprint import fingerprint
from superfs.chukonu.plan.logical import Local
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.sinks.formats import SUFFIX, check, encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.chukonu.counters import Tally
    from superfs.chukonu.embedded.parts import Part
    from superfs.chukonu.plan.logical import Node
    from superfs.chukonu.sinks.formats import Encoder
    from superfs.chukonu.sinks.target import Target

MANIFEST, DONE, SUCCESS = "_manifest.json", "_done", "_SUCCESS"
PUT_BYTES_MAX = 8 << 20
"""A larger part is written while it is made."""


class Executes(Protocol):
    def write(self, output: Output) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(the records of its parts, statistics)."""


class Output:
    def __init__(
        self, target: Target, path: str, kind: str, plan: Node, style: dict[str, Any] | None = None
    ) -> None:
        """`style`: options of the format."""
        check(kind, plan.output, style or {})
        self._style = style or {}
        self._target = target
        self._path = path.rstrip("/")
        self._kind = kind
        self.plan = prune(plan)
        found = fingerprint(self.plan)
        what = f"{found} {kind} {sorted(self._style.items())} {[ref.name for ref in plan.output]}"
        self.job = uuid.uuid4().hex if found is None else xxhash.xxh3_128_hexdigest(what.encode())

    def for_workers(self) -> Output:
        """Without what only the beginning and the end of a job look at."""
        found = copy.copy(self)
        found.plan = Local(None, self.plan.output)
        return found

    def begin(self, parts: list[Part]) -> None:
        """Makes room for the attempt."""
        layout = xxhash.xxh3_64_hexdigest("\0".join(part.name for part in parts).encode())
        self._folder, name = os.path.split(self._path)
        self._prefix = f".{name}.chukonu-{self.job}-"
        self.attempt = os.path.join(self._folder, f"{self._prefix}{layout}")
        self._target.makedirs(os.path.join(self.attempt, DONE))

    def write(self, executor: Executes, *, replace: bool) -> dict[str, Any]:
        """The manifest."""
        records, statistics = executor.write(self)
        manifest = {
            "version": 1,
            "job": self.job,
            "format": self._kind,
            "schema": [[ref.name, ref.dtype.simpleString()] for ref in self.plan.output],
            "rows": sum(record["rows"] for record in records),
            "parts": [{k: v for k, v in r.items() if k != "counts"} for r in records],
            "statistics": statistics,
        }
        text = json.dumps(manifest, indent=1) + "\n"
        self._target.put(os.path.join(self.attempt, MANIFEST), text.encode())
        self._target.put(os.path.join(self.attempt, SUCCESS), b"")
        self._target.publish(self.attempt, self._path, replace=replace)
        for name in self._target.names(self._folder):
            if name.startswith(self._prefix):
                self._target.remove(os.path.join(self._folder, name))
        return manifest

    def task(self, number: int, part: Part) -> Callable[[Tally], dict[str, Any]]:
        record_path = os.path.join(self.attempt, DONE, f"{number:05}.json")
        name = f"part-{number:05}-{self.job[:8]}{SUFFIX[self._kind]}"

        def run(tally: Tally) -> dict[str, Any]:
            known = self._target.get(record_path)
            if known is not None:
                done = dict(json.loads(known))
                tally.recall(done["counts"])
                return done
            found = self._put(os.path.join(self.attempt, name), part.run(tally))
            record = {"name": name, **found, "counts": tally.record()}
            self._target.put(record_path, json.dumps(record).encode())
            return record

        return run

    def _put(self, path: str, frames: Iterator[Any]) -> dict[str, Any]:
        """What there is to say about the part. A small one takes one call of the target."""
        made = encoder(self._kind, self.plan.output, self._style)
        rows, size, digest = 0, 0, xxhash.xxh3_64()
        with contextlib.ExitStack() as stack:
            waiting: list[bytes] = []
            write: Callable[[bytes], Any] = waiting.append
            for data in _encoded(made, frames):
                rows += data[0]
                if data[1]:
                    size += len(data[1])
                    digest.update(data[1])
                    write(data[1])
                if size > PUT_BYTES_MAX and waiting:
                    write = stack.enter_context(self._target.writer(path))
                    for one in waiting:
                        write(one)
                    waiting = []
            if size <= PUT_BYTES_MAX:
                self._target.put(path, b"".join(waiting))
        return {"rows": rows, "bytes": size, "xxh3": digest.hexdigest()}


def _encoded(made: Encoder, frames: Iterator[Any]) -> Iterator[tuple[int, bytes]]:
    for frame in frames:
        yield frame.height, made.add(frame)
    yield 0, made.finish()
