from superfs.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionRequest(_message.Message):
    __slots__ = ("hello", "batch", "keep_alive", "goodbye", "invalidated", "return_leases", "settled")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    KEEP_ALIVE_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    INVALIDATED_FIELD_NUMBER: _ClassVar[int]
    RETURN_LEASES_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    batch: Batch
    keep_alive: KeepAlive
    goodbye: Goodbye
    invalidated: Invalidated
    return_leases: ReturnLeases
    settled: Settled
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., keep_alive: _Optional[_Union[KeepAlive, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., invalidated: _Optional[_Union[Invalidated, _Mapping]] = ..., return_leases: _Optional[_Union[ReturnLeases, _Mapping]] = ..., settled: _Optional[_Union[Settled, _Mapping]] = ...) -> None: ...

class SessionReply(_message.Message):
    __slots__ = ("welcome", "batch", "keep_alive", "invalidate")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    KEEP_ALIVE_FIELD_NUMBER: _ClassVar[int]
    INVALIDATE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    batch: BatchReply
    keep_alive: KeepAlive
    invalidate: Invalidate
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., batch: _Optional[_Union[BatchReply, _Mapping]] = ..., keep_alive: _Optional[_Union[KeepAlive, _Mapping]] = ..., invalidate: _Optional[_Union[Invalidate, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "client", "open", "leases", "exclusive", "dead")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    client: str
    open: _containers.RepeatedCompositeFieldContainer[_common_pb2.InodeRef]
    leases: bool
    exclusive: bool
    dead: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, protocol: _Optional[int] = ..., client: _Optional[str] = ..., open: _Optional[_Iterable[_Union[_common_pb2.InodeRef, _Mapping]]] = ..., leases: _Optional[bool] = ..., exclusive: _Optional[bool] = ..., dead: _Optional[_Iterable[int]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "boot_id", "session_epoch", "capability", "expiry_ms", "commit", "lease_ms", "now_ns", "number_range")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    EXPIRY_MS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    NUMBER_RANGE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    boot_id: int
    session_epoch: int
    capability: bytes
    expiry_ms: int
    commit: int
    lease_ms: int
    now_ns: int
    number_range: int
    def __init__(self, protocol: _Optional[int] = ..., boot_id: _Optional[int] = ..., session_epoch: _Optional[int] = ..., capability: _Optional[bytes] = ..., expiry_ms: _Optional[int] = ..., commit: _Optional[int] = ..., lease_ms: _Optional[int] = ..., now_ns: _Optional[int] = ..., number_range: _Optional[int] = ...) -> None: ...

class KeepAlive(_message.Message):
    __slots__ = ("number", "now_ns")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    number: int
    now_ns: int
    def __init__(self, number: _Optional[int] = ..., now_ns: _Optional[int] = ...) -> None: ...

class Settled(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Invalidate(_message.Message):
    __slots__ = ("number", "commit", "recalls")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    RECALLS_FIELD_NUMBER: _ClassVar[int]
    number: int
    commit: int
    recalls: _containers.RepeatedCompositeFieldContainer[Recall]
    def __init__(self, number: _Optional[int] = ..., commit: _Optional[int] = ..., recalls: _Optional[_Iterable[_Union[Recall, _Mapping]]] = ...) -> None: ...

class Recall(_message.Message):
    __slots__ = ("lease", "whole", "names", "inos", "exclusive")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    INOS_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    lease: int
    whole: bool
    names: bytes
    inos: _containers.RepeatedScalarFieldContainer[int]
    exclusive: bool
    def __init__(self, lease: _Optional[int] = ..., whole: _Optional[bool] = ..., names: _Optional[bytes] = ..., inos: _Optional[_Iterable[int]] = ..., exclusive: _Optional[bool] = ...) -> None: ...

class Invalidated(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class ReturnLeases(_message.Message):
    __slots__ = ("leases", "exclusive")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedScalarFieldContainer[int]
    exclusive: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, leases: _Optional[_Iterable[int]] = ..., exclusive: _Optional[_Iterable[int]] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("batch", "acked_below", "ops")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ACKED_BELOW_FIELD_NUMBER: _ClassVar[int]
    OPS_FIELD_NUMBER: _ClassVar[int]
    batch: int
    acked_below: int
    ops: _containers.RepeatedCompositeFieldContainer[Op]
    def __init__(self, batch: _Optional[int] = ..., acked_below: _Optional[int] = ..., ops: _Optional[_Iterable[_Union[Op, _Mapping]]] = ...) -> None: ...

class BatchReply(_message.Message):
    __slots__ = ("batch", "commit", "results", "leases", "exclusive")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    batch: int
    commit: int
    results: _containers.RepeatedCompositeFieldContainer[Result]
    leases: _containers.RepeatedScalarFieldContainer[int]
    exclusive: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, batch: _Optional[int] = ..., commit: _Optional[int] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., leases: _Optional[_Iterable[int]] = ..., exclusive: _Optional[_Iterable[int]] = ...) -> None: ...

class Op(_message.Message):
    __slots__ = ("seq", "caller", "lookup", "getattr", "read_dir", "read_inline", "getxattr", "listxattr", "statfs", "open", "release", "get_many", "create", "mkdir", "unlink", "rmdir", "rename", "link", "setattr", "publish", "append", "new_data", "setxattr", "removexattr", "reserve", "create_many", "remove_tree", "touch", "log")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    LOOKUP_FIELD_NUMBER: _ClassVar[int]
    GETATTR_FIELD_NUMBER: _ClassVar[int]
    READ_DIR_FIELD_NUMBER: _ClassVar[int]
    READ_INLINE_FIELD_NUMBER: _ClassVar[int]
    GETXATTR_FIELD_NUMBER: _ClassVar[int]
    LISTXATTR_FIELD_NUMBER: _ClassVar[int]
    STATFS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    GET_MANY_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    MKDIR_FIELD_NUMBER: _ClassVar[int]
    UNLINK_FIELD_NUMBER: _ClassVar[int]
    RMDIR_FIELD_NUMBER: _ClassVar[int]
    RENAME_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    SETATTR_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    NEW_DATA_FIELD_NUMBER: _ClassVar[int]
    SETXATTR_FIELD_NUMBER: _ClassVar[int]
    REMOVEXATTR_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    CREATE_MANY_FIELD_NUMBER: _ClassVar[int]
    REMOVE_TREE_FIELD_NUMBER: _ClassVar[int]
    TOUCH_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    seq: int
    caller: Caller
    lookup: Lookup
    getattr: Getattr
    read_dir: ReadDir
    read_inline: ReadInline
    getxattr: Getxattr
    listxattr: Listxattr
    statfs: Statfs
    open: Open
    release: Release
    get_many: GetMany
    create: Create
    mkdir: Mkdir
    unlink: Unlink
    rmdir: Rmdir
    rename: Rename
    link: Link
    setattr: Setattr
    publish: Publish
    append: Append
    new_data: NewData
    setxattr: Setxattr
    removexattr: Removexattr
    reserve: Reserve
    create_many: CreateMany
    remove_tree: RemoveTree
    touch: Touch
    log: Log
    def __init__(self, seq: _Optional[int] = ..., caller: _Optional[_Union[Caller, _Mapping]] = ..., lookup: _Optional[_Union[Lookup, _Mapping]] = ..., getattr: _Optional[_Union[Getattr, _Mapping]] = ..., read_dir: _Optional[_Union[ReadDir, _Mapping]] = ..., read_inline: _Optional[_Union[ReadInline, _Mapping]] = ..., getxattr: _Optional[_Union[Getxattr, _Mapping]] = ..., listxattr: _Optional[_Union[Listxattr, _Mapping]] = ..., statfs: _Optional[_Union[Statfs, _Mapping]] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., get_many: _Optional[_Union[GetMany, _Mapping]] = ..., create: _Optional[_Union[Create, _Mapping]] = ..., mkdir: _Optional[_Union[Mkdir, _Mapping]] = ..., unlink: _Optional[_Union[Unlink, _Mapping]] = ..., rmdir: _Optional[_Union[Rmdir, _Mapping]] = ..., rename: _Optional[_Union[Rename, _Mapping]] = ..., link: _Optional[_Union[Link, _Mapping]] = ..., setattr: _Optional[_Union[Setattr, _Mapping]] = ..., publish: _Optional[_Union[Publish, _Mapping]] = ..., append: _Optional[_Union[Append, _Mapping]] = ..., new_data: _Optional[_Union[NewData, _Mapping]] = ..., setxattr: _Optional[_Union[Setxattr, _Mapping]] = ..., removexattr: _Optional[_Union[Removexattr, _Mapping]] = ..., reserve: _Optional[_Union[Reserve, _Mapping]] = ..., create_many: _Optional[_Union[CreateMany, _Mapping]] = ..., remove_tree: _Optional[_Union[RemoveTree, _Mapping]] = ..., touch: _Optional[_Union[Touch, _Mapping]] = ..., log: _Optional[_Union[Log, _Mapping]] = ...) -> None: ...

class Caller(_message.Message):
    __slots__ = ("uid", "gid", "groups", "umask")
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    UMASK_FIELD_NUMBER: _ClassVar[int]
    uid: int
    gid: int
    groups: _containers.RepeatedScalarFieldContainer[int]
    umask: int
    def __init__(self, uid: _Optional[int] = ..., gid: _Optional[int] = ..., groups: _Optional[_Iterable[int]] = ..., umask: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("code", "detail", "attr", "dirs", "other", "data", "number", "more", "capability", "listing", "fs_stat")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ATTR_FIELD_NUMBER: _ClassVar[int]
    DIRS_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    LISTING_FIELD_NUMBER: _ClassVar[int]
    FS_STAT_FIELD_NUMBER: _ClassVar[int]
    code: int
    detail: str
    attr: _common_pb2.Attr
    dirs: _containers.RepeatedCompositeFieldContainer[_common_pb2.Attr]
    other: _common_pb2.Attr
    data: bytes
    number: int
    more: bool
    capability: bytes
    listing: Listing
    fs_stat: FsStat
    def __init__(self, code: _Optional[int] = ..., detail: _Optional[str] = ..., attr: _Optional[_Union[_common_pb2.Attr, _Mapping]] = ..., dirs: _Optional[_Iterable[_Union[_common_pb2.Attr, _Mapping]]] = ..., other: _Optional[_Union[_common_pb2.Attr, _Mapping]] = ..., data: _Optional[bytes] = ..., number: _Optional[int] = ..., more: _Optional[bool] = ..., capability: _Optional[bytes] = ..., listing: _Optional[_Union[Listing, _Mapping]] = ..., fs_stat: _Optional[_Union[FsStat, _Mapping]] = ...) -> None: ...

class Listing(_message.Message):
    __slots__ = ("count", "names", "types", "inos", "attrs", "inline", "inline_lengths", "codes")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    INOS_FIELD_NUMBER: _ClassVar[int]
    ATTRS_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    INLINE_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    count: int
    names: bytes
    types: bytes
    inos: bytes
    attrs: bytes
    inline: bytes
    inline_lengths: bytes
    codes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, count: _Optional[int] = ..., names: _Optional[bytes] = ..., types: _Optional[bytes] = ..., inos: _Optional[bytes] = ..., attrs: _Optional[bytes] = ..., inline: _Optional[bytes] = ..., inline_lengths: _Optional[bytes] = ..., codes: _Optional[_Iterable[int]] = ...) -> None: ...

class FsStat(_message.Message):
    __slots__ = ("bytes_total", "bytes_free", "inodes_used", "inodes_free")
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_FREE_FIELD_NUMBER: _ClassVar[int]
    INODES_USED_FIELD_NUMBER: _ClassVar[int]
    INODES_FREE_FIELD_NUMBER: _ClassVar[int]
    bytes_total: int
    bytes_free: int
    inodes_used: int
    inodes_free: int
    def __init__(self, bytes_total: _Optional[int] = ..., bytes_free: _Optional[int] = ..., inodes_used: _Optional[int] = ..., inodes_free: _Optional[int] = ...) -> None: ...

class Lookup(_message.Message):
    __slots__ = ("dir", "name", "want_inline")
    DIR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WANT_INLINE_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    name: bytes
    want_inline: bool
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ..., want_inline: _Optional[bool] = ...) -> None: ...

class Getattr(_message.Message):
    __slots__ = ("inode",)
    INODE_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ...) -> None: ...

class ReadDir(_message.Message):
    __slots__ = ("dir", "after", "limit", "plus", "inline_max")
    DIR_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PLUS_FIELD_NUMBER: _ClassVar[int]
    INLINE_MAX_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    after: bytes
    limit: int
    plus: bool
    inline_max: int
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., after: _Optional[bytes] = ..., limit: _Optional[int] = ..., plus: _Optional[bool] = ..., inline_max: _Optional[int] = ...) -> None: ...

