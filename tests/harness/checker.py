"""What a history of several clients must obey: the promises of the file system, put into rules.

    names     create, unlink, rename, exchange, stat, open and lists of one directory have one order
              in time (linearizable.py), for each set of names that renames connect
    modes     chmod and stat too, for each file
    appends   who opens a file sees every record of those who had closed it, each once, nothing
              that nobody wrote; what was seen stays; the size says the same
    stamps    who reads a stamp sees the last one whose writer had closed the file, or a later one

The verbs are those of hammer.py. `check` says what is wrong, in words.

One thing Linux decides above the file system: a rename between names that it has found to be of one
file does nothing, and it finds one name after the other. Next to another rename, that may have been
one file after all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from harness.history import FOREVER, Op
from harness.linearizable import Search, State, Step, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    Does = Callable[[State], Sequence[State]]

RECORD_BYTES = 16
ANY = "any"
REFUSALS = frozenset({"ENOENT", "EEXIST"})
TWO_NAMES = frozenset({"rename", "noreplace", "exchange"})
ONE_NAME = frozenset({"create", "unlink", "stat", "read", "append"})


def check(
    ops: Iterable[Op],
    names: Iterable[str],
    *,
    fixed: Iterable[str] = (),
    allowed: Iterable[tuple[str, str]] = (),
) -> list[str]:
    """`names`: none of them exists at the beginning. `fixed`: these stay all the time. `allowed`:
    verbs and the errors that they may meet, without anything done."""
    known = sorted(ops, key=lambda op: op.invoked)
    fine = {"ok", "?", *REFUSALS}
    tolerated = set(allowed)
    wrong = [
        f"unexpected: {op}"
        for op in known
        if op.answer[0] not in fine and (op.verb, op.answer[0]) not in tolerated
    ]
    usable = [op for op in known if op.answer[0] in fine or op.unsure]
    usable = [op for op in usable if not _says_nothing(op)]
    wrong += check_names(usable, names, frozenset(fixed))
    wrong += check_modes(usable)
    wrong += check_appends(usable)
    wrong += check_stamps(usable)
    return wrong


def _says_nothing(op: Op) -> bool:
    return op.unsure and op.verb in ("stat", "read", "list", "mode", "get")


# ---- names


def check_names(ops: Iterable[Op], names: Iterable[str], fixed: frozenset[str]) -> list[str]:
    known = [op for op in ops if op.verb in ONE_NAME | TWO_NAMES | {"list"}]
    wrong: list[str] = []
    group_of = _groups(known, names)
    steps: dict[str, list[Step]] = defaultdict(list)
    members: dict[str, list[str]] = defaultdict(list)
    for name, group in group_of.items():
        members[group].append(name)
    for op in known:
        if op.verb == "list":
            wrong += _wrong_list(op, fixed | group_of.keys(), fixed)
            for group, inside in members.items():
                steps[group] += [_listed(op, inside, name) for name in inside] if op.ok else []
        else:
            group = group_of[op.args[0]]
            step = _step(op, members[group])
            if step is not None:
                steps[group].append(step)
    for group, inside in members.items():
        _may_do_nothing(steps[group])
        found = Search(steps[group], (None,) * len(inside)).run()
        if found is not None:
            wrong.append(f"names {inside}: {found}")
    return wrong


def _groups(ops: Iterable[Op], names: Iterable[str]) -> dict[str, str]:
    """name -> the first of those that renames connect it with."""
    group_of = {name: name for name in names}
    for op in ops:
        if op.verb in TWO_NAMES:
            one, other = group_of[op.args[0]], group_of[op.args[1]]
            if one != other:
                for name, group in group_of.items():
                    if group == other:
                        group_of[name] = one
    return group_of


def _wrong_list(op: Op, known: AbstractSet[str], fixed: AbstractSet[str]) -> list[str]:
    if not op.ok:
        return []
    listed: Counter[str] = Counter(op.answer[1])
    wrong = [f"{name} is listed {n} times: {op}" for name, n in listed.items() if n > 1]
    wrong += [f"{name} was never made: {op}" for name in listed if name not in known]
    return wrong + [f"{name} is not listed: {op}" for name in fixed if name not in listed]


def _listed(op: Op, inside: list[str], name: str) -> Step:
    """A list is no snapshot: each name was there, or was not, at some moment of it."""
    at, there = inside.index(name), name in op.answer[1]
    return Step(op, sees=lambda state: (state[at] is not None) == there)


def _step(op: Op, inside: list[str]) -> Step | None:
    at = [inside.index(name) for name in op.args if name in inside]
    if op.answer[0] in REFUSALS:
        return Step(op, sees=_refused(op, at))
    if op.verb in ("stat", "read", "append"):
        return None if op.unsure else Step(op, sees=_sees(at[0], op.answer[1]))
    return Step(op, does=_does(op, at))


def _refused(op: Op, at: list[int]) -> Callable[[State], bool]:
    if op.answer[0] == "EEXIST":
        return lambda state: state[at[-1]] is not None
    if op.verb == "exchange":
        return lambda state: None in (state[at[0]], state[at[1]])
    return lambda state: state[at[0]] is None


def _sees(at: int, ino: int) -> Callable[[State], bool]:
    def sees(state: State) -> bool:
        # A file that somebody may have made without being told its number.
        return state[at] == ino or isinstance(state[at], str)

    return sees


def _does(op: Op, at: list[int]) -> Does:
    told: Value = op.answer[1] if op.ok and op.verb == "create" else None
    made: Value = told or f"of {op.client}@{op.invoked}"

    def create(state: State) -> Sequence[State]:
        return [_with(state, at[0], made)] if state[at[0]] is None else []

    def unlink(state: State) -> Sequence[State]:
        return [_with(state, at[0], None)] if state[at[0]] is not None else []

    def rename(state: State) -> Sequence[State]:
        old, new = at
        if state[old] is None or (op.verb == "noreplace" and state[new] is not None):
            return []
        return [_with(_with(state, new, state[old]), old, None)]

    def exchange(state: State) -> Sequence[State]:
        one, other = at
        if state[one] is None or state[other] is None:
            return []
        return [_with(_with(state, one, state[other]), other, state[one])]

    return {
        "create": create,
        "unlink": unlink,
        "rename": rename,
        "noreplace": rename,
        "exchange": exchange,
    }[op.verb]


def _may_do_nothing(steps: list[Step]) -> None:
    """Renames that met another one of one of their names."""
    renames = [step for step in steps if step.op.verb in TWO_NAMES and step.does is not None]
    for step in renames:
        for other in renames:
            meets = (
                other is not step
                and other.op.invoked < step.answered
                and step.op.invoked < other.answered
                and not set(step.op.args).isdisjoint(other.op.args)
            )
            if meets and step.does is not None:
                step.does = _or_nothing(step.does)
                break


def _or_nothing(does: Does) -> Does:
    return lambda state: (*does(state), state)


def _with(state: State, at: int, value: Value) -> State:
    return (*state[:at], value, *state[at + 1 :])


# ---- modes


def check_modes(ops: Iterable[Op]) -> list[str]:
    """chmod(name, mode) and mode(name), of files that stay where they are."""
    steps: dict[str, list[Step]] = defaultdict(list)
    for op in ops:
        if op.verb == "chmod" and (op.ok or op.unsure):
            steps[op.args[0]].append(Step(op, does=_always(op.args[1])))
        elif op.verb == "mode" and op.ok:
            steps[op.args[0]].append(Step(op, sees=_is(op.answer[1])))
    found = [Search(mine, (0,)).run() for mine in steps.values()]
    return [complaint for complaint in found if complaint is not None]


def _always(value: int) -> Does:
    return lambda _state: ((value,),)


def _is(value: int) -> Callable[[State], bool]:
    return lambda state: state == (value,)


# ---- contents


def check_appends(ops: Iterable[Op]) -> list[str]:
    """append(name, record) -> inode; read(name) -> inode, size by fstat, text; stat -> inode,
    size."""
    appends: dict[str, Op] = {}
    by_file: dict[int, list[Op]] = defaultdict(list)
    reads: dict[int, list[Op]] = defaultdict(list)
    stats: list[Op] = []
    lost = [op for op in ops if op.verb == "append" and op.unsure]
    for op in ops:
        if op.verb == "append" and (op.ok or op.unsure):
            appends[op.args[1]] = op
            if op.ok:
                by_file[op.answer[1]].append(op)
        elif op.verb == "read" and op.ok:
            reads[op.answer[1]].append(op)
        elif op.verb == "stat" and op.ok:
            stats.append(op)
    wrong = []
    for ino, mine in reads.items():
        wrong += [w for op in mine for w in _wrong_read(op, by_file[ino], appends)]
        wrong += _shrunk(mine)
    for op in stats:
        wrong += _wrong_size(op, op.answer[2], by_file[op.answer[1]], lost)
    return wrong


def _wrong_read(op: Op, appended: list[Op], appends: dict[str, Op]) -> list[str]:
    ino, text = op.answer[1], op.answer[2]
    seen = Counter(text[i : i + RECORD_BYTES] for i in range(0, len(text), RECORD_BYTES))
    wrong = [f"{record!r} twice in {op}" for record, n in seen.items() if n > 1]
    for record in seen:
        by = appends.get(record)
        if by is None or by.invoked > op.answered or (by.ok and by.answer[1] != ino):
            wrong.append(f"{record!r} is of {by} and was seen by {op}")
    wrong += [
        f"not seen: {by}, by {op}"
        for by in appended
        if by.answered < op.invoked and by.args[1] not in seen
    ]
    return wrong


def _shrunk(reads: list[Op]) -> list[str]:
    wrong = []
    longest: Op | None = None
    by_end = sorted(reads, key=lambda op: op.answered)
    ended = 0
    for op in sorted(reads, key=lambda op: op.invoked):
        while by_end[ended].answered < op.invoked:
            if longest is None or len(by_end[ended].answer[2]) > len(longest.answer[2]):
                longest = by_end[ended]
            ended += 1
        if longest is not None and not op.answer[2].startswith(longest.answer[2]):
            wrong.append(f"seen: {longest}, and then {op}")
    return wrong


def _wrong_size(op: Op, size: int, appended: list[Op], lost: list[Op]) -> list[str]:
    """`lost`: appends to nobody knows which file."""
    least = sum(by.answered < op.invoked for by in appended)
    most = sum(by.invoked < op.answered for by in [*appended, *lost])
    if least * RECORD_BYTES <= size <= most * RECORD_BYTES:
        return []
    return [f"{least} to {most} records were there: {op}"]


def check_stamps(ops: Iterable[Op]) -> list[str]:
    """put(name, stamp) and get(name) -> stamp, of files that stay where they are. Close-to-open."""
    puts: dict[str, list[Op]] = defaultdict(list)
    gets: list[Op] = []
    for op in ops:
        if op.verb == "put" and (op.ok or op.unsure):
            puts[op.args[0]].append(op)
        elif op.verb == "get" and op.ok:
            gets.append(op)
    last: dict[str, tuple[list[int], list[int]]] = {}
    for name, mine in puts.items():
        ended = sorted((op.answered, op.invoked) for op in mine if not op.unsure)
        starts: list[int] = []
        for _, start in ended:
            starts.append(max(start, starts[-1] if starts else 0))
        last[name] = [end for end, _ in ended], starts
    wrong = []
    for op in gets:
        ends, starts = last.get(op.args[0], ([], []))
        before = bisect_left(ends, op.invoked)
        newest = starts[before - 1] if before else 0  # the last that began of those that had ended
        by = next((p for p in puts[op.args[0]] if p.args[1] == op.answer[1]), None)
        if by is None:
            if op.answer[1] or before:
                wrong.append(f"no such stamp at that time: {op}")
            continue
        ended_at = FOREVER if by.unsure else by.answered
        if by.invoked > op.answered or ended_at < newest:
            wrong.append(f"stale, by {by}: {op}")
    return wrong
