"""FsError <-> gRPC status. The only place that converts.

The code number travels in the trailing metadata `superfs-code` and the detail in
`superfs-detail-bin`, so that an errno survives the wire. The gRPC status and its message are for
clients that know neither.
"""

from __future__ import annotations

from typing import Any

import grpc

from superfs.core.errors import KINDS, Code, FsError, known_code

CODE_KEY = "superfs-code"
DETAIL_KEY = "superfs-detail-bin"
DETAIL_BYTES_MAX = 1024

_STATUS = {status.value[0]: status for status in grpc.StatusCode}

# What a status without our metadata means: it came from gRPC itself, or from something else.
_FOREIGN = {
    grpc.StatusCode.CANCELLED: Code.UNAVAILABLE,
    grpc.StatusCode.INVALID_ARGUMENT: Code.BAD_REQUEST,
    grpc.StatusCode.DEADLINE_EXCEEDED: Code.DEADLINE,
    grpc.StatusCode.PERMISSION_DENIED: Code.FORBIDDEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Code.TOO_LARGE,
    grpc.StatusCode.UNIMPLEMENTED: Code.NOT_SUPPORTED,
    grpc.StatusCode.UNAVAILABLE: Code.UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED: Code.UNAUTHENTICATED,
}


def status_of(code: Code) -> grpc.StatusCode:
    return _STATUS[KINDS[code].grpc]


def trailing_metadata(error: FsError) -> tuple[tuple[str, str | bytes], ...]:
    detail = error.detail.encode("utf-8", "backslashreplace")[:DETAIL_BYTES_MAX]
    return ((CODE_KEY, str(int(error.code))), (DETAIL_KEY, detail))


def message_of(error: FsError) -> str:
    """The status message: one printable line."""
    text = str(error).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else "?" for c in text)[:DETAIL_BYTES_MAX]


def from_rpc(error: BaseException) -> FsError:
    """What a failed call means; `error` is whatever grpc raised, blocking or aio."""
    if isinstance(error, FsError):
        return error
    if not isinstance(error, grpc.RpcError):
        return FsError(Code.INTERNAL, type(error).__name__)
    call: Any = error  # both kinds of RpcError carry the three methods of a finished call
    return from_status(call.code(), call.details(), call.trailing_metadata())


def from_status(
    status: grpc.StatusCode | None,
    message: str | None,
    trailing: Any,  # noqa: ANN401 - grpc's Metadata and its tuples
) -> FsError:
    found = {key: value for key, value in trailing or () if key in (CODE_KEY, DETAIL_KEY)}
    number = found.get(CODE_KEY)
    if number is None:
        code = _FOREIGN.get(status, Code.INTERNAL) if status is not None else Code.UNAVAILABLE
        return FsError(code, message or "")
    code = known_code(int(number)) if str(number).isdecimal() else Code.INTERNAL
    if code is Code.OK:
        code = Code.INTERNAL
    detail = found.get(DETAIL_KEY, b"")
    return FsError(code, detail.decode("utf-8", "replace") if isinstance(detail, bytes) else "")