class ReadInline(_message.Message):
    __slots__ = ("inode",)
    INODE_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ...) -> None: ...

class Getxattr(_message.Message):
    __slots__ = ("inode", "name")
    INODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    name: bytes
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ...) -> None: ...

class Listxattr(_message.Message):
    __slots__ = ("inode",)
    INODE_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ...) -> None: ...

class Statfs(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Open(_message.Message):
    __slots__ = ("inode", "write", "want_inline")
    INODE_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    WANT_INLINE_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    write: bool
    want_inline: bool
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., write: _Optional[bool] = ..., want_inline: _Optional[bool] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("inodes",)
    INODES_FIELD_NUMBER: _ClassVar[int]
    inodes: _containers.RepeatedCompositeFieldContainer[_common_pb2.InodeRef]
    def __init__(self, inodes: _Optional[_Iterable[_Union[_common_pb2.InodeRef, _Mapping]]] = ...) -> None: ...

class GetMany(_message.Message):
    __slots__ = ("dir", "names", "inline_max", "bare")
    DIR_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    INLINE_MAX_FIELD_NUMBER: _ClassVar[int]
    BARE_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    names: bytes
    inline_max: int
    bare: bool
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., names: _Optional[bytes] = ..., inline_max: _Optional[int] = ..., bare: _Optional[bool] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ("chains",)
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    chains: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, chains: _Optional[_Iterable[int]] = ...) -> None: ...

