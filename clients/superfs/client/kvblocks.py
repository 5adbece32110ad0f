"""The blocks of a cluster's KVCache pools, for who only looks: nothing here counts as a use, holds
a block, or brings one back to memory (what uses them is superfs.kvcache).

A namespace is the same on every data daemon that has a pool; a block is on one of them, or on
several as copies. A daemon that does not answer is an error, for nobody can tell what it has.
Blocking, for threads.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from superfs.core.errors import Code, FsError
from superfs.rpc.channel import open_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.v1 import cluster_pb2, kvcache_pb2_grpc
from superfs.v1 import kvcache_pb2 as pb

if TYPE_CHECKING:
    from superfs.client.connection import Connection

KINDS: dict[str, Any] = {"List": pb.KvList, "Look": pb.KvKeys, "Peek": pb.KvPeek}
KEY_BYTES = 16
CALL_S = 10.0
AFTER_BITS = 40
"""Of where a listing goes on, for the place within one data daemon; above: which."""


class KvBlock(NamedTuple):
    key: bytes
    length: int
    after: int  # where a listing goes on behind it


class KvBlocks:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._channels: dict[int, grpc.Channel] = {}
        self._numbers: dict[int, dict[str, int]] = {}  # of namespaces, by node

    def close(self) -> None:
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def names(self) -> list[str]:
        """Of namespaces."""
        return sorted({name for node in self._nodes() for name in self._refresh(node)})

    def listed(self, name: str, after: int, limit: int) -> tuple[list[KvBlock], int]:
        """Some, from `after` on (0: the first); and where to go on behind them, 0: nowhere. There
        may be none of them, and more behind."""
        nodes = self._nodes()
        index, place = after >> AFTER_BITS, after & ((1 << AFTER_BITS) - 1)
        while index < len(nodes):
            found = self._of_space(nodes[index], name, "List", after=place, limit=limit)
            if found is not None:
                return self._page(name, nodes[:index], index, found, last=len(nodes) - 1)
            index, place = index + 1, 0
        return [], 0

    def length(self, name: str, key: bytes) -> int:
        """0: there is no such block."""
        for node in self._nodes():
            (found,) = self._lengths(node, name, key)
            if found:
                return found
        return 0

    def contents(self, name: str, key: bytes) -> bytes | None:
        """As they were stored. None: there is no such block."""
        for node in self._nodes():
            found: bytes | None = self._of_space(node, name, "Peek", key=key)
            if found is not None:
                return found
        return None

    # ---- inside

    def _nodes(self) -> list[int]:
        nodes = self._connection.map.nodes
        return sorted(n for n, node in nodes.items() if node.role == cluster_pb2.ROLE_DATA)

    def _page(
        self, name: str, before: list[int], index: int, found: pb.KvListed, last: int
    ) -> tuple[list[KvBlock], int]:
        """Without the copies of what an earlier daemon has listed."""
        above = index << AFTER_BITS
        known = [False] * len(found.lengths)
        for node in before if known else []:
            stored = self._lengths(node, name, found.keys)
            known = [one or bool(length) for one, length in zip(known, stored, strict=True)]
        blocks = [
            KvBlock(found.keys[KEY_BYTES * n : KEY_BYTES * (n + 1)], length, above | after)
            for n, (length, after) in enumerate(zip(found.lengths, found.afters, strict=True))
            if not known[n]
        ]
        if found.next:
            return blocks, above | found.next
        return blocks, (index + 1) << AFTER_BITS if index < last else 0

    def _lengths(self, node: int, name: str, keys: bytes) -> list[int]:
        found = self._of_space(node, name, "Look", keys=keys)
        return [0] * (len(keys) // KEY_BYTES) if found is None else list(found.lengths)

    def _of_space(self, node: int, name: str, verb: str, **what: Any) -> Any:  # noqa: ANN401
        """None: the namespace, or what it was asked for, is not there (any more)."""
        number = self._numbers.get(node, {}).get(name) or self._refresh(node).get(name)
        if number is None:
            return None
        try:
            return self._ask(node, verb, KINDS[verb](namespace=number, **what))
        except FsError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            self._numbers.pop(node, None)
            return None

    def _refresh(self, node: int) -> dict[str, int]:
        try:
            found = self._ask(node, "Spaces", pb.KvSpacesRequest())
        except FsError as error:
            if error.code is not Code.NOT_SUPPORTED:  # else: it has no pool
                raise
            found = pb.KvSpaces()
        numbers = dict(zip(found.names, found.namespaces, strict=True))
        self._numbers[node] = numbers
        return numbers

    def _ask(self, node: int, verb: str, request: Any) -> Any:  # noqa: ANN401
        """Once more with a new token, or after the daemon has started again."""
        for last in (False, True):
            session = self._connection.session
            call: dict[str, Any] = {
                "timeout": CALL_S, "metadata": token_metadata(session.token),
            }  # fmt: skip
            try:
                answer = getattr(self._stub(node), verb)(request, **call)
                return b"".join(part.data for part in answer) if verb == "Peek" else answer
            except grpc.RpcError as error:
                found = from_rpc(error)
                if last or found.code not in (Code.UNAUTHENTICATED, Code.UNAVAILABLE):
                    raise found from None
                if found.code is Code.UNAUTHENTICATED:
                    self._connection.recover(found, session)
                else:
                    self._forget(node)
        raise AssertionError

    def _stub(self, node: int) -> Any:  # noqa: ANN401
        with self._lock:
            if node not in self._channels:
                self._channels[node] = open_channel(self._connection.map.addresses(node))
            return kvcache_pb2_grpc.KVCacheStub(self._channels[node])

    def _forget(self, node: int) -> None:
        """Its channel: it may be at another address. (Who uses it still, closes it.)"""
        with self._lock:
            self._channels.pop(node, None)
