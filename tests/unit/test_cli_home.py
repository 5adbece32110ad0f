"""Where a cluster's directory keeps its things, what is refused there, how a cluster is named."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from superfs.cli import formatting, mounts, options, status
from superfs.cli.home import Home
from superfs.cli.output import CliError, printable
from superfs.client import mounted
from superfs.client.mounted import Mounted
from superfs.mount.main import _resolved as resolved_by_mount


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def test_everything_is_private(home: Home) -> None:
    formatting.prepare(home, 2)
    for path in (home.root, home.config_dir, home.log_dir, home.run_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert home.daemon_names() == ["clusterd", "metad-1", "datad-2", "datad-3"]
    config = tomllib.loads(home.config_file("datad-3").read_text())
    assert config["daemon"]["node_id"] == 3
    assert config["daemon"]["listen"] == [f"unix:{home.run_dir}/datad-3.sock"]


def test_sockets_of_a_deep_directory_get_a_short_path(tmp_path: Path) -> None:
    home = Home.at(tmp_path / ("d" * 60) / ("e" * 60))
    home.make_dirs()
    try:
        assert (home.root / "run").is_symlink()
        assert len(os.fsencode(home.socket("handshake"))) <= 107
        assert stat.S_IMODE(home.run_dir.stat().st_mode) == 0o700
        home.run_dir.rmdir()  # as after a reboot
        home.make_dirs()
        assert home.run_dir.is_dir()
    finally:
        home.run_dir.rmdir()


def test_a_short_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    home = Home.at(tmp_path / ("d" * 100))
    home.make_dirs()
    home.run_dir.chmod(0o755)
    try:
        with pytest.raises(CliError, match="not a private directory"):
            home.make_dirs()
    finally:
        home.run_dir.rmdir()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(CliError, match="is not a directory"):
        Home.at(tmp_path / "home").make_dirs()


def test_data_daemons_are_never_dropped(home: Home) -> None:
    formatting.prepare(home, 3)
    formatting.prepare(home, None)
    assert len(home.data_names()) == 3
    with pytest.raises(CliError, match="has 3 data daemons"):
        formatting.prepare(home, 1)


def test_settings_of_the_user_stay(home: Home) -> None:
    formatting.prepare(home, 1)
    path = home.config_file("metad-1")
    path.write_text(path.read_text() + 'log_level = "debug"\n')
    formatting.prepare(home, 1)
    assert "debug" in path.read_text()


def test_a_moved_directory_is_noticed(home: Home, tmp_path: Path) -> None:
    formatting.prepare(home, 1)
    moved = tmp_path / "elsewhere"
    home.root.rename(moved)
    with pytest.raises(CliError, match="expected") as caught:
        formatting.prepare(Home.at(moved), 1)
    assert "was the directory moved?" in caught.value.hint


def test_without_its_configuration_a_cluster_has_the_data_daemons_it_had(home: Home) -> None:
    """As after a move, when the configuration was removed to be written anew."""
    formatting.prepare(home, 3)
    home.formatted_file.write_text("clusterd done\ndatad-2 done\ndatad-3 done\ndatad-4 begun\n")
    home.key_file.touch()
    shutil.rmtree(home.config_dir)
    formatting.prepare(home, None)
    assert home.data_names() == ["datad-2", "datad-3", "datad-4"]


def test_broken_toml_is_named(home: Home) -> None:
    formatting.prepare(home, 1)
    home.config_file("clusterd").write_text("= 1")
    with pytest.raises(CliError, match=r"clusterd\.toml: not valid TOML"):
        formatting.prepare(home, 1)


def test_a_lost_key_is_not_replaced(home: Home) -> None:
    formatting.prepare(home, 1)
    home.formatted_file.write_text("clusterd done\n")
    with pytest.raises(CliError, match=r"cluster\.key is missing"):
        formatting.prepare(home, 1)


def test_a_store_is_formatted_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of it later. What was begun and not finished is done again."""
    formatting.prepare(home, 1)
    ran: list[list[str]] = []
    status = 0

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        home.state_dir("clusterd").mkdir()
        (home.state_dir("clusterd") / "x").write_text("")
        return subprocess.CompletedProcess(command, status, "", "why not")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(formatting, "script", lambda name: name)
    status = 1
    with pytest.raises(CliError) as caught:
        formatting.format_missing(home, "clusterd", print)
    assert caught.value.hint == "why not"
    status = 0
    formatting.format_missing(home, "clusterd", print)
    formatting.format_missing(home, "clusterd", print)
    assert len(ran) == 2
    assert ran[0] == ["superfs-clusterd", "--config", f"{home.config_file('clusterd')}", "--format"]
    assert home.formatted_file.read_text() == "clusterd done\n"