class Create(_message.Message):
    __slots__ = ("dir", "name", "mode", "rdev", "target", "exclusive", "ino", "open", "inline", "layout")
    DIR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    RDEV_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    name: bytes
    mode: int
    rdev: int
    target: bytes
    exclusive: bool
    ino: int
    open: bool
    inline: bytes
    layout: Layout
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ..., mode: _Optional[int] = ..., rdev: _Optional[int] = ..., target: _Optional[bytes] = ..., exclusive: _Optional[bool] = ..., ino: _Optional[int] = ..., open: _Optional[bool] = ..., inline: _Optional[bytes] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ...) -> None: ...

class Mkdir(_message.Message):
    __slots__ = ("dir", "name", "mode", "version_min")
    DIR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    name: bytes
    mode: int
    version_min: int
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ..., mode: _Optional[int] = ..., version_min: _Optional[int] = ...) -> None: ...

class Unlink(_message.Message):
    __slots__ = ("dir", "name", "keep")
    DIR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    name: bytes
    keep: bool
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ..., keep: _Optional[bool] = ...) -> None: ...

class Rmdir(_message.Message):
    __slots__ = ("dir", "name")
    DIR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    name: bytes
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ...) -> None: ...

class Rename(_message.Message):
    __slots__ = ("old_dir", "old_name", "new_dir", "new_name", "flags", "keep")
    OLD_DIR_FIELD_NUMBER: _ClassVar[int]
    OLD_NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_DIR_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    old_dir: _common_pb2.InodeRef
    old_name: bytes
    new_dir: _common_pb2.InodeRef
    new_name: bytes
    flags: int
    keep: bool
    def __init__(self, old_dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., old_name: _Optional[bytes] = ..., new_dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., new_name: _Optional[bytes] = ..., flags: _Optional[int] = ..., keep: _Optional[bool] = ...) -> None: ...

