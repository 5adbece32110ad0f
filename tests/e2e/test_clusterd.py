"""clusterd as a process: who gets in, and what it does with junk."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from harness.clusterd import Clusterd
from superfs.core.errors import Code
from superfs.core.limits import MESSAGE_BYTES_MAX
from superfs.core.tokens import Grant, Purpose
from superfs.rpc.channel import open_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.rpc.handshake import LENGTH, REQUEST_BYTES_MAX, exchange
from superfs.v1 import cluster_pb2, cluster_pb2_grpc, data_pb2, meta_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
SERVICES = [
    cluster_pb2.DESCRIPTOR.services_by_name["Cluster"],
    meta_pb2.DESCRIPTOR.services_by_name["Meta"],
    data_pb2.DESCRIPTOR.services_by_name["Data"],
]


@pytest.fixture(scope="module")
def serving() -> Iterator[Clusterd]:
    one = Clusterd()
    assert one.run("--format").returncode == 0
    one.start()
    yield one
    assert one.stop() == 0
    assert not [e for e in one.events() if e["level"] in ("error", "critical")]
    one.close()


def stub_of(channel: grpc.Channel) -> Any:  # noqa: ANN401 - generated, without types
    return cluster_pb2_grpc.ClusterStub(channel)


# ---- who gets in


def test_from_token_file_to_map(serving: Clusterd) -> None:
    token = serving.issue("host1", "host")
    reply = exchange(serving.handshake, cluster_pb2.HandshakeRequest(token=token))
    with open_channel([serving.target]) as channel:
        found = stub_of(channel).GetMap(
            cluster_pb2.GetMapRequest(), metadata=token_metadata(reply.session_token)
        )
        assert found == reply.map
        with pytest.raises(grpc.RpcError) as caught:
            stub_of(channel).Register(
                cluster_pb2.RegisterRequest(), metadata=token_metadata(reply.session_token)
            )
        assert from_rpc(caught.value).code is Code.FORBIDDEN
    again = cluster_pb2.HandshakeRequest(
        token=token, session_id=reply.session_id, session_token=reply.session_token
    )
    assert exchange(serving.handshake, again).session_id == reply.session_id


def test_grpc_handshake_by_network_only(serving: Clusterd) -> None:
    token = serving.issue("host2", "host")
    tcp = next(e for e in serving.events() if e["event"] == "serving")["listen"][1]
    with open_channel([tcp]) as channel:
        request = cluster_pb2.HandshakeRequest(token=token)
        assert stub_of(channel).Handshake(request).session_id
        with pytest.raises(grpc.RpcError) as caught:
            stub_of(channel).Handshake(cluster_pb2.HandshakeRequest(token=b"x"))
        assert from_rpc(caught.value).code is Code.UNAUTHENTICATED
    with open_channel([serving.target]) as channel, pytest.raises(grpc.RpcError) as caught:
        stub_of(channel).Handshake(request)
    assert from_rpc(caught.value).code is Code.FORBIDDEN


AS_NOBODY = """
import os, sys
from pathlib import Path
from superfs.core.errors import FsError
from superfs.rpc.handshake import exchange
from superfs.v1 import cluster_pb2
token = Path(sys.argv[2]).read_bytes()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    exchange(Path(sys.argv[1]), cluster_pb2.HandshakeRequest(token=token))
    print("OK")
except FsError as error:
    print(error.code.name, error.detail)
