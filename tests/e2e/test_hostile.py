"""What a hostile client can send: every method of every service, bytes of any kind.

Nothing crashes a daemon, every answer is a status of the contract, no answer tells internals.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from harness.posix import RENAME_EXCHANGE
from superfs.client import clusterd
from superfs.core import ids
from superfs.core.errors import Code
from superfs.core.limits import INLINE_BYTES_MAX
from superfs.rpc.channel import TOKEN_KEY, open_channel, token_metadata
from superfs.v1 import cluster_pb2, common_pb2, data_pb2, meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.cluster import Cluster

SERVICES = {"Cluster": cluster_pb2, "Meta": meta_pb2, "Data": data_pb2}
DAEMON_OF = {"Cluster": "clusterd", "Meta": "metad-1", "Data": "datad-2"}
METHODS = [
    (service, method.name, method.client_streaming, method.server_streaming)
    for service, module in SERVICES.items()
    for method in module.DESCRIPTOR.services_by_name[service].methods
]
INTERNALS = ("Traceback", 'File "', "google.protobuf", "Error(", "site-packages", "superfs.")
NO_TOKEN_NEEDED = {"Handshake"}
CONTRACT = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
}


@pytest.fixture(scope="module")
def token(shared_cluster: Cluster) -> bytes:
    reply = clusterd.admit(
        (shared_cluster.target("clusterd"),), clusterd.read_token(shared_cluster.token_file)
    )
    return reply.session_token


@pytest.fixture(scope="module")
def channels(shared_cluster: Cluster) -> Iterator[dict[str, grpc.Channel]]:
    opened = {s: open_channel([shared_cluster.target(d)]) for s, d in DAEMON_OF.items()}
    yield opened
    for channel in opened.values():
        channel.close()


@pytest.fixture(autouse=True)
def all_survive(cluster: Cluster) -> Iterator[None]:
    pids = {name: daemon.pid for name, daemon in cluster.daemons.items()}
    yield
    assert all(cluster.serves(name) for name in pids), cluster.logs()
    assert {name: daemon.pid for name, daemon in cluster.daemons.items()} == pids


def call(
    channel: grpc.Channel,
    service: str,
    method: str,
    streams: tuple[bool, bool],
    body: bytes,
    metadata: tuple[tuple[str, bytes], ...],
) -> tuple[grpc.StatusCode, str]:
    """Status and message of a call whose request is these bytes."""
    path = f"/superfs.v1.{service}/{method}"
    kinds: dict[tuple[bool, bool], Callable[..., Any]] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    rpc = kinds[streams](path)
    request = iter([body]) if streams[0] else body
    try:
        answer = rpc(request, timeout=20, metadata=metadata)
        if streams[1]:
            list(answer)
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code(), failed.details() or ""
    return grpc.StatusCode.OK, ""


def no_internals(message: str) -> None:
    assert not any(word in message for word in INTERNALS), message
    assert len(message) < 2000


@pytest.mark.parametrize(("service", "method", "up", "down"), METHODS)
def test_garbage(
    channels: dict[str, grpc.Channel], token: bytes, service: str, method: str, up: bool, down: bool
) -> None:
    """Bytes that are no message at all."""
    for body in (b"\xff" * 9, b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"\x08"):
        status, message = call(
            channels[service], service, method, (up, down), body, token_metadata(token)
        )
        assert status is grpc.StatusCode.INVALID_ARGUMENT, (body, status, message)
        no_internals(message)


@pytest.mark.parametrize(("service", "method", "up", "down"), METHODS)
def test_oversized(
    channels: dict[str, grpc.Channel], token: bytes, service: str, method: str, up: bool, down: bool
) -> None:
    body = b"\x0a\x80\x80\x80\x08" + bytes(16 << 20)
    channel = channels[service]
    status, message = call(channel, service, method, (up, down), body, token_metadata(token))
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED, (status, message)
    no_internals(message)


@pytest.mark.parametrize(("service", "method", "up", "down"), METHODS)
def test_token_is_needed(
    channels: dict[str, grpc.Channel], token: bytes, service: str, method: str, up: bool, down: bool
) -> None:
    if method in NO_TOKEN_NEEDED:
        return
    flipped = bytes([*token[:-1], token[-1] ^ 1])
    flipped_front = bytes([token[0] ^ 1, *token[1:]])
    forged: list[tuple[tuple[str, bytes], ...]] = [
        (),
        ((TOKEN_KEY, b""),),
        ((TOKEN_KEY, b"\0" * 40),),
        ((TOKEN_KEY, flipped),),
        ((TOKEN_KEY, flipped_front),),
        ((TOKEN_KEY, token[:-1]),),
        ((TOKEN_KEY, token + b"\0"),),
    ]
    for metadata in forged:
        status, message = call(channels[service], service, method, (up, down), b"", metadata)
        assert status is grpc.StatusCode.UNAUTHENTICATED, (metadata, status, message)
        no_internals(message)


def test_unknown_methods(channels: dict[str, grpc.Channel], token: bytes) -> None:
    for service, channel in channels.items():
        status, message = call(
            channel, service, "Nonsense", (False, False), b"", token_metadata(token)
        )
        assert status in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED)
        no_internals(message)


@pytest.mark.parametrize("service", ["Meta", "Data"])
def test_mutated_messages(channels: dict[str, grpc.Channel], token: bytes, service: str) -> None:
    """Good requests with bytes flipped, cut, doubled: any status of the contract will do."""
    rng = random.Random(service)
    if service == "Meta":
        root = common_pb2.InodeRef(ino=ids.ROOT, generation=1, place=ids.ROOT)
        good = meta_pb2.Batch(
            batch=1,
            ops=[
                meta_pb2.Op(lookup=meta_pb2.Lookup(dir=root, name=b"some name")),
                meta_pb2.Op(read_dir=meta_pb2.ReadDir(dir=root, limit=10, plus=True)),
                meta_pb2.Op(get_many=meta_pb2.GetMany(dir=root, names=b"\1\0a\2\0bb")),
            ],
        ).SerializeToString()
    else:
        good = data_pb2.DataRequest(
            tag=7, read=data_pb2.Read(ino=5, data_generation=1, length=4096)
        ).SerializeToString()
    for _ in range(300):
        body = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            position = rng.randrange(len(body))
            what = rng.randrange(4)
            if what == 0:
                body[position] ^= 1 << rng.randrange(8)
            elif what == 1:
                del body[position:]
                body = body or bytearray(good)
            elif what == 2:
                body[position:position] = rng.randbytes(rng.randrange(9))
            else:
                body += body[position:]
        metadata = token_metadata(token)
        status, message = call(
            channels[service], service, "Execute", (False, False), bytes(body), metadata
        )
        assert status in CONTRACT, (bytes(body), status, message)
        no_internals(message)


def test_unknown_fields_are_harmless(channels: dict[str, grpc.Channel], token: bytes) -> None:
    """A newer client's message, and a deep nest of groups that means nothing here."""
    newer = meta_pb2.Batch(batch=3).SerializeToString() + b"\xfa\x3f\x03abc" * 1000
    status, _ = call(
        channels["Meta"], "Meta", "Execute", (False, False), newer, token_metadata(token)
    )
    assert status is grpc.StatusCode.OK
    nested = b"\x83\x07" * 5000 + b"\x84\x07" * 5000
    status, message = call(
        channels["Meta"], "Meta", "Execute", (False, False), nested, token_metadata(token)
    )
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    no_internals(message)


