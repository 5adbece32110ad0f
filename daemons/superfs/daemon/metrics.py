"""Prometheus metrics of one process, on a registry of its own, served over HTTP."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import start_http_server
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from superfs.core.config import ConfigError
from superfs.core.errors import Code
from superfs.rpc.scraping import close_http

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def new_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f'metrics must be "HOST:PORT" or "", not {address!r}')
    return host, int(port)


class MetricsServer:
    """HTTP on a daemon thread of prometheus-client; it only ever reads the registry."""

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        host, port = split_address(address)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise OSError(f"metrics: cannot listen on {address}: {error.strerror}") from None
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        close_http(self._server)
        self._thread.join()


class RpcMetrics:
    """What the server's guard tells of every call; a Session stream counts once, at its end. And of
    every request, each message of a stream."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "superfs_rpc_calls", "Finished calls", ("method", "code"), registry=registry
        )
        self._requests = Counter(
            "superfs_rpc_requests",
            "Requests that came in, each message of a stream",
            ("method",),
            registry=registry,
        )
        self._counts: dict[str, Counter] = {}
        self._seconds = Histogram(
            "superfs_rpc_seconds",
            "Duration of calls",
            ("method",),
            buckets=BUCKETS_S,
            registry=registry,
        )

    def __call__(self, method: str, code: Code, seconds: float) -> None:
        # Whoever has no token may name any method: such calls are counted under one name.
        guessed = code in (Code.NOT_SUPPORTED, Code.UNAUTHENTICATED)
        name = "refused" if guessed else method
        self._calls.labels(name, code.name).inc()
        self._seconds.labels(name).observe(seconds)

    def received(self, method: str) -> None:
        """Of methods that there are, so that their number is bounded."""
        child = self._counts.get(method)
        if child is None:
            child = self._counts[method] = self._requests.labels(method)
        child.inc()
