from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_META: _ClassVar[Role]
    ROLE_DATA: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_META: Role
ROLE_DATA: Role

class HandshakeRequest(_message.Message):
    __slots__ = ("token", "session_id", "session_token")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    session_id: int
    session_token: bytes
    def __init__(self, token: _Optional[bytes] = ..., session_id: _Optional[int] = ..., session_token: _Optional[bytes] = ...) -> None: ...

class HandshakeReply(_message.Message):
    __slots__ = ("session_token", "session_id", "expires_ns", "map")
    SESSION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    session_token: bytes
    session_id: int
    expires_ns: int
    map: ClusterMap
    def __init__(self, session_token: _Optional[bytes] = ..., session_id: _Optional[int] = ..., expires_ns: _Optional[int] = ..., map: _Optional[_Union[ClusterMap, _Mapping]] = ...) -> None: ...

class GetMapRequest(_message.Message):
    __slots__ = ("known_epoch",)
    KNOWN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    known_epoch: int
    def __init__(self, known_epoch: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node_id", "role", "addresses", "host_id")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    role: Role
    addresses: _containers.RepeatedScalarFieldContainer[str]
    host_id: str
    def __init__(self, node_id: _Optional[int] = ..., role: _Optional[_Union[Role, str]] = ..., addresses: _Optional[_Iterable[str]] = ..., host_id: _Optional[str] = ...) -> None: ...

class SlotRange(_message.Message):
    __slots__ = ("first", "last", "node_id")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    node_id: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ..., node_id: _Optional[int] = ...) -> None: ...

class Chain(_message.Message):
    __slots__ = ("chain_id", "node_ids")
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_IDS_FIELD_NUMBER: _ClassVar[int]
    chain_id: int
    node_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, chain_id: _Optional[int] = ..., node_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ClusterMap(_message.Message):
    __slots__ = ("cluster_id", "epoch", "nodes", "slots", "chains")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    epoch: int
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    slots: _containers.RepeatedCompositeFieldContainer[SlotRange]
    chains: _containers.RepeatedCompositeFieldContainer[Chain]
    def __init__(self, cluster_id: _Optional[str] = ..., epoch: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., slots: _Optional[_Iterable[_Union[SlotRange, _Mapping]]] = ..., chains: _Optional[_Iterable[_Union[Chain, _Mapping]]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...