# ---- well-formed messages that mean harm ---------------------------------------------------------

ROOT = common_pb2.InodeRef(ino=ids.ROOT, generation=1, place=ids.ROOT)
BAD_NAMES = [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"\0", b"n" * 256, b"n" * 70_000]
HUGE = (1 << 64) - 1


def bad_ops() -> Iterator[tuple[str, meta_pb2.Op]]:
    m = meta_pb2
    for name in BAD_NAMES:
        for verb, op in (
            ("lookup", m.Op(lookup=m.Lookup(dir=ROOT, name=name))),
            ("create", m.Op(create=m.Create(dir=ROOT, name=name, mode=0o100644))),
            ("mkdir", m.Op(mkdir=m.Mkdir(dir=ROOT, name=name, mode=0o755))),
            ("unlink", m.Op(unlink=m.Unlink(dir=ROOT, name=name))),
            ("rmdir", m.Op(rmdir=m.Rmdir(dir=ROOT, name=name))),
            ("rename", m.Op(rename=m.Rename(old_dir=ROOT, old_name=name, new_dir=ROOT,
                                            new_name=b"x"))),
            ("rename to", m.Op(rename=m.Rename(old_dir=ROOT, old_name=b"x", new_dir=ROOT,
                                               new_name=name))),
            ("link", m.Op(link=m.Link(inode=ROOT, dir=ROOT, name=name))),
            ("remove_tree", m.Op(remove_tree=m.RemoveTree(dir=ROOT, name=name, limit=10))),
        ):  # fmt: skip
            yield f"{verb} {name[:10]!r}", op
    for ino, generation in ((0, 0), (1, 1), (HUGE, 1), (ids.ROOT, 9), (ids.file_id(3, 4), 1)):
        ref = common_pb2.InodeRef(ino=ino, generation=generation, place=ino)
        yield f"getattr {ino}", m.Op(getattr=m.Getattr(inode=ref))
        yield f"lookup {ino}", m.Op(lookup=m.Lookup(dir=ref, name=b"a"))
        yield f"read_dir {ino}", m.Op(read_dir=m.ReadDir(dir=ref, limit=10))
        yield f"setattr {ino}", m.Op(setattr=m.Setattr(inode=ref, mask=1, mode=0o777))
        yield f"publish {ino}", m.Op(publish=m.Publish(inode=ref, size=HUGE))
        yield f"append {ino}", m.Op(append=m.Append(inode=ref, length=HUGE))
        yield f"create in {ino}", m.Op(create=m.Create(dir=ref, name=b"a", mode=0o100644))
    yield "root data", m.Op(publish=m.Publish(inode=ROOT, size=5))
    yield "root append", m.Op(append=m.Append(inode=ROOT, length=5))
    yield "root truncate", m.Op(setattr=m.Setattr(inode=ROOT, mask=8, size=0))
    yield "type bits", m.Op(create=m.Create(dir=ROOT, name=b"t", mode=0o170000))
    yield "directory", m.Op(create=m.Create(dir=ROOT, name=b"t", mode=0o040755))
    yield "flags", m.Op(rename=m.Rename(old_dir=ROOT, old_name=b"a", new_dir=ROOT, new_name=b"b",
                                        flags=HUGE >> 32))  # fmt: skip
    yield "exchange", m.Op(rename=m.Rename(old_dir=ROOT, old_name=b"a", new_dir=ROOT,
                                           new_name=b"b", flags=RENAME_EXCHANGE))  # fmt: skip
    yield "target", m.Op(create=m.Create(dir=ROOT, name=b"t", mode=0o120777, target=b"x" * 5000))
    yield "foreign number", m.Op(create=m.Create(dir=ROOT, name=b"t", mode=0o100644, ino=5))
    long = bytes(INLINE_BYTES_MAX + 1)
    yield "inline", m.Op(create=m.Create(dir=ROOT, name=b"t", mode=0o100644, inline=long))
    yield "xattr name", m.Op(setxattr=m.Setxattr(inode=ROOT, name=b"user." + b"x" * 999))
    yield "xattr value", m.Op(setxattr=m.Setxattr(inode=ROOT, name=b"user.x", value=bytes(70_000)))
    yield "xattr NUL", m.Op(setxattr=m.Setxattr(inode=ROOT, name=b"user.\0", value=b"v"))
    yield "reserve", m.Op(reserve=m.Reserve(dir=ROOT, count=HUGE >> 32))
    yield "columns", m.Op(create_many=m.CreateMany(dir=ROOT, count=3, names=b"\1\0a", attrs=b"x"))
    yield "count", m.Op(create_many=m.CreateMany(dir=ROOT, count=HUGE >> 32))
    yield "names", m.Op(get_many=m.GetMany(dir=ROOT, names=b"\xff\xffshort"))
    yield "no verb", m.Op()


