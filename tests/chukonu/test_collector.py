"""Python's collector is off only while somebody makes very many objects."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

from superfs.chukonu.sources import collector

if TYPE_CHECKING:
    import pytest


def test_it_is_as_it_was_when_the_last_one_leaves() -> None:
    inside, leave = threading.Barrier(3), threading.Event()

    def hold() -> None:
        with collector.collector_off():
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    assert not gc.isenabled()
    with collector.collector_off():
        pass
    assert not gc.isenabled()
    leave.set()
    for thread in threads:
        thread.join()
    assert gc.isenabled()
    gc.disable()
    try:
        with collector.collector_off():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_who_never_lets_go_does_not_keep_cycles_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "TURN_EVERY", 3)
    with collector.collector_off():
        before = gc.get_stats()[2]["collections"]
        for _ in range(3):
            with collector.collector_off():
                pass
        assert gc.get_stats()[2]["collections"] == before + 1
