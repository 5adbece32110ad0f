"""No stale answer after an acknowledged change: two mounts and a client of the SDK, in turn.

Everybody asks, twice, so that whatever may be repeated is. One of them changes something. Then
everybody asks again, and must say the same as the one who changed it. Leases last as long as they
do in life: what is stale stays so for the whole of a test.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.hammers import sdk_of
from harness.mount import Mount, fsck
from harness.posix import RENAME_EXCHANGE
from harness.worlds import Answer, OsWorld, SdkWorld, World, answer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

ACL = "system.posix_acl_access"
UNDEFINED = 0xFFFFFFFF


def acl(mask: int) -> bytes:
    """rw- for the owner, user 7 and the group; nothing for others; and a mask."""
    entries = [(1, 6, UNDEFINED), (2, 6, 7), (4, 6, UNDEFINED), (16, mask, UNDEFINED),
               (32, 0, UNDEFINED)]  # fmt: skip
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@dataclass
class Client:
    name: str
    world: World
    lstat: Callable[[str], os.stat_result]

    def ask(self, question: str, at: str) -> Answer:
        """'stat x', 'read x', 'times x', …, of what is below the directory `at`."""
        verb, _, path = question.partition(" ")
        path = f"{at}/{path}" if path else at
        if verb == "times":
            info = self.lstat(path)
            return info.st_mtime_ns, info.st_ctime_ns
        more: dict[str, tuple[object, ...]] = {
            "read": (0, 1 << 20),
            "getxattr": ("user.a",),
            "acl": (ACL,),
        }
        return answer_of(
            self.world, "getxattr" if verb == "acl" else verb, path, *more.get(verb, ())
        )


@pytest.fixture(scope="module")
def mounts() -> Iterator[list[Mount]]:
    with Cluster() as cluster, Mount(cluster, "m0") as first, Mount(cluster, "m1") as second:
        yield [first, second]
        fsck(cluster)
        trouble = [*cluster.trouble(), *first.trouble(), *second.trouble()]
        assert not trouble, "\n".join(trouble)


def _through(mount: Mount) -> Client:
    return Client(mount.point.name, OsWorld(mount.point), lambda path: os.lstat(mount.point / path))


@pytest.fixture(scope="module")
def clients(mounts: list[Mount]) -> Iterator[list[Client]]:
    with sdk_of(mounts[0].cluster) as fs:
        found = [_through(mount) for mount in mounts]
        yield [*found, Client("sdk", SdkWorld(fs, "/"), lambda path: fs.lstat(f"/{path}"))]


Step = tuple[object, ...]
# what is there before | what one of them does | what everybody is asked
CASES: dict[str, tuple[list[Step], list[Step], list[str]]] = {
    "create": ([], [("create", "x", 0o644, True)], ["stat x", "read x", "listdir", "times "]),
    "mkdir": ([], [("mkdir", "d", 0o755)], ["stat d", "listdir d", "stat ", "stat d/x"]),
    "rmdir": ([("mkdir", "d", 0o755)], [("rmdir", "d")], ["stat d", "listdir d", "stat "]),
    "unlink": ([("append", "x", b"1")], [("unlink", "x")], ["stat x", "read x", "listdir"]),
    "unlink and create": (
        [("append", "x", b"1")],
        [("unlink", "x"), ("append", "x", b"22")],
        ["stat x", "read x", "times x"],
    ),
    "rename": (
        [("append", "x", b"1")],
        [("rename", "x", "y", 0)],
        ["stat x", "stat y", "read x", "read y", "listdir"],
    ),
    "replace": (
        [("append", "x", b"1"), ("append", "y", b"22")],
        [("rename", "x", "y", 0)],
        ["stat x", "stat y", "read y", "listdir"],
    ),
    "exchange": (
        [("append", "x", b"1"), ("append", "y", b"22")],
        [("rename", "x", "y", RENAME_EXCHANGE)],
        ["stat x", "stat y", "read x", "read y"],
    ),
    "exchange a file and a directory": (
        [("append", "x", b"1"), ("mkdir", "d", 0o755), ("append", "d/z", b"22")],
        [("rename", "x", "d", RENAME_EXCHANGE)],
        ["stat x", "stat d", "read d", "listdir x", "read x/z", "read d/z"],
    ),
    "rename to another directory": (
        [("mkdir", "d", 0o755), ("append", "x", b"1")],
        [("rename", "x", "d/y", 0)],
        ["stat x", "stat d/y", "read d/y", "listdir", "listdir d", "times d"],
    ),
    "rename a directory": (
        [("mkdir", "d", 0o755), ("append", "d/x", b"1"), ("mkdir", "d/e", 0o755)],
        [("rename", "d", "f", 0), ("append", "f/x", b"22")],
        ["stat d", "stat f", "read d/x", "read f/x", "listdir f", "listdir d/e", "stat f/e"],
    ),
    "replace a directory": (
        [("mkdir", "d", 0o755), ("append", "d/x", b"1"), ("mkdir", "e", 0o755)],
        [("rename", "d", "e", 0)],
        ["stat d", "stat d/x", "read e/x", "listdir e", "listdir"],
    ),
    "chmod": ([("append", "x", b"1")], [("chmod", "x", 0o400)], ["stat x", "times x"]),
    "chmod of a directory": ([("mkdir", "d", 0o755)], [("chmod", "d", 0o700)], ["stat d"]),
    "chown": ([("append", "x", b"1")], [("chown", "x", 5, 7)], ["stat x"]),
    "utime": ([("append", "x", b"1")], [("utime", "x", 10**9, 2 * 10**9)], ["times x"]),
    "truncate": ([("append", "x", b"1" * 9000)], [("truncate", "x", 4000)], ["stat x", "read x"]),
    "extend": ([("append", "x", b"1")], [("truncate", "x", 9000)], ["stat x", "read x"]),
    "append": ([("append", "x", b"1")], [("append", "x", b"22")], ["stat x", "read x", "times x"]),
    "write": ([("append", "x", b"1")], [("write", "x", 0, b"2")], ["read x", "times x"]),
    "write much": (
        [("append", "x", b"1" * 300_000)],
        [("write", "x", 100_000, b"2" * 100_000)],
        ["read x", "times x"],
    ),
    "setxattr": (
        [("append", "x", b"1"), ("setxattr", "x", "user.a", b"1", 0)],
        [("setxattr", "x", "user.a", b"2", 0), ("setxattr", "x", "user.b", b"2", 0)],
        ["getxattr x", "listxattr x"],
    ),
    "removexattr": (
        [("append", "x", b"1"), ("setxattr", "x", "user.a", b"1", 0)],
        [("removexattr", "x", "user.a")],
        ["getxattr x", "listxattr x"],
    ),
    "ACL": (
        [("append", "x", b"1"), ("setxattr", "x", ACL, acl(6), 0)],
        [("setxattr", "x", ACL, acl(4), 0)],
        ["acl x", "stat x"],
    ),
    "link": (
        [("mkdir", "d", 0o755), ("append", "x", b"1")],
        [("link", "x", "d/y")],
        ["stat x", "stat d/y", "read d/y", "listdir d"],
    ),
    "through another name": (
        [("mkdir", "d", 0o755), ("append", "x", b"1"), ("link", "x", "d/y")],
        [("append", "d/y", b"22"), ("chmod", "x", 0o600)],
        ["stat x", "stat d/y", "read x", "read d/y", "times x"],
    ),
    "unlink one of two": (
        [("mkdir", "d", 0o755), ("append", "x", b"1"), ("link", "x", "d/y")],
        [("unlink", "d/y")],
        ["stat x", "stat d/y", "listdir d"],
    ),
    "rename one of two": (
        [("mkdir", "d", 0o755), ("append", "x", b"1"), ("link", "x", "d/y")],
        [("rename", "d/y", "z", 0), ("append", "z", b"22")],
        ["stat x", "stat z", "stat d/y", "read x", "read z"],
    ),
    "symlink": (
        [("append", "x", b"1"), ("append", "y", b"22"), ("symlink", "x", "s")],
        [("symlink", "y", "new"), ("rename", "new", "s", 0)],
        ["readlink s", "stat s", "listdir", "stat new"],
    ),
}  # fmt: skip


def run(client: Client, at: str, steps: list[Step]) -> None:
    for verb, *args in steps:
        paths = 2 if verb in ("rename", "link") else 1
        given = [f"{at}/{a}" if i < paths else a for i, a in enumerate(args)]
        if verb == "symlink":
            given = [args[0], f"{at}/{args[1]}"]
        if verb == "append":
            answer_of(client.world, "create", given[0], 0o644, False)
        answer = answer_of(client.world, str(verb), *given)
        assert answer[0] == "ok", (client.name, verb, given, answer)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("who", range(3), ids=["m0", "m1", "sdk"])
def test_everybody_sees_it(clients: list[Client], who: int, case: str) -> None:
    before, changes, questions = CASES[case]
    changer = clients[who]
    at = f"{case}-{changer.name}".replace(" ", "_")
    clients[0].world.mkdir(at, 0o755)
    run(clients[0], at, before)
    old: dict[str, Answer] = {}
    for question in questions:
        for client in clients * 2:
            said = answers(client, question, at)
            assert said == old.setdefault(question, said), (client.name, question)
    run(changer, at, changes)
    for question in questions:
        right = answers(changer, question, at)
        for client in clients:
            assert answers(client, question, at) == right, (client.name, question)
    assert [answers(changer, q, at) for q in questions] != [old[q] for q in questions]
    run_back(changer, at)
    for client in clients:
        assert client.ask("listdir", at) == ("ENOENT",), client.name


def answers(client: Client, question: str, at: str) -> Answer:
    try:
        return client.ask(question, at)
    except FileNotFoundError:  # "times" asks without a net
        return ("ENOENT",)


def run_back(client: Client, at: str) -> None:
    """Removes everything, and the directory."""
    for name in client.world.listdir(at)[0]:  # type: ignore[attr-defined]
        path = f"{at}/{name}"
        if answer_of(client.world, "unlink", path)[0] != "ok":
            run_back(client, path)
    client.world.rmdir(at)