class Link(_message.Message):
    __slots__ = ("inode", "dir", "name")
    INODE_FIELD_NUMBER: _ClassVar[int]
    DIR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    dir: _common_pb2.InodeRef
    name: bytes
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ...) -> None: ...

class Setattr(_message.Message):
    __slots__ = ("inode", "mask", "mode", "uid", "gid", "size", "atime_ns", "mtime_ns")
    INODE_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ATIME_NS_FIELD_NUMBER: _ClassVar[int]
    MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    mask: int
    mode: int
    uid: int
    gid: int
    size: int
    atime_ns: int
    mtime_ns: int
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., mask: _Optional[int] = ..., mode: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., size: _Optional[int] = ..., atime_ns: _Optional[int] = ..., mtime_ns: _Optional[int] = ...) -> None: ...

class InlineWrite(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Publish(_message.Message):
    __slots__ = ("inode", "data_generation", "size", "mtime_ns", "writes", "kill_priv", "spill", "inline_change", "atime_ns")
    INODE_FIELD_NUMBER: _ClassVar[int]
    DATA_GENERATION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    KILL_PRIV_FIELD_NUMBER: _ClassVar[int]
    SPILL_FIELD_NUMBER: _ClassVar[int]
    INLINE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    ATIME_NS_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    data_generation: int
    size: int
    mtime_ns: int
    writes: _containers.RepeatedCompositeFieldContainer[InlineWrite]
    kill_priv: bool
    spill: bool
    inline_change: int
    atime_ns: int
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., data_generation: _Optional[int] = ..., size: _Optional[int] = ..., mtime_ns: _Optional[int] = ..., writes: _Optional[_Iterable[_Union[InlineWrite, _Mapping]]] = ..., kill_priv: _Optional[bool] = ..., spill: _Optional[bool] = ..., inline_change: _Optional[int] = ..., atime_ns: _Optional[int] = ...) -> None: ...

