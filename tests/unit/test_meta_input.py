"""What clients ask for that they may not: refused, one operation at a time, and nothing breaks."""

from __future__ import annotations

import asyncio
import stat
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.attrs import Attr, Set, pack_attr
from superfs.core.errors import Code, FsError
from superfs.core.limits import BATCH_OPS_MAX
from superfs.core.tokens import Authority, Purpose
from superfs.meta.keys import Table
from superfs.v1 import meta_pb2
from unit.meta_node import ROOT, TestClient, make, ref, running

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.meta.node import MetaNode


def count(node: MetaNode, table: Table) -> int:
    with node.environment.reading() as rows:
        return rows.state.counts[table]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            with pytest.raises(FsError, match="BAD_FORMAT"):
                await node.hello(client.grant, meta_pb2.Hello(protocol=9))
            await client.hello()
            ops = [meta_pb2.Op(getattr={"inode": ROOT})] * (BATCH_OPS_MAX + 1)
            with pytest.raises(FsError, match="TOO_LARGE"):
                await client.send(*ops)
            many = {"dir": ROOT, "count": 2, "names": b"\1\0a"}
            cases: list[tuple[dict[str, Any], Code | None]] = [
                ({"create_many": many}, Code.BAD_REQUEST),
                ({"create_many": {**many, "count": 1 << 20}}, Code.TOO_LARGE),
                ({"get_many": {"dir": ROOT, "names": b"\xff\xffa"}}, Code.BAD_REQUEST),
                ({"create": {"dir": ROOT, "name": b"x/y", "mode": 0o100644}}, Code.INVALID),
                ({"create": {"dir": ROOT, "name": b"n" * 256, "mode": 0o100644}},
                 Code.NAME_TOO_LONG),
                ({"create": {"dir": ROOT, "name": b"x", "mode": 0o100644,
                             "layout": {"chains": [70_000]}}}, Code.INVALID),
                ({"create": {"dir": ROOT, "name": b"x", "mode": 0o100644,
                             "layout": {"chains": [77]}}}, Code.INVALID),
                ({"getattr": {"inode": {"ino": (1 << 64) - 1}}}, Code.STALE),
                ({"reserve": {"dir": ROOT, "count": 1 << 31}}, Code.TOO_LARGE),
                ({"setxattr": {"inode": ROOT, "name": b"user.a", "value": b"x" * 70_000}},
                 Code.XATTR_TOO_BIG),
                ({"setattr": {"inode": ROOT, "mask": 1 << 31}}, None),
                ({"rename": {"old_dir": ROOT, "old_name": b"a", "new_dir": ROOT,
                             "new_name": b"b", "flags": 77}}, Code.INVALID),
            ]  # fmt: skip
            for wrong, code in cases:
                result = await client.do(**wrong)
                assert code is None or result.code == code, (wrong, result)
                assert result.code != Code.INTERNAL, (wrong, result)
            assert node.committer.respoiled == 0

    asyncio.run(run())


def test_a_user_is_who_the_token_says(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            host = TestClient(node, 1)
            await host.hello()
            user = TestClient(node, 2, kind="user", uid=1000)
            assert not (await user.hello()).capability
            op = user.op(create={"dir": ROOT, "name": b"x", "mode": 0o100644})
            op.caller.uid = 0
            assert (await user.send(op))[0].code == Code.ACCESS
            await host.good(setattr={"inode": ROOT, "mask": int(Set.MODE), "mode": 0o777})
            made = await user.create(b"mine", open=True)
            assert made.attr.uid == 1000
            assert made.capability
            assert (await host.create(b"hosts", open=True)).capability == b""
            hidden = (await host.create(b"hidden", mode=0o100600)).attr
            assert (await user.do(open={"inode": ref(hidden)})).code == Code.ACCESS
            assert not node.opens.sessions(hidden.ino)

    asyncio.run(run())


def test_a_user_gets_no_more_right_to_data_than_the_file_gives(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            host = TestClient(node, 1)
            await host.hello()
            user = TestClient(node, 2, kind="user", uid=1000)
            await user.hello()
            await host.good(setattr={"inode": ROOT, "mask": int(Set.MODE), "mode": 0o777})
            await host.create(b"hidden", mode=0o100600)
            known = {"dir": ROOT, "name": b"hidden", "mode": 0o100644, "open": True}
            assert (await user.good(create=known)).capability == b""
            shown = (await host.create(b"shown", mode=0o100644)).attr
            rights = [
                (await user.good(open={"inode": ref(shown)}), True),
                (await user.create(b"mine", open=True), False),
            ]
            mine = rights[1][0].attr
            rights.append((await user.good(open={"inode": ref(mine), "write": True}), False))
            for result, read_only in rights:
                held = Authority(b"k" * 32).verify(Purpose.CAPABILITY, result.capability, 0)
                assert (held.inode, held.read_only) == (result.attr.ino, read_only)

    asyncio.run(run())


def test_an_operation_that_fails_half_way_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule must not raise after a change. If one does, only its own operation is lost."""
    from superfs.meta import dispatch

    def spoil(txn: Any, caller: Any, m: Any) -> Any:  # noqa: ANN401
        txn.put_moved(5, 6)
        raise FsError(Code.INVALID, "too late")

    verb = dispatch.Verb(spoil, dispatch.VERBS["mkdir"].place, mutates=True)

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            monkeypatch.setitem(dispatch.VERBS, "mkdir", verb)
            entries = [client.op(create={"dir": ROOT, "name": b"%d" % i, "mode": 0o100600})
                       for i in range(4)]  # fmt: skip
            bad = client.op(mkdir={"dir": ROOT, "name": b"bad", "mode": 0o100600})
            results = await client.send(*entries[:2], bad, *entries[2:])
            assert [r.code for r in results] == [0, 0, Code.INVALID, 0, 0]
            assert node.committer.respoiled == 1
            listing = (await client.good(read_dir={"dir": ROOT})).listing
            assert listing.names == b"\1\x000\1\x001\1\x002\1\x003"

    asyncio.run(run())


def test_reserved_numbers_are_used_once_and_end_with_their_session(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = TestClient(node, 1), TestClient(node, 2)
            await client.hello()
            await other.hello()
            first = (await client.good(reserve={"dir": ROOT, "count": 100})).number
            made = await client.create(b"a", ino=first + 5)
            assert made.attr.ino == first + 5
            entry = {"dir": ROOT, "name": b"b", "mode": 0o100600, "ino": first + 6}
            assert (await other.do(create=entry)).code == Code.NOT_PERMITTED
            await client.good(unlink={"dir": ROOT, "name": b"a"})
            again = await client.do(create={**entry, "ino": first + 5})
            assert again.code == Code.NOT_PERMITTED
            assert (await client.create(b"c")).attr.ino >= first + 100
            await node.goodbye(client.grant)
            assert count(node, Table.RESERVED) == 0

    asyncio.run(run())


def test_data_under_unknown_chains_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            ino = (await client.good(reserve={"dir": ROOT, "count": 2})).number
            for chains, code in [((1,), 0), ((999,), Code.INVALID)]:
                attr = Attr(ino, 0, 0, stat.S_IFREG | 0o644, 1, 0, 0, 5 << 20,
                            data_generation=1, chains=chains)  # fmt: skip
                ino += 1
                name = b"%d" % chains[0]
                many = {"dir": ROOT, "count": 1, "attrs": pack_attr(attr),
                        "names": len(name).to_bytes(2, "little") + name}  # fmt: skip
                result = await client.do(create_many=many)
                assert result.code == code, result
                assert not any(result.listing.codes), result

    asyncio.run(run())
