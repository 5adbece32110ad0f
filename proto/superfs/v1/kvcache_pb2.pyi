from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KvOpen(_message.Message):
    __slots__ = ("name", "layout", "quota_bytes", "policy", "disk_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    layout: bytes
    quota_bytes: int
    policy: str
    disk_bytes: int
    def __init__(self, name: _Optional[str] = ..., layout: _Optional[bytes] = ..., quota_bytes: _Optional[int] = ..., policy: _Optional[str] = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class KvOpened(_message.Message):
    __slots__ = ("namespace", "quota_bytes", "policy", "slab_path", "slab_id", "block_bytes_max", "granule_bytes")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SLAB_PATH_FIELD_NUMBER: _ClassVar[int]
    SLAB_ID_FIELD_NUMBER: _ClassVar[int]
    BLOCK_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    GRANULE_BYTES_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    quota_bytes: int
    policy: str
    slab_path: str
    slab_id: int
    block_bytes_max: int
    granule_bytes: int
    def __init__(self, namespace: _Optional[int] = ..., quota_bytes: _Optional[int] = ..., policy: _Optional[str] = ..., slab_path: _Optional[str] = ..., slab_id: _Optional[int] = ..., block_bytes_max: _Optional[int] = ..., granule_bytes: _Optional[int] = ...) -> None: ...

class KvDrop(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    def __init__(self, namespace: _Optional[int] = ...) -> None: ...

class KvKeys(_message.Message):
    __slots__ = ("namespace", "keys")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    keys: bytes
    def __init__(self, namespace: _Optional[int] = ..., keys: _Optional[bytes] = ...) -> None: ...

class KvCount(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class KvPutStart(_message.Message):
    __slots__ = ("namespace", "parent", "keys", "lengths")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    parent: bytes
    keys: bytes
    lengths: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, namespace: _Optional[int] = ..., parent: _Optional[bytes] = ..., keys: _Optional[bytes] = ..., lengths: _Optional[_Iterable[int]] = ...) -> None: ...

class KvPlaces(_message.Message):
    __slots__ = ("lease", "codes", "puts", "offsets", "lengths", "checksums", "lease_ms", "slab_id")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    PUTS_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUMS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    SLAB_ID_FIELD_NUMBER: _ClassVar[int]
    lease: int
    codes: _containers.RepeatedScalarFieldContainer[int]
    puts: _containers.RepeatedScalarFieldContainer[int]
    offsets: _containers.RepeatedScalarFieldContainer[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    checksums: _containers.RepeatedScalarFieldContainer[int]
    lease_ms: int
    slab_id: int
    def __init__(self, lease: _Optional[int] = ..., codes: _Optional[_Iterable[int]] = ..., puts: _Optional[_Iterable[int]] = ..., offsets: _Optional[_Iterable[int]] = ..., lengths: _Optional[_Iterable[int]] = ..., checksums: _Optional[_Iterable[int]] = ..., lease_ms: _Optional[int] = ..., slab_id: _Optional[int] = ...) -> None: ...

class KvPutCommit(_message.Message):
    __slots__ = ("puts", "checksums")
    PUTS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUMS_FIELD_NUMBER: _ClassVar[int]
    puts: _containers.RepeatedScalarFieldContainer[int]
    checksums: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, puts: _Optional[_Iterable[int]] = ..., checksums: _Optional[_Iterable[int]] = ...) -> None: ...

class KvPutAbort(_message.Message):
    __slots__ = ("puts",)
    PUTS_FIELD_NUMBER: _ClassVar[int]
    puts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, puts: _Optional[_Iterable[int]] = ...) -> None: ...

class KvCodes(_message.Message):
    __slots__ = ("codes",)
    CODES_FIELD_NUMBER: _ClassVar[int]
    codes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, codes: _Optional[_Iterable[int]] = ...) -> None: ...

class KvGet(_message.Message):
    __slots__ = ("namespace", "keys")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    keys: bytes
    def __init__(self, namespace: _Optional[int] = ..., keys: _Optional[bytes] = ...) -> None: ...

class KvRelease(_message.Message):
    __slots__ = ("leases", "damaged_of", "damaged")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_OF_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedScalarFieldContainer[int]
    damaged_of: int
    damaged: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, leases: _Optional[_Iterable[int]] = ..., damaged_of: _Optional[int] = ..., damaged: _Optional[_Iterable[int]] = ...) -> None: ...

