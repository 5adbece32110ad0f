from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InodeRef(_message.Message):
    __slots__ = ("ino", "generation", "place")
    INO_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ino: int
    generation: int
    place: int
    def __init__(self, ino: _Optional[int] = ..., generation: _Optional[int] = ..., place: _Optional[int] = ...) -> None: ...

class Attr(_message.Message):
    __slots__ = ("ino", "generation", "place", "mode", "nlink", "uid", "gid", "size", "rdev", "atime_ns", "mtime_ns", "ctime_ns", "btime_ns", "flags", "data_generation", "change", "chains")
    INO_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    NLINK_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    RDEV_FIELD_NUMBER: _ClassVar[int]
    ATIME_NS_FIELD_NUMBER: _ClassVar[int]
    MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    CTIME_NS_FIELD_NUMBER: _ClassVar[int]
    BTIME_NS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    DATA_GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    ino: int
    generation: int
    place: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    flags: int
    data_generation: int
    change: int
    chains: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ino: _Optional[int] = ..., generation: _Optional[int] = ..., place: _Optional[int] = ..., mode: _Optional[int] = ..., nlink: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., size: _Optional[int] = ..., rdev: _Optional[int] = ..., atime_ns: _Optional[int] = ..., mtime_ns: _Optional[int] = ..., ctime_ns: _Optional[int] = ..., btime_ns: _Optional[int] = ..., flags: _Optional[int] = ..., data_generation: _Optional[int] = ..., change: _Optional[int] = ..., chains: _Optional[_Iterable[int]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("severity", "kind", "object", "detail")
    class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NOTE: _ClassVar[Finding.Severity]
        ERROR: _ClassVar[Finding.Severity]
    NOTE: Finding.Severity
    ERROR: Finding.Severity
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    severity: Finding.Severity
    kind: str
    object: str
    detail: str
    def __init__(self, severity: _Optional[_Union[Finding.Severity, str]] = ..., kind: _Optional[str] = ..., object: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...
