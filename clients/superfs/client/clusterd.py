"""What a client asks clusterd: a session for the contents of its token file, and the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from superfs.core.errors import Code, FsError
from superfs.core.limits import TOKEN_BYTES_MAX
from superfs.rpc.channel import choose_address, open_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.rpc.handshake import exchange, socket_path
from superfs.rpc.pending import Pending
from superfs.v1 import cluster_pb2, cluster_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CALL_S = 3.0
NEW_SESSION = (0, b"")


def read_token(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX + 1)
    except OSError as error:
        raise FsError(
            Code.UNAUTHENTICATED, f"token file {path} cannot be read: {error.strerror}"
        ) from None
    if not token or len(token) > TOKEN_BYTES_MAX:
        raise FsError(Code.UNAUTHENTICATED, f"{path} is not a token file")
    return token


def admit(
    cluster: Sequence[str], token: bytes, session: tuple[int, bytes] = NEW_SESSION
) -> cluster_pb2.HandshakeReply:
    """Blocks. `session`: (its id, its present token) to renew that one."""
    session_id, session_token = session
    request = cluster_pb2.HandshakeRequest(
        token=token, session_id=session_id, session_token=session_token
    )
    address = choose_address(cluster)
    if address.startswith("unix:"):
        return exchange(socket_path(address), request, CALL_S)
    with open_channel([address]) as channel:
        stub = cluster_pb2_grpc.ClusterStub(channel)
        try:
            reply: cluster_pb2.HandshakeReply = stub.Handshake(request, timeout=CALL_S)
        except grpc.RpcError as error:
            raise _explained(from_rpc(error), address) from None
    return reply


def _explained(error: FsError, address: str) -> FsError:
    if error.code is Code.UNAVAILABLE:
        return FsError(error.code, f"no clusterd answers at {address}: {error.detail}")
    return error


def get_map(cluster: Sequence[str], session_token: bytes) -> Pending[cluster_pb2.ClusterMap]:
    result: Pending[cluster_pb2.ClusterMap] = Pending()
    channel = open_channel(cluster)
    stub = cluster_pb2_grpc.ClusterStub(channel)
    call = stub.GetMap.future(
        cluster_pb2.GetMapRequest(), timeout=CALL_S, metadata=token_metadata(session_token)
    )

    def finish(done: grpc.Future) -> None:  # type: ignore[type-arg]  # not generic when it runs
        try:
            result.complete(done.result())
        except grpc.RpcError as error:
            result.fail(from_rpc(error))
        except grpc.FutureCancelledError:
            result.fail(FsError(Code.UNAVAILABLE, "it was cut off by a fork"))

    call.add_done_callback(finish)
    # The channel must outlive the call, and may not be closed from gRPC's own callback.
    result.on_done(lambda: channel)
    return result