class Append(_message.Message):
    __slots__ = ("inode", "length", "data")
    INODE_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    length: int
    data: bytes
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., length: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class NewData(_message.Message):
    __slots__ = ("inode",)
    INODE_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ...) -> None: ...

class Setxattr(_message.Message):
    __slots__ = ("inode", "name", "value", "flags")
    INODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    name: bytes
    value: bytes
    flags: int
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ..., value: _Optional[bytes] = ..., flags: _Optional[int] = ...) -> None: ...

class Removexattr(_message.Message):
    __slots__ = ("inode", "name")
    INODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    inode: _common_pb2.InodeRef
    name: bytes
    def __init__(self, inode: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ...) -> None: ...

class Reserve(_message.Message):
    __slots__ = ("dir", "count", "generations")
    DIR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    count: int
    generations: int
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., count: _Optional[int] = ..., generations: _Optional[int] = ...) -> None: ...

class CreateMany(_message.Message):
    __slots__ = ("dir", "count", "names", "attrs", "inline", "inline_lengths", "replace", "bare")
    DIR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ATTRS_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    INLINE_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    BARE_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    count: int
    names: bytes
    attrs: bytes
    inline: bytes
    inline_lengths: bytes
    replace: bool
    bare: bool
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., count: _Optional[int] = ..., names: _Optional[bytes] = ..., attrs: _Optional[bytes] = ..., inline: _Optional[bytes] = ..., inline_lengths: _Optional[bytes] = ..., replace: _Optional[bool] = ..., bare: _Optional[bool] = ...) -> None: ...

