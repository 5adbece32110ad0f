"""What every daemon answers about itself: its metrics, to whoever administers the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import generate_latest

from superfs.core.errors import Code, FsError
from superfs.rpc.server import grant_of
from superfs.v1 import process_pb2, process_pb2_grpc

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class ProcessServicer(process_pb2_grpc.ProcessServicer):
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    async def Metrics(
        self,
        request: process_pb2.MetricsRequest,
        context: Any,  # noqa: ANN401
    ) -> process_pb2.MetricsReply:
        grant = grant_of(context)
        if grant.kind == "user" and grant.uid != 0:
            raise FsError(Code.FORBIDDEN, "only for hosts, daemons and root")
        return process_pb2.MetricsReply(text=generate_latest(self._registry))
