"""What the mount remembers, for how long, and in which order answers count."""

from __future__ import annotations

from superfs.client.traffic import Traffic
from superfs.core.attrs import Attr
from superfs.core.ids import ROOT, ROOT_GENERATION
from superfs.core.namespace.txn import Ref
from superfs.mount.atimes import DAY_NS, is_due
from superfs.mount.attrcache import AttrCache
from superfs.mount.leases import NEVER, Lease
from superfs.mount.meter import Hits, Meter
from superfs.mount.nodes import Node, Nodes


def attr(ino: int = 5, *, change: int = 1, size: int = 0, generation: int = 1) -> Attr:
    return Attr(ino, generation, ROOT, 0o100644, 1, 0, 0, size, change=change)


def make() -> tuple[AttrCache, Nodes]:
    nodes = Nodes(Ref(ROOT, ROOT_GENERATION, ROOT))
    return AttrCache(nodes.held), nodes


def until(moment: float) -> Lease:
    return Lease(until=moment)


def node_of(found: tuple[Node | None, Lease] | None) -> Node | None:
    assert found is not None, "it is not known"
    return found[0]


def test_an_older_answer_never_replaces_a_newer_one() -> None:
    cache, nodes = make()
    node = nodes.of(attr())
    cache.store(node, attr(change=9, size=9), until(11.0))
    cache.store(node, attr(change=3, size=3), until(12.5))
    assert node.attr is not None
    assert node.attr.size == 9
    assert cache.fresh(node, 10.9) is node.attr
    assert cache.fresh(node, 11.1) is None, "the old answer did not make it fresher"
    cache.store(node, attr(change=9, size=9), until(13.0))
    assert cache.fresh(node, 12.9) is not None
    cache.store(node, attr(change=9, size=9), NEVER)
    assert cache.fresh(node, 12.9) is not None, "the same again takes nothing away"
    cache.store(node, attr(change=10, size=9), NEVER)
    assert cache.fresh(node, 10.0) is None, "a newer one that nothing covers"


def test_a_name_is_not_learned_across_an_own_change() -> None:
    cache, nodes = make()
    node = nodes.of(attr())
    changes = nodes.root.changes
    cache.changed(nodes.root, b"other")
    cache.learn(nodes.root, b"a", node, until(11.0), changes)
    assert cache.resolve(nodes.root, b"a", 10.1) is None
    cache.learn(nodes.root, b"a", node, until(11.0), nodes.root.changes)
    assert node_of(cache.resolve(nodes.root, b"a", 10.9)) is node
    assert cache.resolve(nodes.root, b"a", 11.0) is None
    assert cache.last_known(nodes.root, b"a") is node
    cache.changed(nodes.root, b"a")
    assert cache.resolve(nodes.root, b"a", 10.1) is None
    assert cache.last_known(nodes.root, b"a") is node, "the kernel may believe it still"


def test_a_name_that_is_not_there_is_known_too() -> None:
    cache, nodes = make()
    cache.learn(nodes.root, b"a", None, until(11.0), 0)
    assert node_of(cache.resolve(nodes.root, b"a", 10.9)) is None
    assert cache.resolve(nodes.root, b"a", 11.0) is None


def test_a_directory_that_is_known_whole() -> None:
    cache, nodes = make()
    lease, node, other = until(11.0), nodes.of(attr()), nodes.of(attr(6))
    cache.keep_listing(nodes.root, {b"b": node}, 1, lease, 0)
    listing = cache.listing(nodes.root, 10.5)
    assert listing is not None
    assert node_of(cache.resolve(nodes.root, b"b", 10.5)) is node
    assert node_of(cache.resolve(nodes.root, b"a", 10.5)) is None, "what is not in it is not there"
    cache.changed(nodes.root, b"a")
    assert cache.resolve(nodes.root, b"a", 10.5) is None, "unsure"
    assert listing.in_order() is None
    cache.learn(nodes.root, b"a", other, lease, nodes.root.changes)
    assert listing.in_order() == ([b"a", b"b"], [other, node])
    cache.changed(nodes.root, b"b")
    cache.learn(nodes.root, b"b", None, lease, nodes.root.changes)
    assert listing.in_order() == ([b"a"], [other])
    assert cache.names == 1
    assert cache.listing(nodes.root, 11.0) is None
    cache.keep_listing(nodes.root, {b"b": node}, 1, until(12.0), 0)
    assert cache.listing(nodes.root, 10.0) is None, "it was read before the change"