"""


def as_nobody(serving: Clusterd, token: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, serving.handshake, serving.dir / token],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_a_leaked_token_is_of_no_use_to_another_user(serving: Clusterd) -> None:
    serving.issue("host3", "host")
    serving.issue("root1", "user", "--uid", "0", "--gid", "0")
    serving.issue("nobody", "user", "--uid", str(NOBODY), "--gid", str(NOBODY))
    private = [serving.dir, serving.handshake.parent]
    assert as_nobody(serving, "nobody").startswith("FORBIDDEN")  # the directory is private
    for path in private:
        path.chmod(0o711)
    serving.handshake.chmod(0o666)
    try:
        assert as_nobody(serving, "host3") == f"FORBIDDEN this token is not for uid {NOBODY}"
        assert as_nobody(serving, "root1") == f"FORBIDDEN this token is not for uid {NOBODY}"
        assert as_nobody(serving, "nobody") == "OK"
    finally:
        serving.handshake.chmod(0o600)
        for path in private:
            path.chmod(0o700)


@pytest.mark.parametrize("service", SERVICES, ids=lambda s: s.name)
def test_nobody_without_a_token(serving: Clusterd, service: Any) -> None:  # noqa: ANN401
    methods = {m.name for m in service.methods} - {"Handshake"}
    assert methods
    with open_channel([serving.target]) as channel:
        for method in methods:
            call: Any = channel.unary_unary(f"/{service.full_name}/{method}")
            for metadata in ((), token_metadata(b"x" * 200)):
                with pytest.raises(grpc.RpcError) as caught:
                    call(b"", metadata=metadata)
                assert from_rpc(caught.value).code is Code.UNAUTHENTICATED


# ---- junk


def test_junk_on_the_handshake_socket(serving: Clusterd) -> None:
    def answer(raw: bytes, *, end: bool = True) -> tuple[int, str] | None:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.connect(str(serving.handshake))
            peer.sendall(raw)
            if end:
                peer.shutdown(socket.SHUT_WR)
            got = b""
            while part := peer.recv(4096):
                got += part
        return (struct.unpack_from("<I", got)[0], got[8:].decode()) if got else None

    def framed(body: bytes) -> bytes:
        return LENGTH.pack(len(body)) + body

    assert answer(b"") is None
    assert answer(b"\x01") is None
    assert answer(LENGTH.pack(500) + b"short") is None
    assert answer(LENGTH.pack(REQUEST_BYTES_MAX + 1))[0] == Code.TOO_LARGE  # type: ignore[index]
    assert answer(b"\xff" * 64)[0] == Code.TOO_LARGE  # type: ignore[index]
    assert answer(framed(b"\xff" * 20)) == (Code.BAD_REQUEST, "not a handshake")
    assert answer(framed(b""))[0] == Code.UNAUTHENTICATED  # type: ignore[index]
    rng = random.Random(8)
    for _ in range(100):
        found = answer(framed(rng.randbytes(rng.randrange(80))))
        assert found is not None
        assert found[0] in (Code.BAD_REQUEST, Code.UNAUTHENTICATED)
    started = time.monotonic()
    assert answer(b"\x05\0\0\0", end=False) is None  # says more and never does
    assert time.monotonic() - started < 9


def test_junk_on_every_method(serving: Clusterd) -> None:
    grant = token_metadata(serving.authority().issue(Purpose.SESSION, Grant("daemon", "fuzz")))
    rng = random.Random(9)
    whole = cluster_pb2.RegisterRequest(
        node=cluster_pb2.Node(node_id=0, role=cluster_pb2.ROLE_DATA, addresses=["a:1"])
    ).SerializeToString()
    junk = [whole[:n] for n in range(len(whole) + 1)]
    junk += [rng.randbytes(rng.randrange(1, 50)) for _ in range(60)]
    junk += [b"\x08" * (MESSAGE_BYTES_MAX + 1)]
    good = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "PERMISSION_DENIED"}
    with grpc.insecure_channel(serving.target, [("grpc.max_send_message_length", -1)]) as channel:
        for method in ("Handshake", "GetMap", "Register"):
            call: Any = channel.unary_unary(f"/superfs.v1.Cluster/{method}")
            for message in junk:
                try:
                    call(message, metadata=grant)
                except grpc.RpcError as error:
                    failed: Any = error
                    assert failed.code().name in good, (method, message[:40], failed.details())
                    assert "Traceback" not in failed.details()
                    assert "google" not in failed.details()
