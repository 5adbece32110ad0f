"""The checker of histories: it accepts what can be explained, and finds planted lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.checker import RECORD_BYTES, check
from harness.history import FOREVER, UNKNOWN, Op, Recorder, load

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("a", "b", "c")


def op(start: int, end: int, what: str, *answer: object, by: str = "") -> Op:
    verb, *args = what.split()
    given = [int(a, 8) if verb == "chmod" and i else a for i, a in enumerate(args)]
    known = answer or ("ok",)
    return Op(by or f"c{start}", verb, tuple(given), start, end, known if end else UNKNOWN)


def lost(start: int, what: str) -> Op:
    verb, *args = what.split()
    return Op(f"c{start}", verb, tuple(args), start)


def stat(start: int, end: int, name: str, ino: int | None, size: int = 0) -> Op:
    answer = ("ENOENT",) if ino is None else ("ok", ino, size)
    return op(start, end, f"stat {name}", *answer)


def rec(text: str) -> str:
    return text.ljust(RECORD_BYTES, ".")


def read(start: int, end: int, ino: int, *records: str) -> Op:
    return op(start, end, "read a", "ok", ino, "".join(map(rec, records)))


def append(start: int, end: int, ino: int, record: str) -> Op:
    return Op("w", "append", ("a", rec(record)), start, end, ("ok", ino))


MADE = op(1, 2, "create a", "ok", 7)

GOOD: dict[str, list[Op]] = {
    "nothing": [],
    "in order": [stat(0, 1, "a", None), op(2, 3, "create a", "ok", 7), stat(4, 5, "a", 7)],
    "both answers at the same time": [
        op(1, 9, "create a", "ok", 7),
        stat(2, 3, "a", None),
        stat(4, 5, "a", 7),
    ],
    "one of two wins": [op(1, 9, "create a", "ok", 7), op(1, 9, "create a", "EEXIST")],
    "rename in order": [
        MADE,
        op(3, 4, "rename a b"),
        stat(5, 6, "a", None),
        stat(5, 6, "b", 7),
    ],
    "rename seen by halves at the same time": [
        MADE,
        op(3, 9, "rename a b"),
        stat(4, 5, "a", 7),
        stat(6, 7, "a", None),
        stat(7, 8, "b", 7),
    ],
    "exchange": [
        MADE,
        op(1, 2, "create b", "ok", 8),
        op(3, 4, "exchange a b"),
        stat(5, 6, "a", 8),
        stat(5, 6, "b", 7),
        op(7, 8, "exchange a c", "ENOENT"),
    ],
    "what was lost may be done late": [
        MADE,
        lost(3, "unlink a"),
        stat(4, 5, "a", 7),
        stat(6, 7, "a", None),
    ],
    "or never": [MADE, lost(3, "unlink a"), stat(4, 5, "a", 7)],
    "made by a lost create": [lost(1, "create a"), stat(2, 3, "a", 7)],
    "a list while names come and go": [
        MADE,
        op(3, 9, "rename a b"),
        op(4, 8, "list", "ok", []),
        op(4, 8, "list", "ok", ["a", "b"]),
    ],
    "modes": [
        op(1, 2, "chmod a 644"),
        op(3, 9, "chmod a 600"),
        op(4, 5, "mode a", "ok", 0o644),
        op(6, 7, "mode a", "ok", 0o600),
    ],
    "appends": [
        op(1, 2, "create a", "ok", 7),
        append(3, 4, 7, "one"),
        append(5, 9, 7, "two"),
        read(6, 7, 7, "one"),
        stat(7, 8, "a", 7, 2 * RECORD_BYTES),
        read(10, 11, 7, "one", "two"),
    ],
    "stamps": [
        op(1, 2, "put a x"),
        op(3, 9, "put a y"),
        op(4, 5, "get a", "ok", "y"),
        op(6, 7, "get a", "ok", "x"),
        op(10, 11, "get a", "ok", "y"),
    ],
}

BAD: dict[str, list[Op]] = {
    "a name that was removed": [MADE, op(3, 4, "unlink a"), stat(5, 6, "a", 7)],
    "a name that was not there before": [MADE, stat(3, 4, "a", None)],
    "an answer to fail from before": [MADE, op(3, 4, "unlink a", "ENOENT")],
    "another file": [MADE, stat(3, 4, "a", 8)],
    "replaced, and the old one is seen": [
        MADE,
        op(1, 2, "create b", "ok", 8),
        op(3, 4, "rename b a"),
        stat(5, 6, "a", 7),
    ],
    "both names of a rename after it": [MADE, op(3, 4, "rename a b"), stat(5, 6, "a", 7)],
    "backwards in time": [
        op(1, 9, "create a", "ok", 7),
        stat(2, 3, "a", 7),
        stat(4, 5, "a", None),
    ],
    "two winners": [op(1, 9, "create a", "ok", 7), op(1, 9, "create a", "ok", 8)],
    "two who removed it": [MADE, op(3, 9, "unlink a"), op(3, 9, "unlink a")],
    "listed after it went": [MADE, op(3, 4, "unlink a"), op(5, 6, "list", "ok", ["a"])],
    "not listed": [MADE, op(3, 4, "list", "ok", [])],
    "listed twice": [MADE, op(3, 4, "list", "ok", ["a", "a"])],
    "listed out of nowhere": [op(3, 4, "list", "ok", ["z"])],
    "an old mode": [
        op(1, 2, "chmod a 644"),
        op(3, 4, "chmod a 600"),
        op(5, 6, "mode a", "ok", 0o644),
    ],
    "a record that is not seen": [append(1, 2, 7, "one"), read(3, 4, 7)],
    "a record twice": [append(1, 2, 7, "one"), read(3, 4, 7, "one", "one")],
    "a record of nobody": [read(3, 4, 7, "one")],
    "a record of another file": [append(1, 2, 8, "one"), read(3, 4, 7, "one")],
    "a record of later": [read(1, 2, 7, "one"), append(3, 4, 7, "one")],
    "what was seen is gone": [
        append(1, 9, 7, "one"),
        append(1, 9, 7, "two"),
        read(2, 3, 7, "two"),
        read(4, 5, 7, "one", "two"),
    ],
    "an old size": [MADE, append(3, 4, 7, "one"), stat(5, 6, "a", 7, 0)],
    "an old stamp": [op(1, 2, "put a x"), op(3, 4, "put a y"), op(5, 6, "get a", "ok", "x")],
    "an error": [op(1, 2, "stat a", "EIO")],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_explained(name: str) -> None:
    assert not check(GOOD[name], NAMES)


@pytest.mark.parametrize("name", BAD)
def test_lies(name: str) -> None:
    assert check([*BAD[name], op(100, 101, "rename b c", "ENOENT")], NAMES)


def test_errors_that_are_allowed_say_nothing() -> None:
    ops = [MADE, op(3, 4, "append a", "ESTALE"), stat(7, 8, "a", 7)]
    assert check(ops, NAMES)
    assert not check(ops, NAMES, allowed=[("append", "ESTALE")])


def test_an_error_that_leaves_it_open_whether_it_was_done() -> None:
    ops = [MADE, op(5, 6, "unlink a", "EIO")]
    for later in (stat(7, 8, "a", None), stat(7, 8, "a", 7)):
        assert check([*ops, later], NAMES)
        assert not check([*ops, later], NAMES, allowed=[("unlink", "EIO")])


def test_files_that_stay_are_always_listed() -> None:
    assert not check([op(1, 2, "list", "ok", ["r"])], NAMES, fixed=["r"])
    assert check([op(1, 2, "list", "ok", [])], NAMES, fixed=["r"])


def test_a_history_survives_its_worker(tmp_path: Path) -> None:
    path = tmp_path / "c.history"
    recorder = Recorder(path)
    first = recorder.invoked("create", ("a",))
    recorder.answered(first, ("ok", 7))
    recorder.invoked("unlink", ("a",))
    with path.open("ab") as file:
        file.write(b'["r", 2, 1')
    done, open_one = load(path)
    assert (done.verb, done.args, done.answer, done.client) == ("create", ("a",), ("ok", 7), "c")
    assert done.invoked < done.answered
    assert open_one.answered == FOREVER
    assert open_one.unsure
