"""The data daemons of a cluster as a client of the KVCache pool has them: which there are, which is
asked for a chain, and what happens when one does not answer.

Blocking; one call at a time.
"""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import grpc
from xxhash import xxh3_64_intdigest

from superfs.client import clusterd
from superfs.core.errors import Code, FsError
from superfs.kvcache.hands import Hands
from superfs.kvcache.home import CALL_S, Home
from superfs.kvcache.pace import Pace
from superfs.rpc.channel import token_metadata
from superfs.rpc.errors import from_rpc
from superfs.rpc.forks import GATE
from superfs.v1 import cluster_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.client import ClientConfig
    from superfs.core.kvcache.keys import KeyChain
    from superfs.v1 import kvcache_pb2 as pb

log = logging.getLogger("superfs.kvcache")


class Reached:
    def __init__(
        self,
        config: ClientConfig,
        opening: pb.KvOpen,
        chain: KeyChain,
        *,
        shared: bool,
        copies: int,
        bytes_per_s: float = 0,
    ) -> None:
        """Use `open`."""
        self._pace = Pace(bytes_per_s)
        self._copies = max(1, copies)
        self.chain = chain
        self._config = config
        self._opening = opening
        self._shared = shared
        self._hands = Hands()
        self._homes: dict[int, Home] = {}
        self._token = b""
        self._work: Future[Any] | None = None
        self._works: Callable[[], bool] = lambda: False
        self._last: grpc.Future[Any] | None = None
        self._generation = GATE.generation

    def behind(self, work: Future[Any], works: Callable[[], bool]) -> None:
        """Somebody goes on with this store in a thread of its own until `work` is done: whoever
        else asks it for something waits. `works`: whether the calling thread is that one."""
        self._work, self._works = work, works

    def _settle(self) -> None:
        work = self._work
        if work is None or self._works():
            return
        wait([work])  # what it raises is for who has begun it
        self._work = None

    def _behind_it(self, call: grpc.Future[Any]) -> None:
        """The last message of a verb, whose answer nobody needs: the next verb waits for it."""
        self._finish()
        self._last = call

    def _finish(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
                last.result()

    def close(self) -> None:
        if self._generation != GATE.generation:
            return  # a child after fork: all of it is the parent's
        self._settle()
        self._finish()
        for home in self._homes.values():
            home.close()
        self._hands.close()

    def _admit(self) -> None:
        token = clusterd.read_token(self._config.token_file)
        first = clusterd.admit(self._config.cluster, token)
        self._token = first.session_token
        for node in first.map.nodes:
            if node.role == cluster_pb2.ROLE_DATA and node.node_id not in self._homes:
                addresses = tuple(node.addresses)
                self._homes[node.node_id] = Home(
                    addresses, self._opening, self._hands, self._pace, shared=self._shared
                )
        if not self._homes:
            raise FsError(Code.UNAVAILABLE, "there is no data daemon in the cluster map")

    def _home(self, keys: Sequence[bytes]) -> Home:
        return self._homes_of(keys)[0]

    def _homes_of(self, keys: Sequence[bytes]) -> list[Home]:
        """By rendezvous: a daemon that comes or goes moves only its own share."""
        first = keys[0] if keys else b""
        nodes = sorted(self._homes, key=lambda n: -xxh3_64_intdigest(first, seed=n))
        return [self._homes[node] for node in nodes]

    def _call(self, timeout_s: float = CALL_S) -> dict[str, Any]:
        return {"timeout": timeout_s, "metadata": token_metadata(self._token)}

    def _ask(self, home: Home, ask: Any) -> Any:  # noqa: ANN401
        """Once more with a new token, or after the daemon has started again."""
        if self._generation != GATE.generation:
            raise RuntimeError("this pool was opened before fork(); open another one in the child")
        self._settle()
        self._finish()
        for last in (False, True):
            try:
                home.connect(self._token)
                return ask(home)
            except grpc.RpcError as error:
                found = from_rpc(error)
                if last or found.code not in (Code.UNAUTHENTICATED, Code.UNAVAILABLE):
                    raise found from None
                home.close()
                if found.code is Code.UNAUTHENTICATED:
                    self._admit()
        raise AssertionError

    def _asked(self, home: Home, ask: Any) -> Any:  # noqa: ANN401
        """None: nobody answers, or what was asked about is over."""
        try:
            return self._ask(home, ask)
        except FsError as error:
            if not error.retryable and error.code not in (Code.DEADLINE, Code.NOT_FOUND):
                raise
            log.info("the KVCache pool does not answer: %s", error)
            return None
