"""What systemd/ ships: units that systemd understands and that leave little open, and example
configurations that say exactly the defaults."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from superfs.cluster.config import ClusterdConfig
from superfs.core.config import dump, load
from superfs.data.config import DatadConfig
from superfs.kvcache.fastdecode.main import RworkerConfig
from superfs.meta.config import MetadConfig
from superfs.mount.options import MountConfig

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = sorted(p.name for p in SYSTEMD.iterdir() if p.suffix in (".service", ".target"))
EXPOSURE_MAX = {
    "superfs-clusterd.service": 2.5,
    "superfs-metad@.service": 2.5,
    "superfs-datad@.service": 2.5,
    "superfs-mount@.service": 6.0,
    "superfs-rworker.service": 2.5,
}
CONFIGS: dict[str, type[Any]] = {
    "clusterd": ClusterdConfig,
    "metad": MetadConfig,
    "datad": DatadConfig,
    "mount": MountConfig,
    "rworker": RworkerConfig,
}


def instance(name: str) -> str:
    return name.replace("@.", "@mnt-data." if "mount" in name else "@1.")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """As installed, but with a program that exists wherever the tests run."""
    for name in UNITS:
        text = (SYSTEMD / name).read_text().replace("/opt/superfs/bin/", "/bin/true ")
        (tmp_path / instance(name)).write_text(text)
    return tmp_path


def test_every_program_has_its_unit() -> None:
    assert set(UNITS) == {*EXPOSURE_MAX, "superfs.target"}


def test_units_verify(units: Path) -> None:
    paths = [str(path) for path in sorted(units.iterdir())]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--generators=no", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    # Other units of the machine are read along, and are none of our business.
    ours = [line for line in verified.stderr.splitlines() if "superfs" in line]
    assert not ours, verified.stderr
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize("name", EXPOSURE_MAX)
def test_units_leave_little_open(units: Path, name: str) -> None:
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", units / instance(name)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+ ([0-9.]+)", rated.stdout)
    assert found, rated.stderr
    assert float(found[1]) <= EXPOSURE_MAX[name], rated.stdout


@pytest.mark.parametrize("name", EXPOSURE_MAX)
def test_units_start_and_stop_as_the_programs_do(name: str) -> None:
    text = (SYSTEMD / name).read_text()
    program = name.removesuffix(".service").removesuffix("@")
    assert re.search(rf"^ExecStart=/opt/superfs/bin/{program} --config /etc/superfs/", text, re.M)
    for line in ("Type=notify", "Restart=on-failure", "RestartPreventExitStatus=2 78"):
        assert f"\n{line}\n" in text
    if "mount" in name:
        # Any of these would give it a mount namespace: nobody else would see what it mounts.
        assert not re.search(r"^(Protect(System|Home|Kernel|Control|Proc)|Private)", text, re.M)


@pytest.mark.parametrize("name", CONFIGS)
def test_examples_equal_the_defaults(name: str) -> None:
    path = SYSTEMD / f"{name}.toml"
    assert load(CONFIGS[name], path) == CONFIGS[name]()
    # Complete too: whoever reads the file has seen every key.
    assert tomllib.loads(path.read_text()) == tomllib.loads(dump(CONFIGS[name]()))