class KvPin(_message.Message):
    __slots__ = ("namespace", "keys", "ttl_ms")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    keys: bytes
    ttl_ms: int
    def __init__(self, namespace: _Optional[int] = ..., keys: _Optional[bytes] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class KvStatsRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    def __init__(self, namespace: _Optional[int] = ...) -> None: ...

class KvStats(_message.Message):
    __slots__ = ("capacity_bytes", "used_bytes", "blocks", "pending", "leases", "pinned_bytes", "evicted", "asked_blocks", "found_blocks", "dropped", "damaged", "disk_capacity_bytes", "disk_used_bytes", "disk_blocks", "disk_evicted", "promoted", "unwritten", "waiting", "disk_damaged")
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    PINNED_BYTES_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    ASKED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    FOUND_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    DISK_CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    DISK_EVICTED_FIELD_NUMBER: _ClassVar[int]
    PROMOTED_FIELD_NUMBER: _ClassVar[int]
    UNWRITTEN_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    DISK_DAMAGED_FIELD_NUMBER: _ClassVar[int]
    capacity_bytes: int
    used_bytes: int
    blocks: int
    pending: int
    leases: int
    pinned_bytes: int
    evicted: int
    asked_blocks: int
    found_blocks: int
    dropped: int
    damaged: int
    disk_capacity_bytes: int
    disk_used_bytes: int
    disk_blocks: int
    disk_evicted: int
    promoted: int
    unwritten: int
    waiting: int
    disk_damaged: int
    def __init__(self, capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., blocks: _Optional[int] = ..., pending: _Optional[int] = ..., leases: _Optional[int] = ..., pinned_bytes: _Optional[int] = ..., evicted: _Optional[int] = ..., asked_blocks: _Optional[int] = ..., found_blocks: _Optional[int] = ..., dropped: _Optional[int] = ..., damaged: _Optional[int] = ..., disk_capacity_bytes: _Optional[int] = ..., disk_used_bytes: _Optional[int] = ..., disk_blocks: _Optional[int] = ..., disk_evicted: _Optional[int] = ..., promoted: _Optional[int] = ..., unwritten: _Optional[int] = ..., waiting: _Optional[int] = ..., disk_damaged: _Optional[int] = ...) -> None: ...

class KvRead(_message.Message):
    __slots__ = ("lease", "ranges", "across")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ACROSS_FIELD_NUMBER: _ClassVar[int]
    lease: int
    ranges: _containers.RepeatedCompositeFieldContainer[KvRange]
    across: bool
    def __init__(self, lease: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[KvRange, _Mapping]]] = ..., across: _Optional[bool] = ...) -> None: ...

class KvRange(_message.Message):
    __slots__ = ("offset", "length")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    offset: int
    length: int
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class KvBytes(_message.Message):
    __slots__ = ("put", "block", "offset", "data", "checksum")
    PUT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    put: int
    block: int
    offset: int
    data: bytes
    checksum: int
    def __init__(self, put: _Optional[int] = ..., block: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., checksum: _Optional[int] = ...) -> None: ...

class KvSpacesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KvSpaces(_message.Message):
    __slots__ = ("namespaces", "names")
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedScalarFieldContainer[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, namespaces: _Optional[_Iterable[int]] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class KvList(_message.Message):
    __slots__ = ("namespace", "after", "limit")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    after: int
    limit: int
    def __init__(self, namespace: _Optional[int] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class KvListed(_message.Message):
    __slots__ = ("keys", "lengths", "afters", "next")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    AFTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    keys: bytes
    lengths: _containers.RepeatedScalarFieldContainer[int]
    afters: _containers.RepeatedScalarFieldContainer[int]
    next: int
    def __init__(self, keys: _Optional[bytes] = ..., lengths: _Optional[_Iterable[int]] = ..., afters: _Optional[_Iterable[int]] = ..., next: _Optional[int] = ...) -> None: ...

class KvLengths(_message.Message):
    __slots__ = ("lengths",)
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, lengths: _Optional[_Iterable[int]] = ...) -> None: ...

class KvPeek(_message.Message):
    __slots__ = ("namespace", "key")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    key: bytes
    def __init__(self, namespace: _Optional[int] = ..., key: _Optional[bytes] = ...) -> None: ...