def test_hostile_operations(channels: dict[str, grpc.Channel], token: bytes) -> None:
    """Each is refused with a code of its own, and the directory is as it was."""
    execute = channels["Meta"].unary_unary(
        "/superfs.v1.Meta/Execute",
        request_serializer=meta_pb2.Batch.SerializeToString,
        response_deserializer=meta_pb2.BatchReply.FromString,
    )
    listing = meta_pb2.Batch(
        ops=[meta_pb2.Op(read_dir=meta_pb2.ReadDir(dir=ROOT, limit=100, plus=True))]
    )

    def run(batch: meta_pb2.Batch) -> meta_pb2.BatchReply:
        reply: meta_pb2.BatchReply = execute(batch, timeout=20, metadata=token_metadata(token))
        return reply

    before = run(listing).results[0].listing
    reads = {"lookup", "getattr", "read_dir", "get_many"}
    for number, (label, op) in enumerate(bad_ops(), 1):
        if op.WhichOneof("verb") not in reads:
            op.seq = number
        try:
            reply = run(meta_pb2.Batch(batch=number, acked_below=number, ops=[op]))
        except grpc.RpcError as error:
            failed: Any = error
            assert failed.code() in CONTRACT, (label, failed.code(), failed.details())
            no_internals(failed.details())
            continue
        code = Code(reply.results[0].code)
        assert code not in (Code.OK, Code.INTERNAL, Code.IO, Code.DAMAGED), (label, code)
        no_internals(reply.results[0].detail)
    assert run(listing).results[0].listing.names == before.names


