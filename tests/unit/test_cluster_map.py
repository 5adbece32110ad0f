"""The rules of the cluster map, and its records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superfs.cluster import records
from superfs.cluster.codec import map_to_wire, node_from_wire
from superfs.cluster.placement import (
    Chain,
    Map,
    Node,
    Role,
    SlotRange,
    faults,
    register,
)
from superfs.core.errors import Code, FsError
from superfs.core.ids import SLOTS
from superfs.daemon.statedir import Identity
from superfs.v1 import cluster_pb2

EMPTY = Map("c" * 32)
IDENTITY = Identity(EMPTY.cluster_id, "clusterd", 1, 1)
META = Node(1, Role.META, ("unix:/m",), "host")
DATA = Node(2, Role.DATA, ("unix:/d", "10.0.0.1:7401"))


def test_the_first_metadata_daemon_gets_every_slot() -> None:
    new = register(EMPTY, META)
    assert new.slots == (SlotRange(0, SLOTS - 1, 1),)
    assert new.epoch == EMPTY.epoch + 1
    with pytest.raises(FsError) as caught:
        register(new, replace(META, node_id=9))
    assert caught.value.code is Code.WRONG_IDENTITY  # starting it again cannot help
    assert "node 1 is it" in caught.value.detail


def test_each_data_daemon_gets_a_chain() -> None:
    found = EMPTY
    for node_id in (7, 3, 5):
        found = register(found, replace(DATA, node_id=node_id))
    assert found.chains == (Chain(1, (7,)), Chain(2, (3,)), Chain(3, (5,)))
    assert [n.node_id for n in found.nodes] == [3, 5, 7]


def test_register_is_idempotent_and_a_move_changes_the_epoch_only() -> None:
    found = register(register(EMPTY, META), DATA)
    assert register(found, DATA) is found
    moved = register(found, replace(DATA, addresses=("10.0.0.2:7401",)))
    assert moved.epoch == found.epoch + 1
    assert (moved.chains, moved.slots) == (found.chains, found.slots)


def test_a_node_keeps_its_role() -> None:
    with pytest.raises(FsError) as caught:
        register(register(EMPTY, META), replace(DATA, node_id=1))
    assert caught.value.code is Code.WRONG_IDENTITY


@pytest.mark.parametrize(
    "wrong",
    [
        {"node_id": 0},
        {"node_id": 1 << 16},
        {"role": 0},
        {"role": 3},
        {"addresses": []},
        {"addresses": ["x:1"] * 9},
        {"addresses": [""]},
        {"addresses": ["a\nb"]},
        {"addresses": ["x" * 256]},
        {"host_id": "y" * 65},
        {"host_id": "\x1b[2J"},
    ],
)
def test_a_node_from_the_wire_is_checked(wrong: dict[str, object]) -> None:
    whole = {"node_id": 4, "role": 2, "addresses": ["a:1"], "host_id": "h", **wrong}
    with pytest.raises(FsError) as caught:
        node_from_wire(cluster_pb2.Node(**whole))  # type: ignore[arg-type]
    assert caught.value.code is Code.INVALID


nodes = st.builds(
    Node,
    st.integers(1, 12),
    st.sampled_from(Role),
    st.lists(st.sampled_from(["a:1", "b:2", "unix:/c"]), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["", "h1", "h2"]),
)


@given(st.lists(nodes, max_size=30))
def test_any_order_of_joining(joining: list[Node]) -> None:
    found = EMPTY
    for node in joining:
        try:
            new = register(found, node)
        except FsError:
            continue
        assert not faults(new)
        assert new.node(node.node_id) == node
        assert new.epoch - found.epoch == (new != found)
        assert {c.chain_id for c in found.chains} <= {c.chain_id for c in new.chains}
        assert records.unpack(records.pack(IDENTITY, new)) == (IDENTITY, new)
        assert register(new, node) is new
        found = new
    wire = map_to_wire(found)
    assert [node_from_wire(n) for n in wire.nodes] == list(found.nodes)
    assert (wire.cluster_id, wire.epoch) == (found.cluster_id, found.epoch)


@given(st.data())
def test_every_damage_of_the_records_is_noticed(data: st.DataObject) -> None:
    good = records.pack(IDENTITY, register(register(EMPTY, META), DATA))
    older = records.pack(IDENTITY, register(EMPTY, META))
    key = data.draw(st.sampled_from(sorted(good)))
    bad = dict(good)
    match data.draw(st.sampled_from(["flip", "drop", "cut", "swap", "old"])):
        case "flip":
            value = bytearray(good[key])
            value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
            bad[key] = bytes(value)
        case "drop":
            del bad[key]
        case "cut":
            bad[key] = good[key][: data.draw(st.integers(0, len(good[key]) - 1))]
        case "swap":
            other = data.draw(st.sampled_from(sorted(good.keys() - {key})))
            bad[key], bad[other] = good[other], good[key]
        case "old":
            bad[key] = older.get(key, b"")
    if bad != good:
        with pytest.raises(FsError) as caught:
            records.unpack(bad)
        assert caught.value.code is Code.DAMAGED


def test_faults_are_found() -> None:
    good = register(register(EMPTY, META), DATA)
    for bad in (
        replace(good, epoch=0),
        replace(good, nodes=good.nodes[::-1]),
        replace(good, nodes=good.nodes[:1]),
        replace(good, slots=(SlotRange(0, SLOTS - 2, 1),)),
        replace(good, slots=(SlotRange(1, SLOTS - 1, 1),)),
        replace(good, slots=(SlotRange(0, SLOTS - 1, 2),)),
        replace(good, chains=(Chain(1, ()),)),
        replace(good, chains=(Chain(1, (2, 2)),)),
        replace(good, chains=(Chain(2, (2,)), Chain(1, (2,)))),
        replace(good, chains=(Chain(1, (1,)),)),
    ):
        assert faults(bad)
