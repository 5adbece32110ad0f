"""What a save is to be like: the same on all ranks."""

from __future__ import annotations

from dataclasses import dataclass

VERIFY = ("first", "always", "never")
IN_FLIGHT = ("wait", "skip", "fail")
IO = ("auto", "direct", "mount")


@dataclass(frozen=True, slots=True)
class Options:
    per_rank: tuple[str, ...]
    verify_replicas: str
    in_flight: str
    durable: bool
    allow_pickle: bool
    export_dcp: bool
    arena_bytes: int | None

    def __post_init__(self) -> None:
        if self.verify_replicas not in VERIFY:
            raise ValueError(f"verify_replicas is one of {', '.join(VERIFY)}")
        if self.in_flight not in IN_FLIGHT:
            raise ValueError(f"in_flight is one of {', '.join(IN_FLIGHT)}")