def test_data_that_is_not_ours_is_not_formatted(home: Home) -> None:
    formatting.prepare(home, 1)
    home.state_dir("datad-2").mkdir()
    (home.state_dir("datad-2") / "somebody's").write_text("")
    with pytest.raises(CliError, match="is not empty"):
        formatting.format_missing(home, "datad-2", print)


# ---- mount points


def test_mount_points_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CliError, match="is not a directory"):
        mounts.prepare_mount_point(tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(CliError, match="is not empty"):
        mounts.prepare_mount_point(tmp_path / "full")
    mounts.prepare_mount_point(tmp_path / "new" / "er")
    assert (tmp_path / "new" / "er").is_dir()


def test_a_mount_point_is_spelt_as_the_kernel_spells_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in ("real", "link", "link/../real"):
        assert mounts.resolve_mount_point(tmp_path / name) == tmp_path / "real"
        assert resolved_by_mount(str(tmp_path / name)) == tmp_path / "real"
    assert mounts.resolve_mount_point(tmp_path / "link" / "new") == tmp_path / "real" / "new"


def test_a_busy_mount_point() -> None:
    with pytest.raises(CliError, match=r"/proc is busy: proc \(proc\) is mounted there"):
        mounts.prepare_mount_point(mounts.resolve_mount_point(Path("/proc")))


def test_the_mount_table_is_unescaped() -> None:
    line = rb"36 35 0:40 / /mnt/a\040b\134c rw - fuse.superfs superfs rw"
    found = mounted._parse(line)
    assert str(found.path) == "/mnt/a b\\c"
    assert found.is_superfs


def test_mounts_of_another_cluster_are_not_shown(home: Home) -> None:
    target = options.Target((home.address("clusterd"),), home.token_file, home)
    for source, ours in {
        str(home.root): True,
        home.address("clusterd"): True,
        f"unix:/elsewhere,{home.address('clusterd')}": True,
        "node1:/": True,
        "superfs": True,
        "/elsewhere": False,
        "unix:/elsewhere/run/clusterd.sock": False,
    }.items():
        mounted = Mounted(Path("/mnt"), "fuse.superfs", source)
        assert status.may_be_of(mounted, target) is ours, source
    assert not status.may_be_of(Mounted(Path("/mnt"), "ext4", str(home.root)), target)


def test_a_table_is_never_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    address = f"unix:/{'long/' * 15}metad-1.sock"
    daemon = {"name": "metad-1", "serving": False, "addresses": [address]}
    children = {"metad-1": {"state": "waiting", "pid": 4194304, "restarts": 12}}
    supervisor = {"children": children}
    status._show({"error": None, "supervisor": supervisor, "daemons": [daemon], "mounts": []})
    head, row, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["daemon", "serving", "pid", "restarts", "address"]
    assert row.split() == ["metad-1", "no", "waiting", "4194304", "12", address]


def test_who_uses_a_directory(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    try:
        assert mounts.users_of(tmp_path) == [f"sleep (pid {process.pid})"]
    finally:
        process.kill()
        process.wait()


def test_what_is_missing_to_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    with pytest.raises(CliError, match=r"no /dev/fuse") as caught:
        mounts.check_fuse()
    assert "modprobe fuse" in caught.value.hint
    monkeypatch.setattr(os.path, "exists", lambda _: True)
    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(CliError, match="no fusermount3") as caught:
        mounts.check_fuse()
    assert "apt-get install fuse3" in caught.value.hint


# ---- how a cluster is named


def test_a_cluster_by_its_directory(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    formatting.prepare(home, 1)
    home.key_file.write_text("")
    home.token_file.write_text("")
    expected = options.Target((home.address("clusterd"),), home.token_file, home)
    assert options.target_of(home.root, None, None) == expected
    monkeypatch.setenv(options.ENV_DIR, str(home.root))
    assert options.target_of(None, None, None) == expected


def test_a_cluster_by_its_address(tmp_path: Path) -> None:
    token = tmp_path / "token"
    with pytest.raises(CliError, match=r"token file .* does not exist"):
        options.target_of(None, ["node1:7400"], token)
    token.write_text("")
    assert options.target_of(None, ["node1:7400"], token) == options.Target(("node1:7400",), token)
    with pytest.raises(CliError, match="exclude each other"):
        options.target_of(tmp_path, ["node1:7400"], token)


def test_no_cluster_there(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="holds no cluster") as caught:
        options.target_of(tmp_path, None, None)
    assert "superfs up" in caught.value.hint


# ---- how things look


def test_names_are_safe_to_print() -> None:
    assert printable(b"plain \xc3\xa9") == "plain é"
    assert printable(b"\x1b[31mred\n") == "\\x1b[31mred\\n"
    assert printable(b"\xff") == "\\xff"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, superfs.cli.main\n"
        "heavy = {'grpc', 'google.protobuf', 'trio', 'rich.progress'} & sys.modules.keys()\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
