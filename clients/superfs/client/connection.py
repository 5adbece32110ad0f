"""A client's connection to a cluster: session, map, streams, and the thread behind them.

    with Connection.open(ClientConfig(...)) as connection:
        connection.meta   # MetaClient: verbs of the namespace
        connection.data   # DataClient: bytes on data daemons

Threads: one of our own per stream and one for timers, all started on first use and ended by
`close`. A connection is not for use in a child after fork(): it says so there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from superfs.client import clusterd
from superfs.client.clustermap import ClusterMap
from superfs.client.datastream import DataStream
from superfs.client.delegation.meta import DelegatedMeta
from superfs.client.delegation.shipping import Shipping
from superfs.client.delegation.state import Delegations
from superfs.client.gathering import GatheringData
from superfs.client.identity import own_caller
from superfs.client.meta import MetaClient
from superfs.client.remains import Remains
from superfs.client.retry import attempts, delays
from superfs.client.session import MetaStream, Session
from superfs.client.traffic import Traffic
from superfs.client.wire import Request, decode_reply, encode_request
from superfs.client.writeback import Writeback
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.core.limits import CHAINS_PER_FILE_MAX
from superfs.rpc.background import Background
from superfs.rpc.channel import open_channel, token_metadata
from superfs.rpc.host import host_id
from superfs.rpc.stream import Stream, StreamTimes
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from superfs.client.config import ClientConfig
    from superfs.client.leases import LeaseHolder
    from superfs.core.namespace.txn import Caller, Ref
    from superfs.rpc.pending import Pending
    from superfs.v1 import cluster_pb2

log = logging.getLogger("superfs.client")

TICK_S = 0.5
MAP_REFRESH_MIN_S = 0.5
RENEW_AT = 0.5
"""A token is renewed when this part of its life is left."""
RENEW_RETRY_S = 5.0

_alive: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    def __init__(
        self,
        config: ClientConfig,
        first: cluster_pb2.HandshakeReply,
        lease_holder: LeaseHolder | None = None,
        *,
        exclusive: bool = False,
    ) -> None:
        """Use `open`."""
        self.config = config
        self.lease_holder = lease_holder
        self.retry_timeout_s = config.retry_timeout_s
        self.caller: Caller = own_caller(first.session_token)
        self.background = Background(f"superfs {config.client_name}")
        self._rng = random.Random()
        self._lock = threading.Lock()
        self._recovering = threading.Lock()
        self._meta_streams: dict[int, MetaStream] = {}
        self._data_streams: dict[int, DataStream] = {}
        self.traffic: dict[str, Traffic] = {}
        """By daemon."""
        self._map_read_s = time.monotonic()
        self._closed = False
        self._refusal: BaseException | None = None
        self.map = ClusterMap(first.map)
        self._session = Session(first.session_id, first.session_token, first.expires_ns)
        self.capability = b""
        self._times = StreamTimes(
            retry_timeout_s=config.retry_timeout_s,
            keep_alive_s=min(config.keep_alive_s, config.retry_timeout_s / 3),
            silence_s=min(3 * config.keep_alive_s, config.retry_timeout_s),
        )
        self._remains: Remains | None = None
        if lease_holder is not None:
            self._remains = Remains(self.map.cluster_id)
            self._remains.claim(first.session_id)
        self.data = GatheringData(self)
        self.shipping: Shipping | None = None
        self.meta = self._meta_client(exclusive=exclusive)
        self.writeback = Writeback(self.background)
        self.background.call_later(TICK_S, self._tick)
        self._plan_renewal(first.expires_ns)
        _alive.add(self)

    @property
    def drops_behind(self) -> bool:
        """Whether large reads and writes leave nothing in page caches of this host but those in
        front of this client: the kernel's, of a mount."""
        return self.lease_holder is not None and self.config.drop_behind

    @classmethod
    def open(
        cls,
        config: ClientConfig,
        lease_holder: LeaseHolder | None = None,
        *,
        exclusive: bool = False,
    ) -> Connection:
        """Blocks until the cluster has answered, at most `retry_timeout_s`. UNAUTHENTICATED,
        FORBIDDEN and an unreadable token file are errors at once. `lease_holder`: who repeats
        answers of metadata daemons without asking, and must hear when they are not so any more.
        `exclusive`: it may also change directories by itself, and tell later."""
        token = clusterd.read_token(config.token_file)
        tries = attempts(config.retry_timeout_s, random.Random(), first_s=0.02)
        deadline = time.monotonic() + config.retry_timeout_s
        while True:
            try:
                first = clusterd.admit(config.cluster, token)
                connection = cls(config, first, lease_holder, exclusive=exclusive)
                connection.greet()
                return connection
            except FsError as error:
                delay = next(tries, None)
                if not error.retryable or delay is None or time.monotonic() + delay > deadline:
                    raise
                time.sleep(delay)

    def greet(self) -> None:
        """Connects to the metadata daemon of the root, and then to the data daemons of this host
        (`welcomed`), before the first who asks would have to wait for it. Nothing is waited for."""
        with contextlib.suppress(FsError):  # nobody owns that slot yet
            self.meta_stream(ROOT).submit(())

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every thread. What is still on its way fails; flush files before."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            streams = self._streams()
        _alive.discard(self)
        if self._refusal is not None:
            return  # a child after fork: neither the threads nor the sockets are ours
        for stream in streams:
            stream.close()
        self.data.close()
        self.background.close()
        if self.shipping is not None:
            self.shipping.closed()
        if self._remains is not None:
            self._remains.close()

    def _forked(self) -> None:
        refusal = RuntimeError(
            "this connection was opened before fork(); open another one in the child"
        )
        self._refusal = refusal
        self._lock = threading.Lock()
        for stream in self._streams():
            stream.refuse(refusal)

    def _meta_client(self, *, exclusive: bool) -> MetaClient:
        if not exclusive or self.lease_holder is None or self.map.metads != 1:
            return MetaClient(self)
        state = Delegations(lambda: (self.map.chain_ids, CHAINS_PER_FILE_MAX), self.data)
        meta = DelegatedMeta(self, state)
        self.shipping = meta.shipping = Shipping(self, state, meta, self.lease_holder)
        return meta

    @property
    def is_closed(self) -> bool:
        return self._closed

    # ---- what the clients ask of it

    @property
    def session(self) -> Session:
        return self._session

    def delays(self) -> Iterator[float]:
        return delays(self._rng)

    def sleep(self, seconds: float) -> Pending[None]:
        return self.background.sleep(seconds)

    def open_refs(self) -> list[Ref]:
        return self.meta.open_refs

    def meta_stream(self, key: int) -> MetaStream:
        node_id = self.map.meta_node(key)
        stream = self._meta_streams.get(node_id)
        if stream is None:
            with self._lock:
                self._check_usable()
                stream = self._meta_streams.get(node_id)
                if stream is None:
                    name = self.config.client_name
                    stream = MetaStream(self, node_id, name, self._times, self._stream_delays)
                    self._meta_streams[node_id] = stream
        return stream

    def data_stream(self, chain_id: int) -> DataStream:
        node_id = self.map.data_node(chain_id)
        stream = self._data_streams.get(node_id)
        if stream is None:
            with self._lock:
                self._check_usable()
                stream = self._data_streams.get(node_id)
                if stream is None:
                    stream = DataStream(self, node_id, self._times, self._stream_delays)
                    self._data_streams[node_id] = stream
        return stream

    def data_streams(self) -> list[DataStream]:
        with self._lock:
            return list(self._data_streams.values())

    def _streams(self) -> list[Stream[Any, Any, Any]]:
        return [*self._data_streams.copy().values(), *self._meta_streams.copy().values()]

    def _check_usable(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        if self._closed:
            raise FsError(Code.UNAVAILABLE, "the connection was closed")

    def _stream_delays(self) -> Iterator[float]:
        return delays(self._rng, first_s=0.01, last_s=0.5)

    # ---- what the streams ask of it

    def open_meta_call(
        self, node_id: int, requests: Iterator[meta_pb2.SessionRequest]
    ) -> tuple[Any, Callable[[], None]]:
        channel = open_channel(self.map.addresses(node_id))
        traffic = self.traffic.setdefault(f"metad-{node_id}", Traffic())
        method = channel.stream_stream(
            "/superfs.v1.Meta/Session",
            request_serializer=traffic.sending(meta_pb2.SessionRequest.SerializeToString),
            response_deserializer=traffic.receiving(meta_pb2.SessionReply.FromString),
        )
        return method(requests, metadata=token_metadata(self._session.token)), channel.close

    def open_data_call(
        self, node_id: int, requests: Iterator[Request]
    ) -> tuple[Any, Callable[[], None]]:
        channel = open_channel(self.map.addresses(node_id))
        traffic = self.traffic.setdefault(f"datad-{node_id}", Traffic())
        # As the stub would, with our own encoding: see wire.py.
        method = channel.stream_stream(
            "/superfs.v1.Data/Session",
            request_serializer=traffic.sending(encode_request),
            response_deserializer=traffic.receiving(decode_reply),
        )
        return method(requests, metadata=token_metadata(self._session.token)), channel.close

    def dead_sessions(self) -> list[int]:
        return self._remains.dead() if self._remains is not None else []

    def welcomed(self, node_id: int, welcome: meta_pb2.Welcome) -> None:
        if self._remains is not None:
            self._remains.buried()
        if welcome.capability:
            if not self.capability and self.config.bypass:
                self.background.call_later(0, self._greet_near)
            self.capability = welcome.capability
        log.debug("metad %d welcomes session %x", node_id, self._session.id)

    def _greet_near(self) -> None:
        here = host_id()
        with contextlib.suppress(FsError):  # closed meanwhile
            self.data.greet(self.map.chains_on(here) if here else ())

    def recover(self, error: FsError, session: Session) -> None:
        with self._recovering:
            if self._closed:
                return
            if self._session is not session:
                return  # another stream has seen to it
            if error.code is Code.SESSION_EXPIRED:
                log.warning("session %x has expired, beginning a new one", session.id)
                self._shake_again(renew=False)
            elif error.code is Code.UNAUTHENTICATED:
                self._shake_again(renew=True)
            elif time.monotonic() - self._map_read_s >= MAP_REFRESH_MIN_S:
                self._read_map()

    def _shake_again(self, *, renew: bool) -> None:
        """With `renew` a fresh token of the same session, else a new session."""
        token = clusterd.read_token(self.config.token_file)
        session = self._session
        old = (session.id, session.token) if renew else clusterd.NEW_SESSION
        try:
            reply = clusterd.admit(self.config.cluster, token, old)
        except FsError as error:
            if not renew or error.code not in (Code.UNAUTHENTICATED, Code.SESSION_EXPIRED):
                raise
            reply = clusterd.admit(self.config.cluster, token)
        self._new_map(reply.map)
        if reply.session_id == session.id:
            session.token, session.expires_ns = reply.session_token, reply.expires_ns
        else:
            self._session = Session(reply.session_id, reply.session_token, reply.expires_ns)
            if self._remains is not None:
                self._remains.claim(reply.session_id)
        self._plan_renewal(reply.expires_ns)

    def _plan_renewal(self, expires_ns: int) -> None:
        if not expires_ns:
            return
        left_s = expires_ns / 1e9 - time.time()

        def renew() -> None:
            # On a thread of its own: a handshake blocks, and the timers must go on.
            threading.Thread(target=self._renew, name="superfs token renewal", daemon=True).start()

        with contextlib.suppress(FsError):  # closed meanwhile
            self.background.call_later(max(RENEW_RETRY_S, left_s * RENEW_AT), renew)

    def _renew(self) -> None:
        with self._recovering:
            if self._closed:
                return
            try:
                self._shake_again(renew=True)
            except FsError as error:
                log.warning("the session token could not be renewed yet: %s", error)
                self._plan_renewal(self._session.expires_ns)

    # ---- the map

    async def refresh_map(self) -> None:
        """Reads the map again, unless that was done a moment ago."""
        if time.monotonic() - self._map_read_s < MAP_REFRESH_MIN_S:
            return
        self._map_read_s = time.monotonic()
        try:
            self._new_map(await clusterd.get_map(self.config.cluster, self._session.token))
        except FsError as error:
            log.info("the cluster map could not be read again: %s", error)

    def _read_map(self) -> None:
        self._map_read_s = time.monotonic()
        pending = clusterd.get_map(self.config.cluster, self._session.token)
        pending.wait()
        try:
            self._new_map(pending.result())
        except FsError as error:
            log.debug("the cluster map could not be read again: %s", error)

    def _new_map(self, message: cluster_pb2.ClusterMap) -> None:
        self._map_read_s = time.monotonic()
        if message.nodes and message.epoch >= self.map.epoch:
            self.map = ClusterMap(message)

    def _tick(self) -> None:
        for stream in self._streams():
            stream.tick()
        self.data.tick()
        with contextlib.suppress(FsError):  # closed meanwhile
            self.background.call_later(TICK_S, self._tick)


def _after_fork_in_child() -> None:
    for connection in list(_alive):
        connection._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
