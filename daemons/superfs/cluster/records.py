"""What clusterd writes down, and how: one LMDB database, a few records.

    key                     record (JSON, sorted keys, UTF-8)
    identity                {"cluster_id", "role", "node_id", "format"}: as in the file beside it
    map                     {"cluster_id", "epoch"}
    node/00007              {"role", "addresses", "host_id"}
    slots/0000              {"last", "node_id"}; the key is the first slot
    chain/00001             {"node_ids"}
    tally                   {"count", "sum"} over all records above: a missing one is noticed

Every value is xxh3_64 of (key, record) in 8 bytes, then the record. `sum` adds up these
checksums mod 2^64. A record that does not match is never used.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_64_digest

from superfs.cluster.placement import Chain, Map, Node, Role, SlotRange, faults
from superfs.core.errors import Code, FsError
from superfs.daemon.statedir import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKSUM_BYTES = 8
SUM_MASK = (1 << 64) - 1
IDENTITY, MAP, TALLY = b"identity", b"map", b"tally"
_NODE, _SLOTS, _CHAIN = b"node/", b"slots/", b"chain/"

Records = dict[bytes, bytes]
"""Sealed values by key."""


def seal(key: bytes, record: object) -> bytes:
    body = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return _checksum(key, body) + body


def unseal(key: bytes, value: bytes) -> Any:  # noqa: ANN401 - JSON
    body = value[CHECKSUM_BYTES:]
    if value[:CHECKSUM_BYTES] != _checksum(key, body):
        raise FsError(Code.DAMAGED, f"record {key.decode(errors='backslashreplace')} is damaged")
    return json.loads(body)


def pack(identity: Identity, cluster_map: Map) -> Records:
    """Everything the store holds for this map, the tally included."""
    assert identity.cluster_id == cluster_map.cluster_id
    plain: dict[bytes, object] = {
        IDENTITY: asdict(identity),
        MAP: {"cluster_id": cluster_map.cluster_id, "epoch": cluster_map.epoch},
    }
    for node in cluster_map.nodes:
        plain[b"%s%05d" % (_NODE, node.node_id)] = {
            "role": int(node.role),
            "addresses": list(node.addresses),
            "host_id": node.host_id,
        }
    for share in cluster_map.slots:
        plain[b"%s%04d" % (_SLOTS, share.first)] = {"last": share.last, "node_id": share.node_id}
    for chain in cluster_map.chains:
        plain[b"%s%05d" % (_CHAIN, chain.chain_id)] = {"node_ids": list(chain.node_ids)}
    sealed = {key: seal(key, record) for key, record in plain.items()}
    sealed[TALLY] = seal(TALLY, _tally(sealed))
    return sealed


def unpack(sealed: Mapping[bytes, bytes]) -> tuple[Identity, Map]:
    """DAMAGED unless these are exactly the records of one good map."""
    plain = {key: unseal(key, value) for key, value in sealed.items()}
    if plain.pop(TALLY, None) != _tally({k: v for k, v in sealed.items() if k != TALLY}):
        raise FsError(Code.DAMAGED, "records are missing, or older than the others")
    try:
        found = _map(plain)
        identity = Identity(**plain[IDENTITY])
    except (KeyError, TypeError, ValueError):
        raise FsError(Code.DAMAGED, "the records do not make a cluster map") from None
    wrong = faults(found)
    if wrong:
        raise FsError(Code.DAMAGED, f"the cluster map cannot be right: {wrong[0]}")
    return identity, found


def _map(plain: Mapping[bytes, Any]) -> Map:
    def numbered(prefix: bytes) -> list[tuple[int, Any]]:
        return sorted(
            (int(key.removeprefix(prefix)), record)
            for key, record in plain.items()
            if key.startswith(prefix)
        )

    return Map(
        cluster_id=plain[MAP]["cluster_id"],
        epoch=plain[MAP]["epoch"],
        nodes=tuple(
            Node(number, Role(r["role"]), tuple(r["addresses"]), r["host_id"])
            for number, r in numbered(_NODE)
        ),
        slots=tuple(SlotRange(n, r["last"], r["node_id"]) for n, r in numbered(_SLOTS)),
        chains=tuple(Chain(n, tuple(r["node_ids"])) for n, r in numbered(_CHAIN)),
    )


def _tally(sealed: Mapping[bytes, bytes]) -> dict[str, int]:
    total = sum(int.from_bytes(value[:CHECKSUM_BYTES], "little") for value in sealed.values())
    return {"count": len(sealed), "sum": total & SUM_MASK}


def _checksum(key: bytes, body: bytes) -> bytes:
    return xxh3_64_digest(len(key).to_bytes(2, "little") + key + body)
