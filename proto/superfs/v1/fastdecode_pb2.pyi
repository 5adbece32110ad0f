from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RwOpen(_message.Message):
    __slots__ = ("layers", "heads", "kv_heads", "head_dim", "scale", "wire", "storage", "rows_max", "minis", "slots", "tokens_max", "memory_bytes")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    KV_HEADS_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    WIRE_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    ROWS_MAX_FIELD_NUMBER: _ClassVar[int]
    MINIS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    wire: str
    storage: str
    rows_max: int
    minis: int
    slots: int
    tokens_max: int
    memory_bytes: int
    def __init__(self, layers: _Optional[int] = ..., heads: _Optional[int] = ..., kv_heads: _Optional[int] = ..., head_dim: _Optional[int] = ..., scale: _Optional[float] = ..., wire: _Optional[str] = ..., storage: _Optional[str] = ..., rows_max: _Optional[int] = ..., minis: _Optional[int] = ..., slots: _Optional[int] = ..., tokens_max: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class RwOpened(_message.Message):
    __slots__ = ("capacity_tokens", "lease_s", "kernel", "threads")
    CAPACITY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    capacity_tokens: int
    lease_s: float
    kernel: str
    threads: int
    def __init__(self, capacity_tokens: _Optional[int] = ..., lease_s: _Optional[float] = ..., kernel: _Optional[str] = ..., threads: _Optional[int] = ...) -> None: ...

class RwFill(_message.Message):
    __slots__ = ("slot", "layer", "first", "count")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    slot: int
    layer: int
    first: int
    count: int
    def __init__(self, slot: _Optional[int] = ..., layer: _Optional[int] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class RwRestore(_message.Message):
    __slots__ = ("slot", "first", "block_tokens", "slab_id", "offsets", "checksums")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    BLOCK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SLAB_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUMS_FIELD_NUMBER: _ClassVar[int]
    slot: int
    first: int
    block_tokens: int
    slab_id: int
    offsets: _containers.RepeatedScalarFieldContainer[int]
    checksums: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, slot: _Optional[int] = ..., first: _Optional[int] = ..., block_tokens: _Optional[int] = ..., slab_id: _Optional[int] = ..., offsets: _Optional[_Iterable[int]] = ..., checksums: _Optional[_Iterable[int]] = ...) -> None: ...

class RwStep(_message.Message):
    __slots__ = ("mini", "layer", "slots")
    MINI_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    mini: int
    layer: int
    slots: bytes
    def __init__(self, mini: _Optional[int] = ..., layer: _Optional[int] = ..., slots: _Optional[bytes] = ...) -> None: ...

class RwFree(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, slots: _Optional[_Iterable[int]] = ...) -> None: ...

class RwPing(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RwRequest(_message.Message):
    __slots__ = ("open", "fill", "step", "free", "ping", "restore")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    open: RwOpen
    fill: RwFill
    step: RwStep
    free: RwFree
    ping: RwPing
    restore: RwRestore
    def __init__(self, open: _Optional[_Union[RwOpen, _Mapping]] = ..., fill: _Optional[_Union[RwFill, _Mapping]] = ..., step: _Optional[_Union[RwStep, _Mapping]] = ..., free: _Optional[_Union[RwFree, _Mapping]] = ..., ping: _Optional[_Union[RwPing, _Mapping]] = ..., restore: _Optional[_Union[RwRestore, _Mapping]] = ...) -> None: ...

class RwDone(_message.Message):
    __slots__ = ("mini", "layer", "refused")
    MINI_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    mini: int
    layer: int
    refused: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, mini: _Optional[int] = ..., layer: _Optional[int] = ..., refused: _Optional[_Iterable[int]] = ...) -> None: ...

class RwFilled(_message.Message):
    __slots__ = ("slot", "layer")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    slot: int
    layer: int
    def __init__(self, slot: _Optional[int] = ..., layer: _Optional[int] = ...) -> None: ...

class RwRestored(_message.Message):
    __slots__ = ("slot", "blocks")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    slot: int
    blocks: int
    def __init__(self, slot: _Optional[int] = ..., blocks: _Optional[int] = ...) -> None: ...

class RwReply(_message.Message):
    __slots__ = ("code", "detail", "opened", "done", "filled", "restored")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    FILLED_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FIELD_NUMBER: _ClassVar[int]
    code: int
    detail: str
    opened: RwOpened
    done: RwDone
    filled: RwFilled
    restored: RwRestored
    def __init__(self, code: _Optional[int] = ..., detail: _Optional[str] = ..., opened: _Optional[_Union[RwOpened, _Mapping]] = ..., done: _Optional[_Union[RwDone, _Mapping]] = ..., filled: _Optional[_Union[RwFilled, _Mapping]] = ..., restored: _Optional[_Union[RwRestored, _Mapping]] = ...) -> None: ...
