"""The KVCache service as a server takes it: as the generated code has it, but for streams of bytes,
which are decoded and encoded by hand (rpc/kvbytes.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from superfs.rpc import kvbytes
from superfs.v1 import kvcache_pb2 as pb
from superfs.v1 import kvcache_pb2_grpc

if TYPE_CHECKING:
    from superfs.data.kvcache.service import KvCacheService

NAME = "superfs.v1.KVCache"


class _Collected:
    """In place of a server, for the generated code to fill."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, _: object) -> None:
        pass

    def add_registered_method_handlers(self, _: str, handlers: dict[str, Any]) -> None:
        self.handlers.update(handlers)


def register(service: KvCacheService, server: grpc.aio.Server) -> None:
    collected = _Collected()
    kvcache_pb2_grpc.add_KVCacheServicer_to_server(service, collected)
    assert collected.handlers, "the generated code registers its methods otherwise"
    collected.handlers["Read"] = grpc.unary_stream_rpc_method_handler(
        service.Read, pb.KvRead.FromString, kvbytes.encode
    )
    collected.handlers["Write"] = grpc.stream_unary_rpc_method_handler(
        service.Write, kvbytes.decode, pb.KvCodes.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(NAME, collected.handlers),)
    )