def test_names_of_a_lease_that_ended_are_remembered_for_what_the_kernel_believes() -> None:
    cache, nodes = make()
    first, second = Lease(ROOT, 11.0), Lease(ROOT, 11.0)
    node, other = nodes.count(nodes.of(attr())), nodes.of(attr(6))
    cache.learn(nodes.root, b"a", node, first, 0)
    cache.learn(nodes.root, b"b", other, first, 0)
    first.until = 0.0
    assert cache.resolve(nodes.root, b"a", 1.0) is None
    cache.learn(nodes.root, b"c", other, second, 0)
    assert cache.resolve(nodes.root, b"a", 1.0) is None, "a new lease makes no old name good"
    assert cache.last_known(nodes.root, b"a") is node
    assert cache.last_known(nodes.root, b"b") is None, "the kernel has never heard of it"
    assert sorted(cache.names_of(nodes.root)) == [(b"a", node), (b"c", other)]
    assert cache.names == 2
    cache.forget(nodes.root)
    assert cache.last_known(nodes.root, b"a") is None
    assert cache.names == 1


def test_names_are_not_those_of_a_directory_that_was_here_before() -> None:
    cache, nodes = make()
    here, node = nodes.of(attr(7)), nodes.of(attr())
    lease = Lease(7, 11.0)
    cache.learn(here, b"a", node, lease, 0)
    nodes.of(attr(7, generation=2, change=2))
    assert here.generation == 2
    assert cache.resolve(here, b"a", 1.0) is None
    cache.learn(here, b"b", node, lease, 0)
    assert cache.resolve(here, b"a", 1.0) is None
    assert node_of(cache.resolve(here, b"b", 1.0)) is node


def test_what_the_kernel_knows_is_counted_by_lease() -> None:
    cache, nodes = make()
    node = nodes.count(nodes.of(attr()))
    nodes.count(node)
    assert nodes.held[ROOT] == 2, "the root itself, and this one once"
    moved = attr(change=2)
    moved.place = 77
    cache.store(node, moved, NEVER)
    assert (nodes.held[ROOT], nodes.held[77]) == (1, 1)
    nodes.forget([(5, 2)])
    assert nodes.held[77] == 0
    assert nodes.held.let_go == {77}


def test_a_number_that_comes_back_starts_anew() -> None:
    cache, nodes = make()
    node = nodes.count(nodes.of(attr(change=4)))
    cache.store(node, attr(change=4), until(11.0))
    cache.bury(node, attr(change=5))
    again = nodes.of(attr(change=8, generation=2))
    assert again is node
    assert (again.generation, again.gone, again.attr) == (2, False, None)
    cache.store(again, attr(change=8, generation=2), until(12.0))
    assert nodes.of(attr(change=4)).generation == 2, "an answer about the dead one is late"


def test_forgets_and_lookups_balance() -> None:
    _, nodes = make()
    for _ in range(3):
        nodes.count(nodes.of(attr()))
    assert nodes.forget([(5, 2)]) == []
    assert [n.number for n in nodes.forget([(5, 1)])] == [5]
    assert len(nodes) == 1


def test_relatime() -> None:
    a = attr()
    a.mtime_ns = a.ctime_ns = 100
    assert is_due("relatime", a, 100, 200)
    assert not is_due("relatime", a, 101, 200)
    assert is_due("relatime", a, 101, 101 + DAY_NS)
    assert is_due("strictatime", a, 101, 200)
    assert not is_due("noatime", a, 0, 200)


def test_the_meter_counts_in_powers_of_two() -> None:
    meter = Meter()
    gauge = meter.of("read")
    for ns in (100, 2_000_000, 10**12):
        gauge.note(ns)
    meter.figures["inodes"] = ("Inodes", lambda: 3)
    hits = meter.caches["names"] = Hits()
    hits.hits, hits.misses = 7, 2
    traffic = Traffic()
    assert traffic.sending(bytes)(b"123") == b"123"
    assert traffic.receiving(len)(b"12345") == 5
    meter.traffic = {"metad-1": traffic}
    seconds, errors, found, missed, messages, size, inodes = meter.collect()
    counts = {s.labels["le"]: s.value for s in seconds.samples if s.name.endswith("_bucket")}
    assert counts["+Inf"] == 3
    assert sorted(counts.values())[0] == 1
    assert errors.samples[0].value == 0
    assert inodes.samples[0].value == 3
    assert (found.samples[0].labels, found.samples[0].value) == ({"cache": "names"}, 7)
    assert missed.samples[0].value == 2
    assert [s.value for s in messages.samples] == [1, 1]
    assert {s.labels["direction"]: s.value for s in size.samples} == {"sent": 3, "received": 5}
    assert meter.served("read", "write") == 3
