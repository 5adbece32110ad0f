"""What people get wrong: a clear message that says what to do, a status that is not 0, no loss."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import zlib
from typing import TYPE_CHECKING

import pytest

from harness.cluster import toml
from harness.daemon import BIN
from harness.zygote import run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.cluster import Cluster
    from harness.mount import Mount

pytestmark = pytest.mark.slow

USAGE, CONFIG = 2, 78
DAEMONS = {"clusterd": "clusterd", "metad": "metad-1", "datad": "datad-2"}


def said(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    text = done.stdout + done.stderr
    assert done.returncode == status, (done.returncode, text)
    assert "Traceback" not in text, text
    assert all(word in text for word in words), text


# ---- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize("program", DAEMONS)
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[daemon]\nnode = 1\n", "unknown key daemon.node"),
        ("[nonsense]\na = 1\n", "unknown key nonsense"),
        ("[daemon]\nnode_id = 'one'\n", "daemon.node_id"),
        ("[daemon]\nstop_grace_s = -1\n", "stop_grace_s"),
        ("[daemon\n", "not valid TOML"),
    ],
)
def test_wrong_configuration(tmp_path: Path, program: str, text: str, word: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    said(run(f"superfs-{program}", "--config", path), CONFIG, str(path), word)


@pytest.mark.parametrize("program", [*DAEMONS, "mount"])
def test_missing_configuration_and_usage(tmp_path: Path, program: str) -> None:
    none = tmp_path / "none.toml"
    where = [tmp_path / "mnt"] if program == "mount" else []
    said(run(f"superfs-{program}", "--config", none, *where), CONFIG, str(none), "no such file")
    said(run(f"superfs-{program}", "--nonsense"), USAGE, "--nonsense")
    assert run(f"superfs-{program}", "--help").returncode == 0


def test_key_that_others_can_read(cluster: Cluster, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(cluster.key_file.read_text())
    key.chmod(0o644)
    config = tmp_path / "metad.toml"
    text = cluster.config_file("metad-1").read_text()
    config.write_text(text.replace(str(cluster.key_file), str(key)))
    said(run("superfs-metad", "--config", config), CONFIG, str(key))
    key.chmod(0o600)
    key.write_text("not hex\n")
    said(run("superfs-metad", "--config", config), CONFIG, str(key))


@pytest.mark.parametrize("name", DAEMONS.values())
def test_second_daemon_on_the_same_state(cluster: Cluster, name: str) -> None:
    daemon = cluster.daemons[name]
    done = subprocess.run(daemon.command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode not in (0, -signal.SIGKILL)
    assert "in use" in done.stderr, done.stderr
    assert cluster.serves(name)


@pytest.mark.parametrize("name", DAEMONS.values())
def test_unsupported_format_version(cluster: Cluster, tmp_path: Path, name: str) -> None:
    """An identity that says a version of the future is refused, and left as it is."""
    program = name.partition("-")[0]
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    body = json.loads((cluster.state_dir(name) / "identity").read_text())
    body.pop("crc32")
    body["format"] = 999
    checksum = zlib.crc32(json.dumps(body, sort_keys=True).encode())
    text = json.dumps({**body, "crc32": f"{checksum:08x}"}) + "\n"
    (state / "identity").write_text(text)
    (state / "identity").chmod(0o600)
    config = tmp_path / "c.toml"
    daemon = {
        "node_id": body["node_id"],
        "state_dir": state,
        "key_file": cluster.key_file,
        "listen": [f"unix:{tmp_path}/s.sock"],
        "cluster": [cluster.target("clusterd")],
    }
    config.write_text(toml({"daemon": daemon}))
    done = run(f"superfs-{program}", "--config", config)
    said(done, CONFIG, str(state), "999")
    assert (state / "identity").read_text() == text


def test_not_formatted(cluster: Cluster, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    for name in DAEMONS.values():
        text = cluster.config_file(name).read_text()
        config = tmp_path / f"{name}.toml"
        config.write_text(text.replace(str(cluster.state_dir(name)), str(state)))
        done = run(f"superfs-{name.partition('-')[0]}", "--config", config)
        said(done, CONFIG, str(state), "--format")
        assert not list(state.rglob("*.mdb"))


# ---- mounting ----------------------------------------------------------------------------------


@pytest.fixture
def client_config(cluster: Cluster, tmp_path: Path) -> dict[str, object]:
    return {
        "cluster": [cluster.target("clusterd")],
        "token_file": cluster.token_file,
        "retry_timeout_s": 1.0,
    }


def mount(tmp_path: Path, client: dict[str, object], point: Path) -> tuple[int, str]:
    config = tmp_path / "mount.toml"
    config.write_text(toml({"client": client}))
    done = run("superfs-mount", "--config", config, point)
    assert not os.path.ismount(point)
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    return done.returncode, text


@pytest.mark.fuse
def test_wrong_cluster_address(tmp_path: Path, client_config: dict[str, object]) -> None:
    (tmp_path / "mnt").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        port = taken.getsockname()[1]
        for address in (f"unix:{tmp_path}/none.sock", f"127.0.0.1:{port}", "unix:relative"):
            client_config["cluster"] = [address]
            status, text = mount(tmp_path, client_config, tmp_path / "mnt")
            assert status != 0, address
            assert address.removeprefix("unix:") in text or "cluster" in text, text


@pytest.mark.fuse
@pytest.mark.allow_log("refused a handshake")
def test_wrong_tokens(tmp_path: Path, client_config: dict[str, object]) -> None:
    (tmp_path / "mnt").mkdir()
    token = tmp_path / "token"
    client_config["token_file"] = token
    status, text = mount(tmp_path, client_config, tmp_path / "mnt")
    assert status != 0
    assert str(token) in text
    for contents in (b"", b"nonsense\n", b"\xff" * 100, b"x" * 100_000):
        token.write_bytes(contents)
        token.chmod(0o600)
        status, text = mount(tmp_path, client_config, tmp_path / "mnt")
        assert status != 0, contents[:10]
        assert "token" in text, text


@pytest.mark.fuse
def test_wrong_mount_points(
    shared_mount: Mount, tmp_path: Path, client_config: dict[str, object]
) -> None:
    (tmp_path / "file").touch()
    for point in (tmp_path / "none", tmp_path / "file"):
        status, text = mount(tmp_path, client_config, point)
        assert status != 0
        assert str(point) in text, text
    config = tmp_path / "mount.toml"
    config.write_text(toml({"client": client_config}))
    done = run("superfs-mount", "--config", config, shared_mount.point)
    said(done, 1, str(shared_mount.point))
    assert os.path.ismount(shared_mount.point)


@pytest.mark.fuse
def test_mounting_over_files_is_allowed_or_told(
    tmp_path: Path, client_config: dict[str, object]
) -> None:
    """A mount point that is not empty: whatever happens, its files are there afterwards."""
    point = tmp_path / "mnt"
    point.mkdir()
    (point / "mine").write_text("precious")
    config = tmp_path / "mount.toml"
    config.write_text(toml({"client": client_config}))
    process = subprocess.Popen(
        [BIN / "superfs-mount", "--config", config, point],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while process.poll() is None and not os.path.ismount(point):
            pass
        if os.path.ismount(point):
            subprocess.run(["umount", point], check=True)
            assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert (point / "mine").read_text() == "precious"


@pytest.mark.fuse
def test_wrong_options(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    for options, word in (
        ("nonsense", "nonsense"),
        ("attr_timeout=soon", "attr_timeout"),
        ("attr_timeout=-1", "attr_timeout"),
        ("subdir=/none/here,token=" + str(cluster.token_file), "/none/here"),
    ):
        source = cluster.target("clusterd")
        done = run("superfs-mount", source, tmp_path / "mnt", "-o", f"{options},retry_timeout=1")
        assert done.returncode != 0, options
        assert word in done.stderr, (options, done.stderr)
        assert "Traceback" not in done.stderr
        assert not os.path.ismount(tmp_path / "mnt")


# ---- the command line --------------------------------------------------------------------------


def test_command_line(cluster: Cluster, tmp_path: Path) -> None:
    where = ["--cluster", cluster.target("clusterd"), "--token-file", str(cluster.token_file)]
    for command in (
        ("ls", "/none"),
        ("stat", "/none"),
        ("cat", "/none"),
        ("cat", "/"),
        ("get", "/none", str(tmp_path / "x")),
        ("put", str(tmp_path / "none"), "/x"),
        ("import", str(tmp_path / "none"), "/x"),
        ("export", "/none", str(tmp_path / "x")),
    ):
        done = run("superfs", *command, *where)
        assert done.returncode not in (0, 2), (command, done)
        text = done.stdout + done.stderr
        assert "Traceback" not in text, text
        assert "none" in text or command == ("cat", "/"), text
    assert not (tmp_path / "x").exists()
    said(run("superfs", "nonsense"), USAGE)
    said(run("superfs", "up", "--dir", tmp_path / "c", "--meta", "3"), USAGE, "meta")
    assert not (tmp_path / "c").exists()