class Touch(_message.Message):
    __slots__ = ("place", "inos", "generations", "atimes")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    INOS_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    ATIMES_FIELD_NUMBER: _ClassVar[int]
    place: int
    inos: bytes
    generations: bytes
    atimes: bytes
    def __init__(self, place: _Optional[int] = ..., inos: _Optional[bytes] = ..., generations: _Optional[bytes] = ..., atimes: _Optional[bytes] = ...) -> None: ...

class Log(_message.Message):
    __slots__ = ("entries", "attrs", "lost")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    ATTRS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[LogEntry]
    attrs: bytes
    lost: bool
    def __init__(self, entries: _Optional[_Iterable[_Union[LogEntry, _Mapping]]] = ..., attrs: _Optional[bytes] = ..., lost: _Optional[bool] = ...) -> None: ...

class LogEntry(_message.Message):
    __slots__ = ("caller", "now_ns", "ino", "generation", "files", "unlinks", "mkdir", "rmdir", "rename", "setattr", "publish", "setxattr", "removexattr", "link")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    UNLINKS_FIELD_NUMBER: _ClassVar[int]
    MKDIR_FIELD_NUMBER: _ClassVar[int]
    RMDIR_FIELD_NUMBER: _ClassVar[int]
    RENAME_FIELD_NUMBER: _ClassVar[int]
    SETATTR_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    SETXATTR_FIELD_NUMBER: _ClassVar[int]
    REMOVEXATTR_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    caller: Caller
    now_ns: int
    ino: int
    generation: int
    files: LogFiles
    unlinks: LogUnlinks
    mkdir: Mkdir
    rmdir: Rmdir
    rename: Rename
    setattr: Setattr
    publish: Publish
    setxattr: Setxattr
    removexattr: Removexattr
    link: Link
    def __init__(self, caller: _Optional[_Union[Caller, _Mapping]] = ..., now_ns: _Optional[int] = ..., ino: _Optional[int] = ..., generation: _Optional[int] = ..., files: _Optional[_Union[LogFiles, _Mapping]] = ..., unlinks: _Optional[_Union[LogUnlinks, _Mapping]] = ..., mkdir: _Optional[_Union[Mkdir, _Mapping]] = ..., rmdir: _Optional[_Union[Rmdir, _Mapping]] = ..., rename: _Optional[_Union[Rename, _Mapping]] = ..., setattr: _Optional[_Union[Setattr, _Mapping]] = ..., publish: _Optional[_Union[Publish, _Mapping]] = ..., setxattr: _Optional[_Union[Setxattr, _Mapping]] = ..., removexattr: _Optional[_Union[Removexattr, _Mapping]] = ..., link: _Optional[_Union[Link, _Mapping]] = ...) -> None: ...

class LogFiles(_message.Message):
    __slots__ = ("dir", "count", "names", "attrs", "inline", "inline_lengths")
    DIR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ATTRS_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    INLINE_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    count: int
    names: bytes
    attrs: bytes
    inline: bytes
    inline_lengths: bytes
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., count: _Optional[int] = ..., names: _Optional[bytes] = ..., attrs: _Optional[bytes] = ..., inline: _Optional[bytes] = ..., inline_lengths: _Optional[bytes] = ...) -> None: ...

class LogUnlinks(_message.Message):
    __slots__ = ("dir", "names")
    DIR_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    names: bytes
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., names: _Optional[bytes] = ...) -> None: ...

class RemoveTree(_message.Message):
    __slots__ = ("dir", "name", "limit")
    DIR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    dir: _common_pb2.InodeRef
    name: bytes
    limit: int
    def __init__(self, dir: _Optional[_Union[_common_pb2.InodeRef, _Mapping]] = ..., name: _Optional[bytes] = ..., limit: _Optional[int] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDataRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DataList(_message.Message):
    __slots__ = ("inos", "generations", "sizes")
    INOS_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    inos: bytes
    generations: bytes
    sizes: bytes
    def __init__(self, inos: _Optional[bytes] = ..., generations: _Optional[bytes] = ..., sizes: _Optional[bytes] = ...) -> None: ...
