"""The client of a KVCache pool.

    with KVStore.open(config, "chat", chain) as store:
        keys = chain.keys(prompt)
        found = store.get_into(keys, buffers)      # blocks of the longest stored prefix
        store.put(keys, blocks, first=found)       # what was computed since

All blocks of one prompt live on one data daemon, chosen by the first key. On its host their bytes
go through the slab, a file on a tmpfs that both open, elsewhere by streams. Every block that is
returned has been compared with its checksum; what does not match, or cannot be had, is a miss, and
so is a daemon that does not answer: what is cached can be computed. Blocking; one call at a time.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import grpc
from xxhash import xxh3_64_intdigest

from superfs.client import clusterd
from superfs.core.errors import Code, FsError
from superfs.core.limits import KV_KEYS_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.kvcache.slabfile import SlabFile
from superfs.rpc.channel import open_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.v1 import cluster_pb2, kvcache_pb2_grpc
from superfs.v1 import kvcache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.client import ClientConfig
    from superfs.core.kvcache.keys import KeyChain

log = logging.getLogger("superfs.kvcache")

Buffer = bytes | bytearray | memoryview
CALL_S = 10.0
PERSIST_S = 60.0


class Home:
    """One data daemon, to one namespace."""

    def __init__(self, addresses: Sequence[str], opening: pb.KvOpen, *, shared: bool) -> None:
        self._addresses = addresses
        self._opening = opening
        self._shared = shared
        self._channel: grpc.Channel | None = None
        self.stub: Any = None
        self.number = 0
        self.granule_bytes = 1
        self.slab: SlabFile | None = None

    def connect(self, token: bytes) -> None:
        if self._channel is None:
            self._channel = open_channel(self._addresses)
            self.stub = kvcache_pb2_grpc.KVCacheStub(self._channel)
        if not self.number:
            opened: pb.KvOpened = self.stub.Open(
                self._opening, timeout=CALL_S, metadata=token_metadata(token)
            )
            self.number, self.granule_bytes = opened.namespace, opened.granule_bytes
            if self._shared:
                self.slab = SlabFile.open(opened.slab_path, opened.slab_id)

    def agree(self, slab_id: int) -> None:
        """The daemon may have made its slab anew, in another file of this name."""
        if self.slab is not None and self.slab.id != slab_id:
            path = self.slab.path
            self.slab.close()
            self.slab = SlabFile.open(path, slab_id)

    def close(self) -> None:
        if self.slab is not None:
            self.slab.close()
        if self._channel is not None:
            self._channel.close()
        self._channel = self.slab = None
        self.number = 0


class KVStore:
    def __init__(
        self, config: ClientConfig, opening: pb.KvOpen, chain: KeyChain, *, shared: bool
    ) -> None:
        """Use `open`."""
        self.chain = chain
        self._config = config
        self._opening = opening
        self._shared = shared
        self._homes: dict[int, Home] = {}
        self._token = b""

    @classmethod
    def open(
        cls, config: ClientConfig, namespace: str, chain: KeyChain, *,
        quota_bytes: int = 0, policy: str = "", disk_bytes: int | None = None, shared: bool = True,
    ) -> KVStore:  # fmt: skip
        """Makes the namespace where it is not there; then `quota_bytes`, `policy` and `disk_bytes`
        (None: as much as there is; 0: memory only) count. `shared=False`: by streams also on one
        host."""
        opening = pb.KvOpen(
            name=namespace, layout=chain.layout, quota_bytes=quota_bytes, policy=policy,
            disk_bytes=disk_bytes,
        )  # fmt: skip
        store = cls(config, opening, chain, shared=shared)
        store._admit()
        for home in store._homes.values():
            store._ask(home, lambda _: None)
        return store

    def __enter__(self) -> KVStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for home in self._homes.values():
            home.close()

    # ---- verbs

    def match(self, keys: Sequence[bytes]) -> int:
        """How many of them, from the first on, are stored. Holds nothing."""
        return self._count(keys, "Match")

    def get(self, keys: Sequence[bytes]) -> list[bytes]:
        """The blocks of the longest stored prefix."""
        found: list[bytes] = []

        def take(home: Home, places: pb.KvPlaces) -> list[int]:
            buffers = [bytearray(length) for length in places.lengths]
            good = self._read(home, places, buffers)
            found.extend(bytes(buffer) for buffer in buffers[: _prefix(good)])
            return _bad(good)

        for part in _parts(keys):
            before = len(found)
            self._lease(keys, part, take)
            if len(found) - before < len(part):
                break
        return found

    def get_into(self, keys: Sequence[bytes], buffers: Sequence[bytearray | memoryview]) -> int:
        """The same into the caller's memory: how many of the first are right. Of a buffer behind
        them nothing can be said. A block that has another length than its buffer is a miss."""
        done = 0

        def take(home: Home, places: pb.KvPlaces) -> list[int]:
            nonlocal done
            mine = [memoryview(buffer).cast("B") for buffer in buffers[done:]]
            mine = mine[: len(places.lengths)]
            fits = 0
            while fits < len(mine) and len(mine[fits]) == places.lengths[fits]:
                fits += 1
            good = self._read(home, places, mine[:fits])
            done += _prefix(good)
            return _bad(good)

        wanted = keys[: len(buffers)]
        for part in _parts(wanted):
            before = done
            self._lease(wanted, part, take)
            if done - before < len(part):
                break
        return done

    def put(
        self, keys: Sequence[bytes], blocks: Sequence[Buffer], first: int = 0, *,
        durable: bool = False,
    ) -> int:  # fmt: skip
        """`keys` of the whole chain, `blocks` those from `first` on. How many blocks of the chain
        are stored afterwards; less than all when there was no room, or a daemon was away.
        `durable`: that are on disk, and synced."""
        end = min(len(keys), first + len(blocks))
        done = first
        while done < end:
            count = min(KV_KEYS_MAX, end - done)
            part = blocks[done - first : done - first + count]
            parent = keys[done - 1] if done else b""
            stored = self._put(keys, keys[done : done + count], parent, part)
            done += stored
            if stored < count:
                break
        return self.persist(keys[:done]) if durable else done

    def persist(self, keys: Sequence[bytes]) -> int:
        """Waits until what is stored of them is on disk: how many are, from the first on."""
        return self._count(keys, "Persist")

    def pin(self, keys: Sequence[bytes], ttl_s: float) -> int:
        """How many of the first are not evicted for so long, at most."""
        return self._count(keys, "Pin", ttl_ms=round(ttl_s * 1000))

    def unpin(self, keys: Sequence[bytes]) -> int:
        return self._count(keys, "Unpin", whole=True)

    def remove(self, keys: Sequence[bytes]) -> int:
        """These and everything behind them: how many blocks that were."""
        return self._count(keys, "Remove", whole=True)

    def drop(self) -> None:
        """The namespace, with all that is in it, on every data daemon. This store is over then."""
        for home in self._homes.values():
            self._asked(home, lambda h: h.stub.Drop(pb.KvDrop(namespace=h.number), **self._call()))

    @property
    def granule_bytes(self) -> int:
        """Blocks take a multiple of it."""
        return max(home.granule_bytes for home in self._homes.values())

    def stats(self) -> list[pb.KvStats]:
        """Of this namespace, on each data daemon that answers."""
        found = []
        for home in self._homes.values():
            one = self._asked(
                home,
                lambda h: h.stub.Stats(pb.KvStatsRequest(namespace=h.number), **self._call()),
            )
            if one is not None:
                found.append(one)
        return found

    # ---- inside

    def _admit(self) -> None:
        token = clusterd.read_token(self._config.token_file)
        first = clusterd.admit(self._config.cluster, token)
        self._token = first.session_token
        for node in first.map.nodes:
            if node.role == cluster_pb2.ROLE_DATA and node.node_id not in self._homes:
                addresses = tuple(node.addresses)
                self._homes[node.node_id] = Home(addresses, self._opening, shared=self._shared)
        if not self._homes:
            raise FsError(Code.UNAVAILABLE, "there is no data daemon in the cluster map")

    def _home(self, keys: Sequence[bytes]) -> Home:
        """By rendezvous: a daemon that comes or goes moves only its own share."""
        first = keys[0]
        node = max(self._homes, key=lambda n: xxh3_64_intdigest(first, seed=n))
        return self._homes[node]

    def _call(self, timeout_s: float = CALL_S) -> dict[str, Any]:
        return {"timeout": timeout_s, "metadata": token_metadata(self._token)}

    def _ask(self, home: Home, ask: Any) -> Any:  # noqa: ANN401
        """Once more with a new token, or after the daemon has started again."""
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

    def _count(self, keys: Sequence[bytes], verb: str, *, whole: bool = False, **more: int) -> int:
        """`whole`: all parts, else up to the first that is not there."""
        kind = pb.KvPin if verb == "Pin" else pb.KvKeys
        call = self._call(PERSIST_S if verb == "Persist" else CALL_S)
        total = 0
        for part in _parts(keys):
            reply = self._asked(
                self._home(keys),
                lambda h, part=part: getattr(h.stub, verb)(
                    kind(namespace=h.number, keys=b"".join(part), **more), **call
                ),
            )
            total += reply.count if reply is not None else 0
            if reply is None or (not whole and reply.count < len(part)):
                break
        return total

    def _lease(
        self,
        keys: Sequence[bytes],
        part: Sequence[bytes],
        take: Callable[[Home, pb.KvPlaces], list[int]],
    ) -> None:
        home = self._home(keys)
        places = self._asked(
            home,
            lambda h: h.stub.Get(pb.KvGet(namespace=h.number, keys=b"".join(part)), **self._call()),
        )
        if places is None or not places.lease:
            return
        home.agree(places.slab_id)
        bad: list[int] = []
        try:
            bad = take(home, places)
        finally:
            request = pb.KvRelease(leases=[places.lease], damaged_of=places.lease, damaged=bad)
            with contextlib.suppress(grpc.RpcError):  # it ends by itself
                home.stub.Release(request, **self._call())

    def _read(self, home: Home, places: pb.KvPlaces, buffers: Sequence[Any]) -> list[bool]:
        if home.slab is not None:
            for buffer, offset in zip(buffers, places.offsets, strict=False):
                home.slab.read_into(buffer, offset)
        else:
            try:
                self._stream(home, places.lease, [memoryview(b).cast("B") for b in buffers])
            except grpc.RpcError as error:
                log.info("a block could not be read: %s", from_rpc(error))
        sums = zip(buffers, places.checksums, strict=False)
        return [xxh3_64_intdigest(buffer) == checksum for buffer, checksum in sums]

    def _stream(self, home: Home, lease: int, buffers: Sequence[memoryview]) -> None:
        for part in home.stub.Read(pb.KvRead(lease=lease), **self._call()):
            if part.block >= len(buffers):
                break
            buffer = buffers[part.block]
            room = buffer[part.offset : part.offset + len(part.data)]
            if len(room) == len(part.data):
                room[:] = part.data

    def _put(
        self, keys: Sequence[bytes], part: Sequence[bytes], parent: bytes, blocks: Sequence[Buffer]
    ) -> int:
        home = self._home(keys)
        views = [memoryview(block).cast("B") for block in blocks]
        started = self._asked(
            home,
            lambda h: h.stub.PutStart(
                pb.KvPutStart(
                    namespace=h.number, parent=parent, keys=b"".join(part),
                    lengths=[len(view) for view in views],
                ),
                **self._call(),
            ),
        )  # fmt: skip
        if started is None:
            return 0
        home.agree(started.slab_id)
        mine = [n for n, code in enumerate(started.codes) if code == Code.OK]
        numbers = [started.puts[n] for n in mine]
        try:
            self._write(home, started, mine, views)
            sums = [xxh3_64_intdigest(views[n]) for n in mine]
            commit = pb.KvPutCommit(puts=numbers, checksums=sums)
            codes = list(home.stub.PutCommit(commit, **self._call()).codes) if mine else []
        except (grpc.RpcError, OSError) as error:
            log.info("blocks could not be stored: %s", error)
            with contextlib.suppress(grpc.RpcError):
                home.stub.PutAbort(pb.KvPutAbort(puts=numbers), **self._call())
            return 0
        committed = {n for n, code in zip(mine, codes, strict=True) if code == Code.OK}
        good = [n in committed or code == Code.EXISTS for n, code in enumerate(started.codes)]
        return _prefix(good)

    def _write(
        self, home: Home, started: pb.KvPlaces, mine: list[int], views: list[memoryview]
    ) -> None:
        if home.slab is not None:
            for n in mine:
                home.slab.write(views[n], started.offsets[n])
        elif mine:
            home.stub.Write(_cut(started, mine, views), **self._call())


def _cut(started: pb.KvPlaces, mine: list[int], views: list[memoryview]) -> Iterator[pb.KvBytes]:
    for n in mine:
        for at in range(0, len(views[n]), MESSAGE_DATA_BYTES_MAX):
            data = bytes(views[n][at : at + MESSAGE_DATA_BYTES_MAX])
            yield pb.KvBytes(put=started.puts[n], offset=at, data=data)


def _parts(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for at in range(0, len(keys), KV_KEYS_MAX):
        yield keys[at : at + KV_KEYS_MAX]


def _prefix(good: Sequence[bool]) -> int:
    return good.index(False) if False in good else len(good)


def _bad(good: Sequence[bool]) -> list[int]:
    return [n for n, right in enumerate(good) if not right]
