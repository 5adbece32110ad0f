"""A code number and its detail survive the wire; what is not ours gets a sensible code."""

from __future__ import annotations

import grpc
import pytest

from superfs.core.errors import KINDS, Code, FsError
from superfs.rpc.errors import from_rpc, from_status, message_of, status_of, trailing_metadata


@pytest.mark.parametrize("code", [c for c in Code if c is not Code.OK])
def test_round_trip(code: Code) -> None:
    error = FsError(code, "naïve\nname \udcff")
    back = from_status(status_of(code), message_of(error), trailing_metadata(error))
    assert back.code is code
    assert back.detail == "naïve\nname \\udcff"
    assert status_of(code).value[0] == KINDS[code].grpc
    assert message_of(error).isprintable()


def test_long_details_are_cut() -> None:
    error = FsError(Code.INVALID, "ü" * 5000)
    assert len(dict(trailing_metadata(error))["superfs-detail-bin"]) == 1024
    assert len(message_of(error)) <= 1024


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, Code.UNAVAILABLE),
        (grpc.StatusCode.CANCELLED, Code.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Code.DEADLINE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Code.TOO_LARGE),
        (grpc.StatusCode.UNIMPLEMENTED, Code.NOT_SUPPORTED),
        (grpc.StatusCode.UNKNOWN, Code.INTERNAL),
        (grpc.StatusCode.DATA_LOSS, Code.INTERNAL),
        (None, Code.UNAVAILABLE),
    ],
)
def test_foreign_status(status: grpc.StatusCode | None, code: Code) -> None:
    assert from_status(status, "text", None).code is code


@pytest.mark.parametrize("number", ["0", "9999", "x", "-1", b"12", ""])
def test_a_code_that_cannot_be(number: str | bytes) -> None:
    found = from_status(grpc.StatusCode.UNKNOWN, "", [("superfs-code", number)])
    assert found.code is Code.INTERNAL


def test_other_exceptions() -> None:
    assert from_rpc(KeyError("secret")).code is Code.INTERNAL
    assert "secret" not in from_rpc(KeyError("secret")).detail
    ours = FsError(Code.BUSY)
    assert from_rpc(ours) is ours
