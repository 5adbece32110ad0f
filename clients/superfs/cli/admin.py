"""Calls that administration makes to single daemons, past the client: the map, health, checks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from superfs.core.errors import FsError, known_code
from superfs.rpc.channel import open_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.rpc.handshake import shake_hands
from superfs.v1 import (
    cluster_pb2,
    data_pb2,
    data_pb2_grpc,
    meta_pb2,
    meta_pb2_grpc,
    process_pb2,
    process_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.cli.options import Target
    from superfs.v1 import common_pb2

CALL_TIMEOUT_S = 5.0
CHECK_TIMEOUT_S = 7 * 86400.0
"""A check reads everything that a daemon has. One that has died is noticed by its channel."""


@dataclass(frozen=True, slots=True)
class Daemon:
    name: str  # "metad-1"
    node: cluster_pb2.Node

    @property
    def is_meta(self) -> bool:
        return self.node.role == cluster_pb2.ROLE_META


class Admin:
    """One session with the cluster. Unary calls and streams of single daemons."""

    def __init__(self, target: Target) -> None:
        token = target.token_file.read_bytes()
        reply = shake_hands(target.cluster, cluster_pb2.HandshakeRequest(token=token))
        self.map = reply.map
        self._metadata = token_metadata(reply.session_token)

    @property
    def daemons(self) -> list[Daemon]:
        names = {cluster_pb2.ROLE_META: "metad", cluster_pb2.ROLE_DATA: "datad"}
        return [Daemon(f"{names.get(n.role, 'node')}-{n.node_id}", n) for n in self.map.nodes]

    def fs_stat(self) -> meta_pb2.FsStat:
        """What statfs says of the whole file system."""
        request = meta_pb2.Batch(batch=1, ops=[meta_pb2.Op(statfs=meta_pb2.Statfs())])
        metad = next(daemon for daemon in self.daemons if daemon.is_meta)
        with _channel(metad) as channel, _converted():
            stub = meta_pb2_grpc.MetaStub(channel)
            reply = stub.Execute(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)
        result = reply.results[0]
        if result.code:
            raise FsError(known_code(result.code), result.detail)
        found: meta_pb2.FsStat = result.fs_stat
        return found

    def metrics(self, addresses: Sequence[str]) -> str:
        """What the daemon there counts, as Prometheus reads it."""
        with open_channel(addresses) as channel, _converted():
            reply = process_pb2_grpc.ProcessStub(channel).Metrics(
                process_pb2.MetricsRequest(), metadata=self._metadata, timeout=CALL_TIMEOUT_S
            )
        text: bytes = reply.text
        return text.decode()

    def check(self, daemon: Daemon, *, verify_data: bool = True) -> Iterator[common_pb2.Finding]:
        with _channel(daemon) as channel:
            if daemon.is_meta:
                stub = meta_pb2_grpc.MetaStub(channel)
                yield from self._stream(stub.Check, meta_pb2.CheckRequest())
            else:
                data = data_pb2_grpc.DataStub(channel)
                yield from self._stream(
                    data.Check, data_pb2.DataCheckRequest(verify_data=verify_data)
                )

    def list_data(self, daemon: Daemon) -> Iterator[meta_pb2.DataList | data_pb2.StoredList]:
        with _channel(daemon) as channel:
            if daemon.is_meta:
                stub = meta_pb2_grpc.MetaStub(channel)
                yield from self._stream(stub.ListData, meta_pb2.ListDataRequest())
            else:
                data = data_pb2_grpc.DataStub(channel)
                yield from self._stream(data.ListData, data_pb2.DataListRequest())

    def _stream(self, call: Callable[..., Any], request: object) -> Iterator[Any]:
        with _converted():
            yield from call(request, metadata=self._metadata, timeout=CHECK_TIMEOUT_S)


@contextlib.contextmanager
def _channel(daemon: Daemon) -> Iterator[grpc.Channel]:
    with open_channel(daemon.node.addresses) as channel:
        yield channel


@contextlib.contextmanager
def _converted() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error) from None


def reach(target: Target) -> Admin | FsError:
    """An error is an answer too, for who wants to show it."""
    try:
        return Admin(target)
    except FsError as error:
        return error
