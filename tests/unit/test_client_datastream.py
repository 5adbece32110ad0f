"""The stream to a data daemon that is killed or loses its power: what is sent again, what not."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from superfs.client.config import ClientConfig
from superfs.client.data import SHARED_BYTES_MIN, DataClient, Where
from superfs.client.datastream import UNKNOWN_MAX, DataStream
from superfs.client.retry import delays
from superfs.client.session import Session
from superfs.client.wire import decode_reply, encode_request
from superfs.core.errors import Code, FsError
from superfs.core.layout import Piece
from superfs.rpc.pending import run_sync, settle
from superfs.rpc.stream import StreamTimes
from superfs.v1 import data_pb2
from superfs.v1.data_pb2 import Boot, DataReply, DataRequest, UsageReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.client.local import LocalLink
    from superfs.client.wire import Request

FILE = Where(7, 1, (1,))


class Datad:
    """Every write is one append. A start keeps the appends that survived and forgets the rest."""

    def __init__(self) -> None:
        self.appends: list[bytes] = []
        self.boots = [Boot(epoch=101)]
        self.refuse = Code.OK
        self.commits = 0
        self.broken = False
        self.requests_max = 0
        self.messages: list[int] = []  # how many requests each held
        self.dies_behind = 0  # so many requests

    def start_anew(self, survived: int) -> None:
        del self.appends[survived:]
        self.boots.append(Boot(epoch=self.boots[-1].epoch + 1, survived=survived))
        self.broken = True

    def answer_all(self, request: DataRequest) -> DataReply:
        """None is answered when it dies at one of them."""
        requests = [request, *request.more]
        if not request.HasField("usage"):
            self.messages.append(len(requests))
        replies = []
        for one in requests:
            replies.append(self.answer(one))
            self.dies_behind -= 1
            if not self.dies_behind:
                self.start_anew(survived=len(self.appends))
                raise FsError(Code.UNAVAILABLE, "killed")
        replies[0].more.extend(replies[1:])
        return replies[0]

    def answer(self, request: DataRequest) -> DataReply:
        reply = DataReply(tag=request.tag, boot_epoch=self.boots[-1].epoch)
        if request.HasField("usage"):
            usage = UsageReply(boots=self.boots, requests_max=self.requests_max)
            reply.usage.CopyFrom(usage)
        elif request.HasField("commit"):
            self.commits += 1
        elif self.refuse is not Code.OK:
            reply.code = self.refuse
        else:
            data = request.write.data
            by_place = not 0 < len(data) < SHARED_BYTES_MIN  # or would have been
            self.appends.append(b"%d" % request.write.offset if by_place else data)
            reply.version = len(self.appends)
        return reply


class Call:
    """Stands for grpc's call."""

    def __init__(self, datad: Datad, requests: Iterator[Request]) -> None:
        self._datad = datad
        self._requests = requests
        datad.broken = False

    def __iter__(self) -> Iterator[Any]:
        for request in self._requests:
            if self._datad.broken:
                raise FsError(Code.UNAVAILABLE, "killed")
            answer = self._datad.answer_all(DataRequest.FromString(encode_request(request)))
            yield decode_reply(answer.SerializeToString())

    def cancel(self) -> None:
        """Nobody waits outside of the requests."""


class Client:
    """Connection, as far as the stream and the data client need one."""

    def __init__(self, datad: Datad) -> None:
        self.datad = datad
        self.config = ClientConfig()
        self.drops_behind = False
        self.capability = b""
        self.session = Session(1, b"", 0)
        self.stream = DataStream(self, 2, StreamTimes(), self._delays)
        self.data = DataClient(self)

    def _delays(self) -> Iterator[float]:
        return delays(random.Random(1), first_s=0.001, last_s=0.001)

    def data_stream(self, _chain_id: int) -> DataStream:
        return self.stream

    def data_streams(self) -> list[DataStream]:
        return [self.stream]

    def open_data_call(
        self, _node_id: int, requests: Iterator[Request]
    ) -> tuple[Any, Callable[[], None]]:
        return Call(self.datad, requests), lambda: None

    def recover(self, error: FsError, session: Session) -> None:
        """The map and the session are as they were."""

    def write(self, data: bytes, offset: int = 0) -> None:
        run_sync(self.data.write(FILE, offset, data), 10)

    def commit(self, ino: int = 0) -> None:
        run_sync(self.data.commit(None, ino), 10)


