"""What fsck makes of the answers of daemons."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, cast

from superfs.cli.admin import Admin, Daemon
from superfs.cli.fsck import Finding, Report, check
from superfs.v1 import cluster_pb2, common_pb2, data_pb2, meta_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

Keys = list[tuple[int, int]]


def daemon(name: str) -> Daemon:
    role = cluster_pb2.ROLE_META if name.startswith("metad") else cluster_pb2.ROLE_DATA
    return Daemon(name, cluster_pb2.Node(node_id=int(name[-1]), role=role))


class FakeAdmin:
    """`data`: what each daemon lists, one entry a round; the last one is repeated."""

    def __init__(
        self,
        data: dict[str, list[Keys]],
        findings: dict[str, list[common_pb2.Finding]] | None = None,
    ) -> None:
        self.daemons = [daemon(name) for name in data]
        self._data = data
        self._findings = findings or {}
        self.rounds = 0
        self.unused: set[int] = set()

    def check(self, daemon: Daemon, *, verify_data: bool) -> Iterator[common_pb2.Finding]:
        assert verify_data, "unless it is asked not to"
        yield from self._findings.get(daemon.name, [])

    def list_data(self, daemon: Daemon) -> Iterator[meta_pb2.DataList | data_pb2.StoredList]:
        rounds = self._data[daemon.name]
        keys = rounds.pop(0) if len(rounds) > 1 else rounds[0]
        self.rounds += daemon.is_meta
        for ino, generation in keys:
            sizes = array("Q", [0] if ino in self.unused else [1] if self.unused else [])
            yield meta_pb2.DataList(
                inos=array("Q", [ino]).tobytes(),
                generations=array("I", [generation]).tobytes(),
                sizes=sizes.tobytes(),
            )


def run(admin: FakeAdmin) -> tuple[Report, float]:
    now = 0.0

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    return check(cast("Admin", admin), clock=lambda: now, pause=pause), now


def test_clean() -> None:
    admin = FakeAdmin({"metad-1": [[(5, 1), (6, 2)]], "datad-2": [[(5, 1)]], "datad-3": [[(6, 2)]]})
    report, waited = run(admin)
    assert report == Report(checked=["metad-1", "datad-2", "datad-3"], files_with_data=2)
    assert waited == 0


def test_a_leak_is_reported_when_it_stays() -> None:
    admin = FakeAdmin({"metad-1": [[]], "datad-2": [[(0x1F, 3)]]})
    report, waited = run(admin)
    expected = Finding(
        "datad-2",
        "data-without-inode",
        "inode 0x1f data generation 3",
        "space that no file uses: a leak",
    )
    assert report.findings == [expected]
    assert waited > 10


def test_what_is_being_removed_is_no_leak() -> None:
    admin = FakeAdmin({"metad-1": [[]], "datad-2": [[(5, 1)], [(7, 1)], [(7, 1)], []]})
    report, _ = run(admin)
    assert report.findings == []
    assert admin.rounds == 2, "(5, 1) had gone by the second look, (7, 1) was not there at first"


def test_an_inode_without_data_is_a_note() -> None:
    report, _ = run(FakeAdmin({"metad-1": [[(5, 1)]], "datad-2": [[]]}))
    assert report.findings == []
    assert [note.kind for note in report.notes] == ["inode-without-data"]


def test_a_file_that_is_being_written_before_it_has_a_name_is_neither() -> None:
    admin = FakeAdmin({"metad-1": [[(5, 1), (6, 1), (7, 1)]], "datad-2": [[(5, 1), (7, 1)]]})
    admin.unused = {5, 6}
    report, waited = run(admin)
    assert report == Report(checked=["metad-1", "datad-2"], files_with_data=1)
    assert waited == 0


def test_findings_of_the_daemons_themselves() -> None:
    error = common_pb2.Finding(
        severity=common_pb2.Finding.ERROR, kind="bad-extent", object="x", detail="crc"
    )
    note = common_pb2.Finding(kind="curious", object="y")
    admin = FakeAdmin({"metad-1": [[]], "datad-2": [[]]}, {"metad-1": [note], "datad-2": [error]})
    report, _ = run(admin)
    assert report.findings == [Finding("datad-2", "bad-extent", "x", "crc")]
    assert report.notes == [Finding("metad-1", "curious", "y")]
