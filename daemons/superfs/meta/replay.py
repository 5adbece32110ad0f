"""A client's log: what it did by itself is done again here, by the same rules, and compared.

All or nothing. Whatever a rule refuses, and any difference between what the client says that the
log comes to and what it does come to, is LOG_REFUSED; what a client may try again, or another one
stands in the way of, keeps its own code. Malformed is BAD_REQUEST (docs/decisions/0019).
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from superfs.core.attrs import PACKED_ATTR_BYTES, Attr, pack_attr, unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import FIRST_DATA_GENERATION, GENERATION_HALF
from superfs.core.limits import GENERATION_RUNS_MAX, LOG_ENTRIES_MAX, MANY_ENTRIES_MAX
from superfs.core.namespace.access import check_removal
from superfs.core.namespace.find import find_directory, find_inode, inode_of
from superfs.core.namespace.inodes import remove_link, save
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.publish import reap_lost
from superfs.core.namespace.txn import Caller, Ref
from superfs.meta.columns import decode_columns, decode_names
from superfs.meta.logfiles import CHANGE_AHEAD_MAX, Numbers, put_files, stamp_names
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Directory
    from superfs.meta.store import LmdbTxn

Run = Callable[[str, Caller, Any], Outcome]
"""A verb of dispatch.py."""

_OWN_CODES = frozenset((
    Code.NO_SPACE, Code.QUOTA, Code.BAD_REQUEST, Code.TOO_LARGE, Code.FORBIDDEN, Code.DAMAGED,
    Code.IO, Code.LOG_REFUSED,
))  # fmt: skip
_COMPARED_OF_DIRECTORIES = ("generation", "mode", "nlink", "uid", "gid", "size")
_COMPARED = (
    *_COMPARED_OF_DIRECTORIES, "place", "rdev", "flags", "data_generation", "chains",
)  # fmt: skip
_RULES = frozenset((
    "mkdir", "rmdir", "rename", "link", "setattr", "publish", "setxattr", "removexattr",
))  # fmt: skip


class Delegation:
    """What a session may number by itself. FORBIDDEN for one that may not."""

    def __init__(self, txn: LmdbTxn, caller: Caller) -> None:
        found = txn.get_session(caller.session)
        if not caller.trusted or found is None or not found.range:
            raise FsError(Code.FORBIDDEN, "only for sessions with a range of numbers")
        self._txn = txn
        self._session = caller.session
        self._record = found
        self.numbers = Numbers(found.range, found.used)

    def add_generations(self, first: int, count: int) -> None:
        runs = (*self._record.runs, (first, first + count - 1))
        self._record.runs = runs[-GENERATION_RUNS_MAX:]

    def use_generation(self, generation: int) -> None:
        """In the order they were reserved in, and each once."""
        runs = self._record.runs
        for index, (first, last) in enumerate(runs):
            if first <= generation <= last:
                rest = ((generation + 1, last),) if generation < last else ()
                self._record.runs = rest + runs[index + 1 :]
                return
        raise FsError(Code.LOG_REFUSED, f"generation {generation} is not reserved, or was used")

    def save(self) -> None:
        self._record.used = self.numbers.used
        self._txn.put_session(self._session, self._record)


def replay(txn: LmdbTxn, caller: Caller, m: meta_pb2.Log, run: Run) -> Outcome:
    """`number`: the commit; `dirs`: the directories afterwards; `listing.attrs`: what `attrs`
    names."""
    if len(m.entries) > LOG_ENTRIES_MAX:
        raise FsError(Code.TOO_LARGE, f"{len(m.entries)} entries, at most {LOG_ENTRIES_MAX}")
    if len(m.attrs) % PACKED_ATTR_BYTES:
        raise FsError(Code.BAD_REQUEST, "attributes that are cut off")
    delegation = Delegation(txn, caller)
    if m.lost:
        _bury(txn, caller, m)
        return Outcome(number=txn.commit)
    try:
        with txn.all_or_nothing():
            replayed = _Replay(txn, caller, delegation, run)
            outcome = replayed.run(m)
            delegation.save()
    except FsError as error:
        if error.code is Code.LOG_REFUSED:
            _bury(txn, caller, m)
        raise
    return outcome


def made_by(m: meta_pb2.Log) -> set[int]:
    """Directories, and files that have got a second name: what has a lease of its own from then
    on."""
    made = {entry.ino for entry in m.entries if entry.WhichOneof("verb") == "mkdir"}
    links = (entry for entry in m.entries if entry.WhichOneof("verb") == "link")
    return made | {entry.link.inode.ino for entry in links}


def _bury(txn: LmdbTxn, caller: Caller, m: meta_pb2.Log) -> None:
    """Files of a log that was refused, or given up, will never be: their numbers are used up, and
    what lies at the data daemons for them goes. It is no change of the file system, as a debt is
    none."""
    delegation = Delegation(txn, caller)
    chains = txn.all_chains()
    for entry in m.entries:
        if entry.WhichOneof("verb") == "publish":
            _bury_data(txn, entry.publish)
        if entry.WhichOneof("verb") != "files":
            continue
        try:
            columns = decode_columns(entry.files)
        except FsError:
            continue
        for packed in columns.attrs:
            attr = unpack_attr(packed)
            if delegation.numbers.take_if_new(attr.ino) and attr.data_generation:
                attr.place, attr.chains = attr.ino, chains
                attr.data_generation = FIRST_DATA_GENERATION
                txn.reap_data(attr)
    delegation.save()
    txn.rows.changes -= 1


def _bury_data(txn: LmdbTxn, m: meta_pb2.Publish) -> None:
    """Written for a file that does not use that generation any more. What is in the one that it
    uses lies behind its size, or was to be overwritten."""
    try:
        attr = find_inode(txn, Ref(m.inode.ino, m.inode.generation, m.inode.place))
    except FsError:
        return  # removed, with all its data; or somebody else's by now
    if m.data_generation and m.data_generation != attr.data_generation:
        attr.chains = attr.chains or txn.all_chains()
        reap_lost(txn, attr, m.data_generation)


class _Replay:
    """One run over the entries."""

    def __init__(self, txn: LmdbTxn, caller: Caller, delegation: Delegation, run: Run) -> None:
        self._txn = txn
        self._caller = caller
        self._delegation = delegation
        self._run = run
        self._dirs: dict[int, None] = {}
        self._told: set[int] = set()
        """Directories, and files with several names, of which the client says what they look like
        in the end."""

    def run(self, m: meta_pb2.Log) -> Outcome:
        txn = self._txn
        given = _unpack_all(m.attrs)
        self._told = {attr.ino for attr in given if attr.ino == attr.place}
        for index, entry in enumerate(m.entries):
            try:
                self._entry(entry)
            except FsError as error:
                raise _refusal(error, f"entry {index} ({entry.WhichOneof('verb')})") from None
        packed = b"".join([pack_attr(self._settle(attr)) for attr in given])
        directories = [txn.get_directory(ino) for ino in self._dirs]
        return Outcome(
            None,
            tuple(d.attr for d in directories if d is not None),
            number=txn.commit,
            listing=meta_pb2.Listing(count=len(given), attrs=packed),
            places=frozenset(attr.place for attr in given),
        )

    def _entry(self, entry: meta_pb2.LogEntry) -> None:
        verb = entry.WhichOneof("verb") or ""
        if entry.HasField("caller"):
            c = entry.caller
            session = self._caller.session
            self._caller = Caller(
                c.uid, c.gid, frozenset(c.groups), c.umask & 0o777, session, trusted=True
            )
        if entry.now_ns > 0:
            self._txn.operation_at(entry.now_ns)
        if verb == "files":
            self._files(entry.files)
        elif verb == "unlinks":
            self._unlink_all(entry.unlinks)
        elif verb == "mkdir":
            self._mkdir(entry)
        elif verb in _RULES:
            self._note(self._run(verb, self._caller, getattr(entry, verb)))
        else:
            raise FsError(Code.BAD_REQUEST, "an entry without a verb")

    def _note(self, outcome: Outcome) -> None:
        for attr in outcome.dirs:
            self._dirs[attr.ino] = None

    def _directory(self, m: Any) -> Directory:  # noqa: ANN401
        directory = find_directory(self._txn, Ref(m.ino, m.generation, m.place))
        self._dirs[directory.attr.ino] = None
        return directory

    def _files(self, m: meta_pb2.LogFiles) -> None:
        directory = self._directory(m.dir)
        numbers, told = self._delegation.numbers, directory.attr.ino in self._told
        put_files(self._txn, directory, decode_columns(m), numbers, told=told)

    def _mkdir(self, entry: meta_pb2.LogEntry) -> None:
        txn = self._txn
        if entry.generation < GENERATION_HALF:
            raise FsError(Code.BAD_REQUEST, f"generation {entry.generation} is none of a log")
        self._delegation.use_generation(entry.generation)
        txn.pinned_generation = entry.generation
        try:
            outcome = self._run("mkdir", self._caller, entry.mkdir)
        finally:
            txn.pinned_generation = 0
        made = outcome.attr
        assert made is not None
        if made.ino != entry.ino:
            raise FsError(Code.LOG_REFUSED, f"number {made.ino:#x}, not {entry.ino:#x}")
        self._note(outcome)
        self._dirs[made.ino] = None

    def _unlink_all(self, m: meta_pb2.LogUnlinks) -> None:
        txn, caller = self._txn, self._caller
        directory = self._directory(m.dir)
        names = decode_names(m.names)
        if len(names) > MANY_ENTRIES_MAX:
            raise FsError(Code.TOO_LARGE, f"{len(names)} names, at most {MANY_ENTRIES_MAX}")
        ino = directory.attr.ino
        for name in names:
            check_name(name)
            dentry = txn.get_dentry(ino, name)
            if dentry is None:
                raise FsError(Code.NOT_FOUND, repr(name))
            if stat.S_ISDIR(dentry.mode):
                raise FsError(Code.IS_DIRECTORY, repr(name))
            attr = inode_of(txn, ino, dentry)
            check_removal(txn, caller, directory.attr, attr)
            txn.delete_dentry(ino, name)
            ctime_ns = attr.ctime_ns
            remove_link(txn, caller, attr, keep=False)
            if attr.nlink and attr.ino in self._told:  # when that was, the log says in the end
                attr.ctime_ns = ctime_ns
                txn.put_inode(attr)
        stamp_names(txn, directory, -len(names), told=ino in self._told)

    # ---- what it has come to

    def _settle(self, given: Attr) -> Attr:
        """The inode as it is now: as the client says, or the log is refused. Its times and
        `change` go on to where the client has them."""
        txn = self._txn
        directory = None
        if given.ino == given.place:
            directory = txn.get_directory(given.ino)
        attr = directory.attr if directory is not None else txn.get_inode(given.place, given.ino)
        if attr is None:
            raise FsError(Code.LOG_REFUSED, f"inode {given.ino:#x} is not there")
        for field in _COMPARED_OF_DIRECTORIES if directory is not None else _COMPARED:
            if getattr(attr, field) != getattr(given, field):
                raise FsError(
                    Code.LOG_REFUSED,
                    f"{field} of inode {given.ino:#x} is {getattr(attr, field)}, "
                    f"not {getattr(given, field)}",
                )
        if given.change > txn.commit + CHANGE_AHEAD_MAX:
            raise FsError(Code.BAD_REQUEST, f"a change of the future: {given.change}")
        settled = attr.copy()
        settled.atime_ns = max(attr.atime_ns, given.atime_ns)
        settled.mtime_ns = max(attr.mtime_ns, given.mtime_ns)
        settled.ctime_ns = max(attr.ctime_ns, min(given.ctime_ns, txn.latest_ns))
        settled.change = max(attr.change, given.change)
        if settled != attr:
            save(txn, settled, directory)
        return settled


def _refusal(error: FsError, where: str) -> FsError:
    detail = (
        f"{where}: {error}" if error.code is not Code.LOG_REFUSED else (f"{where}: {error.detail}")
    )
    if error.code in _OWN_CODES or error.retryable:
        return FsError(error.code, detail)
    return FsError(Code.LOG_REFUSED, detail)


def _unpack_all(packed: bytes) -> list[Attr]:
    starts = range(0, len(packed), PACKED_ATTR_BYTES)
    return [unpack_attr(packed, start) for start in starts]
