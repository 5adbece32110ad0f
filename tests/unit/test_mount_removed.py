"""A file that another client removes while it is being opened, or is open, here."""

from __future__ import annotations

import os

import pyfuse3
import pytest

from harness.memmount import TOP, World, ctx, errno_of
from superfs.core.ids import ROOT
from superfs.core.namespace.txn import Caller, Ref

ROOT_REF = Ref(ROOT, 0, ROOT)


async def test_a_new_file_is_opened_without_another_question() -> None:
    """The kernel answers ESTALE to open(O_CREAT) with the whole of it, once more."""
    w = World(attr_timeout_s=0.0, entry_timeout_s=0.0)
    w.meta.calls.clear()
    info, _ = await w.ops.create(TOP, b"a", 0o644, os.O_WRONLY | os.O_CREAT | os.O_EXCL, ctx())
    assert w.meta.calls == {"create": 1}
    await w.ops.release(info.fh)


@pytest.mark.parametrize("reads", [False, True])
async def test_who_has_it_open_may_still_ask_for_its_attributes(reads: bool) -> None:
    w = World(attr_timeout_s=0.0, entry_timeout_s=0.0)
    info, entry = await w.ops.create(TOP, b"a", 0o644, os.O_RDWR | os.O_CREAT, ctx())
    if reads:
        await w.ops.read(info.fh, 0, 10)
        assert w.table[entry.st_ino].file.contents is not None
    await w.meta.unlink(ROOT_REF, b"a", keep=False, caller=Caller(0, 0))
    for _ in range(2):
        left = await w.ops.getattr(entry.st_ino, ctx())
        assert (left.st_ino, left.st_nlink) == (entry.st_ino, 0)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await w.ops.lookup(TOP, b"a", ctx())
    assert errno_of(caught) == 2
    await w.ops.release(info.fh)