class Mute:
    """A call that nobody answers, as to a daemon that has stopped."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        self._ended.wait()
        raise FsError(Code.UNAVAILABLE, "cancelled")
        yield

    def cancel(self) -> None:
        self._ended.set()


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(Datad())
    yield client
    client.stream.close()


def test_what_survived_a_kill_is_not_sent_again(client: Client) -> None:
    """It may be old by now: somebody else may have written over it, or cut it off."""
    datad = client.datad
    client.write(b"old")
    datad.appends.append(b"of somebody else, over it")
    datad.start_anew(survived=2)
    client.commit()
    assert datad.appends == [b"old", b"of somebody else, over it"]
    assert client.stream.kept_bytes == 0


def test_what_was_lost_with_the_power_is_sent_again_in_order(client: Client) -> None:
    datad = client.datad
    for number in range(4):
        client.write(b"%d" % number)
    datad.start_anew(survived=2)
    client.write(b"new")
    assert datad.appends == [b"0", b"1", b"2", b"3", b"new"]
    client.commit()
    assert client.stream.kept_bytes == 0


def test_two_starts_at_once(client: Client) -> None:
    """Versions of a start that the client has not seen are not those that it knows."""
    datad = client.datad
    client.write(b"lost")
    datad.start_anew(survived=0)
    datad.appends += [b"of somebody else"] * 5
    datad.start_anew(survived=5)
    client.commit()
    assert datad.appends[5:] == [b"lost"]


def test_a_daemon_that_does_not_remember_gets_everything(client: Client) -> None:
    datad = client.datad
    client.write(b"a")
    datad.boots = [Boot(epoch=900), Boot(epoch=901, survived=9)]
    datad.broken = True
    client.commit()
    assert datad.appends == [b"a", b"a"]


@pytest.mark.allow_log("written bytes are lost")
def test_fsync_says_that_acknowledged_bytes_are_lost(client: Client) -> None:
    datad = client.datad
    client.write(b"lost")
    datad.start_anew(survived=0)
    datad.refuse = Code.NO_SPACE
    client.commit(ino=8)  # of another file
    with pytest.raises(FsError) as caught:
        client.commit(ino=FILE.ino)
    assert caught.value.code is Code.NO_SPACE
    client.commit()  # it has been said


def test_bytes_of_a_removed_file_are_not_missed(client: Client) -> None:
    datad = client.datad
    client.write(b"gone")
    datad.start_anew(survived=0)
    datad.refuse = Code.STALE_DATA
    client.commit()
    assert datad.appends == []
    assert client.stream.kept_bytes == 0


class Link:
    """Stands for the local socket of a daemon that has all our memory."""

    ready, ended, error = True, False, None

    def buffer_of(self, _arena: object) -> int:
        return 1

    def tick(self) -> None: ...
    def close(self) -> None: ...


def by_place(client: Client, count: int) -> None:
    """So many writes at once, of bytes in shared memory."""
    client.stream.local = cast("LocalLink", Link())
    extents = []
    for number in range(count):
        part = client.data.memory.copy(bytes(SHARED_BYTES_MIN))
        assert part is not None
        extents.append((number, part))
    answers = client.data.start_writes_now(FILE, extents)
    assert answers is not None
    run_sync(settle(answers), 10)


@pytest.mark.parametrize("requests_max", [0, 1, 3, 100])
def test_writes_by_place_share_messages(client: Client, requests_max: int) -> None:
    datad = client.datad
    datad.requests_max = requests_max
    client.write(b"a")
    by_place(client, 7)
    assert datad.appends == [b"a", *[b"%d" % number for number in range(7)]]
    expected = {0: [1] * 7, 1: [1] * 7, 3: [3, 3, 1], 100: [7]}
    assert datad.messages == [1, *expected[requests_max]]
    assert client.stream.kept_bytes == 1 + 7 * SHARED_BYTES_MIN
    client.commit()
    assert client.stream.kept_bytes == 0


def test_what_carries_its_bytes_goes_alone(client: Client) -> None:
    client.datad.requests_max = 100
    client.write(b"a")
    by_place(client, 1)
    client.stream._unknown = UNKNOWN_MAX  # the daemon does not know memory any more
    items = [
        client.data._write_item(FILE, Piece(0, at, SHARED_BYTES_MIN, 0), part)
        for at in range(3)
        if (part := client.data.memory.copy(bytes(SHARED_BYTES_MIN))) is not None
    ]
    client.stream.submit(items)
    run_sync(settle([item.pending for item in items]), 10)
    assert client.datad.messages == [1, 1, 1, 1, 1]


def test_a_kill_in_the_middle_of_a_message(client: Client) -> None:
    """Nothing of it was answered: all of it is sent again, in its order."""
    datad = client.datad
    datad.requests_max = 4
    client.write(b"a")
    datad.dies_behind = 6
    by_place(client, 7)
    names = [b"%d" % number for number in range(7)]
    assert datad.appends == [b"a", *names[:6], *names[4:]]
    client.commit()
    assert client.stream.kept_bytes == 0


def test_usage_says_which_starts_there_were() -> None:
    reply = DataReply(usage=data_pb2.UsageReply(boots=[Boot(epoch=1, survived=2)]))
    assert decode_reply(reply.SerializeToString()).usage.boots[0].survived == 2


def test_refusing_needs_no_lock(client: Client) -> None:
    """Another thread may have held it at the moment of a fork."""
    client.stream._lock.acquire()
    client.stream.refuse(RuntimeError("after fork"))
    with pytest.raises(RuntimeError, match="after fork"):
        client.stream.commit()


def test_who_syncs_everything_waits_for_no_daemon_that_was_never_written_to(
    client: Client,
) -> None:
    """It may be out of reach, and was only greeted."""
    client.data.greet((1,))
    client.commit()
    commits = [client.datad.commits]
    pending = run_sync(client.data.start_write(FILE, 0, b"a"))
    for _ in range(2):
        client.commit()
        assert pending[0].done
        commits.append(client.datad.commits)
    assert commits == [0, 1, 2]


def test_a_stream_is_closed_while_it_is_opened(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no call yet that could be cancelled."""
    opening, joining = threading.Event(), threading.Event()

    def open_call(*_: object) -> tuple[Mute, Callable[[], None]]:
        opening.set()
        joining.wait(10)
        return Mute(), lambda: None

    monkeypatch.setattr(client, "open_data_call", open_call)
    client.data.greet((1,))
    assert opening.wait(10)
    thread = client.stream._thread
    assert thread is not None
    join = thread.join

    def joined() -> None:
        joining.set()
        join()

    monkeypatch.setattr(thread, "join", joined)
    closer = threading.Thread(target=client.stream.close, daemon=True)
    closer.start()
    closer.join(10)
    assert not closer.is_alive()
