"""A directory in which name after name had to be asked is learned whole, a page at a time."""

from __future__ import annotations

import random

import pyfuse3
import pytest

from harness.memdir import directory
from harness.memmount import TOP, ctx
from superfs.mount import lookups, options


@pytest.mark.parametrize("changing", [False, True])
async def test_page_by_page(monkeypatch: pytest.MonkeyPatch, changing: bool) -> None:
    monkeypatch.setattr(lookups, "PAGE_ENTRIES", 150)
    async with directory(400, listed=False) as d:
        mounted = d.w.services.mounted
        for name in random.Random(5).sample(d.names, len(d.names)):
            await d.w.ops.lookup(TOP, name, ctx())
            if changing:
                await d.recall(name)
        known = mounted.cache.listing(mounted.nodes.root, d.w.now)
        if changing:
            assert known is None, "one page may know what another does not"
        else:
            assert known is not None
            assert sorted(known.names) == d.names
            assert d.w.meta.calls["read_dir"] == 3
            assert d.w.meta.calls["lookup"] <= 4 + 2 * 16


async def test_what_is_too_big_to_be_kept_whole_is_learned_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookups, "PAGE_ENTRIES", 150)
    async with directory(400, listed=False, listing_entries_max=200) as d:
        mounted = d.w.services.mounted
        await d.w.ops.getattr(TOP, ctx())
        for name in random.Random(5).sample(d.names, len(d.names)):
            await d.w.ops.lookup(TOP, name, ctx())
        assert mounted.cache.listing(mounted.nodes.root, d.w.now) is None
        assert d.w.meta.calls["read_dir"] == 3
        assert d.w.meta.calls["lookup"] <= 4 + 2 * 16


async def test_names_that_do_not_exist_are_no_reason_to_learn_what_is_too_big() -> None:
    async with directory(30, listed=False, listing_entries_max=20) as d:
        await d.w.ops.getattr(TOP, ctx())
        for number in range(100):
            with pytest.raises(pyfuse3.FUSEError):
                await d.w.ops.lookup(TOP, b"no%d" % number, ctx())
        assert d.w.meta.calls["read_dir"] == 0


async def test_what_is_too_big_to_be_remembered_is_not_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(options, "LEARNED_A_MIB", 0)
    async with directory(30, listed=False, listing_entries_max=20) as d:
        await d.w.ops.getattr(TOP, ctx())
        for name in reversed(d.names):
            await d.w.ops.lookup(TOP, name, ctx())
        assert d.w.meta.calls["read_dir"] == 0
        assert d.w.meta.calls["lookup"] == 30