def test_hostile_data_requests(channels: dict[str, grpc.Channel], token: bytes) -> None:
    """Numbers out of range, data too long, and what only metadata daemons may ask for."""
    execute = channels["Data"].unary_unary(
        "/superfs.v1.Data/Execute",
        request_serializer=data_pb2.DataRequest.SerializeToString,
        response_deserializer=data_pb2.DataReply.FromString,
    )
    d, big = data_pb2, (1 << 32) - 1
    requests = {
        "nothing": d.DataRequest(),
        "no capability": d.DataRequest(write=d.Write(ino=5, data_generation=1, data=b"x")),
        "forged capability": d.DataRequest(
            capability=b"\x01" * 60, write=d.Write(ino=5, data_generation=1, data=b"x")
        ),
        "offset": d.DataRequest(read=d.Read(ino=5, data_generation=1, offset=big, length=1)),
        "length": d.DataRequest(read=d.Read(ino=5, data_generation=1, length=big)),
        "border": d.DataRequest(write=d.Write(ino=5, offset=(4 << 20) - 1, data=b"xyz")),
        "long": d.DataRequest(write=d.Write(ino=5, data_generation=1, data=bytes((1 << 20) + 1))),
        "truncate": d.DataRequest(truncate=d.Truncate(ino=5, data_generation=1)),
        "reap": d.DataRequest(reap=d.Reap(items=[d.ReapItem(ino=5, data_generation=1)])),
        "fence": d.DataRequest(fence=d.Fence(session_id=1, epoch=HUGE)),
    }
    for label, request in requests.items():
        try:
            reply = execute(request, timeout=20, metadata=token_metadata(token))
        except grpc.RpcError as error:
            failed: Any = error
            assert failed.code() in CONTRACT - {grpc.StatusCode.OK}, (label, failed.details())
            no_internals(failed.details())
            continue
        assert Code(reply.code) not in (Code.OK, Code.INTERNAL, Code.IO), (label, reply.code)
        no_internals(reply.detail)


def test_daemon_methods_refuse_clients(channels: dict[str, grpc.Channel], token: bytes) -> None:
    """A host's token is good, but not for what daemons tell each other."""
    node = cluster_pb2.Node(node_id=2, role=cluster_pb2.ROLE_DATA, addresses=["127.0.0.1:1"])
    body = cluster_pb2.RegisterRequest(node=node).SerializeToString()
    status, message = call(
        channels["Cluster"], "Cluster", "Register", (False, False), body, token_metadata(token)
    )
    assert status is grpc.StatusCode.PERMISSION_DENIED, message


def test_handshake_of_strangers(channels: dict[str, grpc.Channel], token: bytes) -> None:
    for contents in (b"", b"\0" * 64, token, b"x" * 9000, b"superfs"):
        body = cluster_pb2.HandshakeRequest(token=contents).SerializeToString()
        status, message = call(
            channels["Cluster"], "Cluster", "Handshake", (False, False), body, ()
        )
        refused = (
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
        assert status in refused, (contents[:10], status, message)
        no_internals(message)


def test_huge_metadata(channels: dict[str, grpc.Channel]) -> None:
    status, message = call(
        channels["Meta"], "Meta", "Execute", (False, False), b"",
        ((TOKEN_KEY, bytes(60_000)),),
    )  # fmt: skip
    assert status in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED)
    no_internals(message)


def test_every_method_is_known_here() -> None:
    """A new service must be added to these tests."""
    assert {method for _, method, _, _ in METHODS} >= {"Session", "Execute", "Handshake", "Check"}
