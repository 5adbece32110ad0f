"""Writing an output exactly once.

    .NAME.chukonu-JOB/part-00000-JOB8.parquet     one for each partition
    .NAME.chukonu-JOB/_done/00000.json            what is in it: rows, bytes, xxh3, counts
    .NAME.chukonu-JOB/_manifest.json              all of them, when all are there
    NAME                                          the attempt, after one rename

JOB is the hash of the plan, the contents it reads and the format. A job that is started again finds
its attempt and goes on with the partitions that have no record. Readers see NAME when it is whole.
A record also has what was counted when its part was made: the statistics of a job that was begun
several times are those of one that was not, but for time and the ways of bytes.
"""

from __future__ import annotations

import json
import os
import uuid
from typing import TYPE_CHECKING, Any

import xxhash

from superfs.chukonu.plan.fingerprint import fingerprint
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.sinks.formats import SUFFIX, check, encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.chukonu.counters import Tally
    from superfs.chukonu.embedded.executor import Executor
    from superfs.chukonu.plan.logical import Node
    from superfs.chukonu.sinks.target import Target

MANIFEST, DONE, SUCCESS = "_manifest.json", "_done", "_SUCCESS"


class Output:
    def __init__(self, target: Target, path: str, kind: str, plan: Node) -> None:
        check(kind, plan.output)
        self._target = target
        self._path = path.rstrip("/")
        self._kind = kind
        self._plan = prune(plan)
        found = fingerprint(self._plan)
        what = f"{found} {kind} {[ref.name for ref in plan.output]}"
        self.job = uuid.uuid4().hex if found is None else xxhash.xxh3_128_hexdigest(what.encode())
        folder, name = os.path.split(self._path)
        self.attempt = os.path.join(folder, f".{name}.chukonu-{self.job}")

    def write(self, executor: Executor, *, replace: bool) -> dict[str, Any]:
        """The manifest."""
        self._target.makedirs(os.path.join(self.attempt, DONE))
        job = executor.job(self._plan)
        tasks = [self._task(number, part) for number, part in enumerate(job.partitions())]
        records = list(job.results(tasks))
        manifest = {
            "version": 1,
            "job": self.job,
            "format": self._kind,
            "schema": [[ref.name, ref.dtype.simpleString()] for ref in self._plan.output],
            "rows": sum(record["rows"] for record in records),
            "parts": [{k: v for k, v in r.items() if k != "counts"} for r in records],
            "statistics": job.run.statistics(),
        }
        text = json.dumps(manifest, indent=1) + "\n"
        self._target.put(os.path.join(self.attempt, MANIFEST), text.encode())
        self._target.put(os.path.join(self.attempt, SUCCESS), b"")
        self._target.publish(self.attempt, self._path, replace=replace)
        return manifest

    def _task(self, number: int, part: Callable[[Tally], Any]) -> Callable[[Tally], dict[str, Any]]:
        record_path = os.path.join(self.attempt, DONE, f"{number:05}.json")
        name = f"part-{number:05}-{self.job[:8]}{SUFFIX[self._kind]}"

        def run(tally: Tally) -> dict[str, Any]:
            known = self._target.get(record_path)
            if known is not None:
                done = dict(json.loads(known))
                tally.recall(done["counts"])
                return done
            frame = part(tally)
            data = encoded(self._kind, frame, self._plan.output)
            self._target.put(os.path.join(self.attempt, name), data)
            record = {
                "name": name,
                "rows": frame.height,
                "bytes": len(data),
                "xxh3": xxhash.xxh3_64_hexdigest(data),
                "counts": tally.record(),
            }
            self._target.put(record_path, json.dumps(record).encode())
            return record

        return run
