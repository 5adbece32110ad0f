from superfs.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataRequest(_message.Message):
    __slots__ = ("tag", "capability", "more", "promised", "write", "write_many", "read", "read_many", "commit", "truncate", "reap", "usage", "fence", "locate", "locate_many", "promise")
    TAG_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    PROMISED_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    WRITE_MANY_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    READ_MANY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    REAP_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    LOCATE_FIELD_NUMBER: _ClassVar[int]
    LOCATE_MANY_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    tag: int
    capability: bytes
    more: _containers.RepeatedCompositeFieldContainer[DataRequest]
    promised: bool
    write: Write
    write_many: WriteMany
    read: Read
    read_many: ReadMany
    commit: Commit
    truncate: Truncate
    reap: Reap
    usage: Usage
    fence: Fence
    locate: Locate
    locate_many: LocateMany
    promise: Promise
    def __init__(self, tag: _Optional[int] = ..., capability: _Optional[bytes] = ..., more: _Optional[_Iterable[_Union[DataRequest, _Mapping]]] = ..., promised: _Optional[bool] = ..., write: _Optional[_Union[Write, _Mapping]] = ..., write_many: _Optional[_Union[WriteMany, _Mapping]] = ..., read: _Optional[_Union[Read, _Mapping]] = ..., read_many: _Optional[_Union[ReadMany, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ..., truncate: _Optional[_Union[Truncate, _Mapping]] = ..., reap: _Optional[_Union[Reap, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., fence: _Optional[_Union[Fence, _Mapping]] = ..., locate: _Optional[_Union[Locate, _Mapping]] = ..., locate_many: _Optional[_Union[LocateMany, _Mapping]] = ..., promise: _Optional[_Union[Promise, _Mapping]] = ...) -> None: ...

class DataReply(_message.Message):
    __slots__ = ("tag", "code", "detail", "boot_epoch", "data", "reads", "usage", "version", "located", "located_many", "more", "scarce")
    TAG_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    BOOT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LOCATED_FIELD_NUMBER: _ClassVar[int]
    LOCATED_MANY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    SCARCE_FIELD_NUMBER: _ClassVar[int]
    tag: int
    code: int
    detail: str
    boot_epoch: int
    data: bytes
    reads: _containers.RepeatedCompositeFieldContainer[ReadResult]
    usage: UsageReply
    version: int
    located: Located
    located_many: LocatedMany
    more: _containers.RepeatedCompositeFieldContainer[DataReply]
    scarce: bool
    def __init__(self, tag: _Optional[int] = ..., code: _Optional[int] = ..., detail: _Optional[str] = ..., boot_epoch: _Optional[int] = ..., data: _Optional[bytes] = ..., reads: _Optional[_Iterable[_Union[ReadResult, _Mapping]]] = ..., usage: _Optional[_Union[UsageReply, _Mapping]] = ..., version: _Optional[int] = ..., located: _Optional[_Union[Located, _Mapping]] = ..., located_many: _Optional[_Union[LocatedMany, _Mapping]] = ..., more: _Optional[_Iterable[_Union[DataReply, _Mapping]]] = ..., scarce: _Optional[bool] = ...) -> None: ...

class Write(_message.Message):
    __slots__ = ("ino", "data_generation", "chunk", "offset", "data", "shared", "placed")
    INO_FIELD_NUMBER: _ClassVar[int]
    DATA_GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    ino: int
    data_generation: int
    chunk: int
    offset: int
    data: bytes
    shared: Shared
    placed: Placed
    def __init__(self, ino: _Optional[int] = ..., data_generation: _Optional[int] = ..., chunk: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., shared: _Optional[_Union[Shared, _Mapping]] = ..., placed: _Optional[_Union[Placed, _Mapping]] = ...) -> None: ...

class Placed(_message.Message):
    __slots__ = ("segment", "place", "length", "crcs")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    CRCS_FIELD_NUMBER: _ClassVar[int]
    segment: int
    place: int
    length: int
    crcs: bytes
    def __init__(self, segment: _Optional[int] = ..., place: _Optional[int] = ..., length: _Optional[int] = ..., crcs: _Optional[bytes] = ...) -> None: ...

class Shared(_message.Message):
    __slots__ = ("buffer", "offset", "length", "drop_behind")
    BUFFER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DROP_BEHIND_FIELD_NUMBER: _ClassVar[int]
    buffer: int
    offset: int
    length: int
    drop_behind: bool
    def __init__(self, buffer: _Optional[int] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ..., drop_behind: _Optional[bool] = ...) -> None: ...

class WriteMany(_message.Message):
    __slots__ = ("writes",)
    WRITES_FIELD_NUMBER: _ClassVar[int]
    writes: _containers.RepeatedCompositeFieldContainer[Write]
    def __init__(self, writes: _Optional[_Iterable[_Union[Write, _Mapping]]] = ...) -> None: ...

class Read(_message.Message):
    __slots__ = ("ino", "data_generation", "chunk", "offset", "length")
    INO_FIELD_NUMBER: _ClassVar[int]
    DATA_GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    ino: int
    data_generation: int
    chunk: int
    offset: int
    length: int
    def __init__(self, ino: _Optional[int] = ..., data_generation: _Optional[int] = ..., chunk: _Optional[int] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class ReadMany(_message.Message):
    __slots__ = ("reads",)
    READS_FIELD_NUMBER: _ClassVar[int]
    reads: _containers.RepeatedCompositeFieldContainer[Read]
    def __init__(self, reads: _Optional[_Iterable[_Union[Read, _Mapping]]] = ...) -> None: ...

class ReadResult(_message.Message):
    __slots__ = ("code", "data")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    code: int
    data: bytes
    def __init__(self, code: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Locate(_message.Message):
    __slots__ = ("ino", "data_generation", "chunks")
    INO_FIELD_NUMBER: _ClassVar[int]
    DATA_GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ino: int
    data_generation: int
    chunks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ino: _Optional[int] = ..., data_generation: _Optional[int] = ..., chunks: _Optional[_Iterable[int]] = ...) -> None: ...

class Located(_message.Message):
    __slots__ = ("mark", "value", "chunks")
    MARK_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    mark: int
    value: int
    chunks: _containers.RepeatedCompositeFieldContainer[LocatedChunk]
    def __init__(self, mark: _Optional[int] = ..., value: _Optional[int] = ..., chunks: _Optional[_Iterable[_Union[LocatedChunk, _Mapping]]] = ...) -> None: ...

class LocatedChunk(_message.Message):
    __slots__ = ("extents", "crcs", "scattered")
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    CRCS_FIELD_NUMBER: _ClassVar[int]
    SCATTERED_FIELD_NUMBER: _ClassVar[int]
    extents: bytes
    crcs: bytes
    scattered: bool
    def __init__(self, extents: _Optional[bytes] = ..., crcs: _Optional[bytes] = ..., scattered: _Optional[bool] = ...) -> None: ...

class LocateMany(_message.Message):
    __slots__ = ("inos", "generations")
    INOS_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    inos: bytes
    generations: bytes
    def __init__(self, inos: _Optional[bytes] = ..., generations: _Optional[bytes] = ...) -> None: ...

class LocatedMany(_message.Message):
    __slots__ = ("counts", "extents", "crcs")
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    CRCS_FIELD_NUMBER: _ClassVar[int]
    counts: bytes
    extents: bytes
    crcs: bytes
    def __init__(self, counts: _Optional[bytes] = ..., extents: _Optional[bytes] = ..., crcs: _Optional[bytes] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Truncate(_message.Message):
    __slots__ = ("ino", "data_generation", "size")
    INO_FIELD_NUMBER: _ClassVar[int]
    DATA_GENERATION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ino: int
    data_generation: int
    size: int
    def __init__(self, ino: _Optional[int] = ..., data_generation: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Reap(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ReapItem]
    def __init__(self, items: _Optional[_Iterable[_Union[ReapItem, _Mapping]]] = ...) -> None: ...

class ReapItem(_message.Message):
    __slots__ = ("ino", "data_generation")
    INO_FIELD_NUMBER: _ClassVar[int]
    DATA_GENERATION_FIELD_NUMBER: _ClassVar[int]
    ino: int
    data_generation: int
    def __init__(self, ino: _Optional[int] = ..., data_generation: _Optional[int] = ...) -> None: ...

class Promise(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    def __init__(self, bytes: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UsageReply(_message.Message):
    __slots__ = ("bytes_total", "bytes_free", "bytes_live", "segments", "extents", "boots", "local_socket", "requests_max")
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_FREE_FIELD_NUMBER: _ClassVar[int]
    BYTES_LIVE_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    BOOTS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_SOCKET_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_MAX_FIELD_NUMBER: _ClassVar[int]
    bytes_total: int
    bytes_free: int
    bytes_live: int
    segments: int
    extents: int
    boots: _containers.RepeatedCompositeFieldContainer[Boot]
    local_socket: str
    requests_max: int
    def __init__(self, bytes_total: _Optional[int] = ..., bytes_free: _Optional[int] = ..., bytes_live: _Optional[int] = ..., segments: _Optional[int] = ..., extents: _Optional[int] = ..., boots: _Optional[_Iterable[_Union[Boot, _Mapping]]] = ..., local_socket: _Optional[str] = ..., requests_max: _Optional[int] = ...) -> None: ...

class Boot(_message.Message):
    __slots__ = ("epoch", "survived")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SURVIVED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    survived: int
    def __init__(self, epoch: _Optional[int] = ..., survived: _Optional[int] = ...) -> None: ...

class Fence(_message.Message):
    __slots__ = ("session_id", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    epoch: int
    def __init__(self, session_id: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class DataCheckRequest(_message.Message):
    __slots__ = ("verify_data",)
    VERIFY_DATA_FIELD_NUMBER: _ClassVar[int]
    verify_data: bool
    def __init__(self, verify_data: _Optional[bool] = ...) -> None: ...

class DataListRequest(_message.Message):
    __slots__ = ("number_range", "used")
    NUMBER_RANGE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    number_range: int
    used: int
    def __init__(self, number_range: _Optional[int] = ..., used: _Optional[int] = ...) -> None: ...

class StoredList(_message.Message):
    __slots__ = ("inos", "generations", "sizes")
    INOS_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    inos: bytes
    generations: bytes
    sizes: bytes
    def __init__(self, inos: _Optional[bytes] = ..., generations: _Optional[bytes] = ..., sizes: _Optional[bytes] = ...) -> None: ...

class LocalRequest(_message.Message):
    __slots__ = ("tag", "hello", "want", "closed", "share", "lend", "give_back")
    TAG_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    LEND_FIELD_NUMBER: _ClassVar[int]
    GIVE_BACK_FIELD_NUMBER: _ClassVar[int]
    tag: int
    hello: LocalHello
    want: Want
    closed: Closed
    share: Share
    lend: Lend
    give_back: GiveBack
    def __init__(self, tag: _Optional[int] = ..., hello: _Optional[_Union[LocalHello, _Mapping]] = ..., want: _Optional[_Union[Want, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., share: _Optional[_Union[Share, _Mapping]] = ..., lend: _Optional[_Union[Lend, _Mapping]] = ..., give_back: _Optional[_Union[GiveBack, _Mapping]] = ...) -> None: ...

class LocalHello(_message.Message):
    __slots__ = ("token", "capability")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    capability: bytes
    def __init__(self, token: _Optional[bytes] = ..., capability: _Optional[bytes] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("segments",)
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, segments: _Optional[_Iterable[int]] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("segments", "read_bytes", "buffers")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedScalarFieldContainer[int]
    read_bytes: int
    buffers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, segments: _Optional[_Iterable[int]] = ..., read_bytes: _Optional[int] = ..., buffers: _Optional[_Iterable[int]] = ...) -> None: ...

class Share(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Lend(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GiveBack(_message.Message):
    __slots__ = ("segments",)
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, segments: _Optional[_Iterable[int]] = ...) -> None: ...

class LocalReply(_message.Message):
    __slots__ = ("tag", "code", "detail", "boot_epoch", "codes", "unlinked", "buffer", "segment", "segment_bytes", "lent_max")
    TAG_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    BOOT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    UNLINKED_FIELD_NUMBER: _ClassVar[int]
    BUFFER_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENT_MAX_FIELD_NUMBER: _ClassVar[int]
    tag: int
    code: int
    detail: str
    boot_epoch: int
    codes: _containers.RepeatedScalarFieldContainer[int]
    unlinked: _containers.RepeatedScalarFieldContainer[int]
    buffer: int
    segment: int
    segment_bytes: int
    lent_max: int
    def __init__(self, tag: _Optional[int] = ..., code: _Optional[int] = ..., detail: _Optional[str] = ..., boot_epoch: _Optional[int] = ..., codes: _Optional[_Iterable[int]] = ..., unlinked: _Optional[_Iterable[int]] = ..., buffer: _Optional[int] = ..., segment: _Optional[int] = ..., segment_bytes: _Optional[int] = ..., lent_max: _Optional[int] = ...) -> None: ...
