"""What holds for every test: no unexpected warning, nothing left behind, fsck finds nothing."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from harness import leftovers, zygote
from harness.cluster import Cluster
from harness.mount import Mount, fsck

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--on",
        type=Path,
        metavar="DIR",
        help="run the tests of file-system behaviour on this plain directory, not on a mount: "
        "what Linux does there is what they must expect",
    )
    parser.addoption("--soak", action="store_true", help="run the soak tests too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "allow_log(*patterns): log lines of the daemons that this test provokes"
    )
    # One tree, one verdict: properties are tried on the same examples each time. `make soak` looks
    # for new ones. How long one takes depends on what else the machine does.
    settings.register_profile("repeatable", derandomize=True, deadline=None)
    if not config.getoption("--soak"):
        settings.load_profile("repeatable")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    has_fuse = Path("/dev/fuse").exists()
    for item in items:
        if item.get_closest_marker("fuse") and not has_fuse:
            item.add_marker(pytest.mark.skip(reason="there is no /dev/fuse"))
        if item.get_closest_marker("soak") and not config.getoption("--soak"):
            item.add_marker(pytest.mark.skip(reason="soak: run with --soak"))


# ---- nothing is left behind --------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    zygote.close()
    left = leftovers.remove_everything()
    assert not left, "left behind:\n" + "\n".join(left)


# ---- no unexpected warning ---------------------------------------------------------------------


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


def _allowed(request: pytest.FixtureRequest) -> list[str]:
    return [p for mark in request.node.iter_markers("allow_log") for p in mark.args]


@pytest.fixture(autouse=True)
def no_unexpected_warning(request: pytest.FixtureRequest) -> Iterator[None]:
    """Product code that runs in this process logs below "superfs"."""
    handler = _Warnings()
    logger = logging.getLogger("superfs")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    if not _allowed(request):
        assert not handler.lines, handler.lines


# ---- one cluster and one mount for all tests that do not break them ------------------------------


@pytest.fixture(scope="session")
def shared_cluster(nothing_is_left: None) -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_mount(shared_cluster: Cluster) -> Iterator[Mount]:
    with Mount(shared_cluster) as mount:
        yield mount


@pytest.fixture
def cluster(shared_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The shared cluster; afterwards its logs hold no warning and fsck finds nothing."""
    yield shared_cluster
    fsck(shared_cluster)
    trouble = shared_cluster.trouble(_allowed(request))
    assert not trouble, "\n".join(trouble)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory on the mount (or, with --on, on a plain file system)."""
    plain: Path | None = request.config.getoption("--on")
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)[:100]
    if plain is not None:
        directory = plain / name
        directory.mkdir(parents=True)
        directory.chmod(0o777)
        yield directory
        shutil.rmtree(directory)
        return
    cluster: Cluster = request.getfixturevalue("shared_cluster")
    mount: Mount = request.getfixturevalue("shared_mount")
    directory = mount.point / name
    directory.mkdir()
    directory.chmod(0o777)
    yield directory
    assert os.path.ismount(mount.point), mount.daemon.tail()
    fsck(cluster)
    shutil.rmtree(directory)
    trouble = cluster.trouble(_allowed(request)) + mount.trouble(_allowed(request))
    assert not trouble, "\n".join(trouble)
