"""Bad records: what becomes of them, and where they are kept.

`PERMISSIVE` gives a row with nulls and, if the schema has it, the raw line in `_corrupt_record`;
`DROPMALFORMED` gives no row; `FAILFAST` stops the job. With `badRecordsPath` every bad record of
PERMISSIVE and DROPMALFORMED is also written there, one file for each split that has any: JSON lines
with path, offset and length in the (decompressed) file, reason, and the bytes in base64.
`maxBadFraction` stops the job when more than that part of all records is bad.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from superfs.chukonu.errors import AnalysisException, BadRecordException

MODES = ("PERMISSIVE", "DROPMALFORMED", "FAILFAST")
_MISFIT = re.compile(r"(column [^:]*): .* is not ([^ ]*)", re.DOTALL)
CHECK_AFTER = 10_000
"""Records before which a fraction says nothing."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    path: str
    offset: int
    raw: bytes
    reason: str

    @property
    def kind(self) -> str:
        """The reason without what is particular to this record."""
        found = _MISFIT.fullmatch(self.reason)
        return f"{found[1]} is not {found[2]}" if found else self.reason.partition(":")[0]

    def line(self) -> str:
        return json.dumps(
            {
                "path": self.path,
                "offset": self.offset,
                "length": len(self.raw),
                "reason": self.reason,
                "raw": base64.b64encode(self.raw).decode(),
            }
        )


@dataclass(slots=True)
class Policy:
    mode: str = "PERMISSIVE"
    path: str | None = None
    fraction_max: float = 1.0
    column: str = "_corrupt_record"
    keeps: bool = True
    """False: nothing is written to `path`."""
    records: int = 0
    bad: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.mode = self.mode.upper()
        if self.mode not in MODES:
            raise AnalysisException("PARSE_MODE_UNSUPPORTED", f"mode {self.mode!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Policy, (self.mode, self.path, self.fraction_max, self.column, self.keeps)

    def meet(self, record: BadRecord) -> None:
        if self.mode == "FAILFAST":
            raise BadRecordException(
                "MALFORMED_RECORD_IN_PARSING",
                f"{record.path} at byte {record.offset}: {record.reason}",
            )

    def settle(self, split: str, records: int, bad: list[BadRecord], *, last: bool) -> None:
        """A split is done. Doing it again writes the same file again."""
        if bad and self.path is not None and self.keeps:
            keep(self.path, split, bad)
        with self._lock:
            self.records += records
            self.bad += len(bad)
            if last or self.records >= CHECK_AFTER:
                self.judge(self.records, self.bad)

    def judge(self, records: int, bad: int) -> None:
        """BadRecordException when so many are too many."""
        if bad > self.fraction_max * records:
            raise BadRecordException(
                "TOO_MANY_BAD_RECORDS",
                f"{bad} of {records} records are bad, more than the fraction "
                f"{self.fraction_max} that maxBadFraction allows",
            )


def keep(folder: str, split: str, bad: list[BadRecord]) -> None:
    os.makedirs(folder, exist_ok=True)
    final = os.path.join(folder, f"bad-{split}.json")
    temporary = os.path.join(folder, f".bad-{split}-{os.getpid()}-{threading.get_ident()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.writelines(record.line() + "\n" for record in bad)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, final)
