"""Command line, /etc/fstab and TOML of a mount; and what is said when they cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from superfs.core.config import ConfigError, dump, load
from superfs.mount import kernel
from superfs.mount.main import main, parse
from superfs.mount.options import MountConfig, MountOptions, parse_options, parse_source


def test_options_as_in_fstab() -> None:
    changes = parse_options("ro,noatime,attr_timeout=5,token=/t,_netdev,x-systemd.automount,noacl")
    config = changes.apply(MountConfig())
    assert config.mount.read_only
    assert (config.mount.atime, config.mount.attr_timeout_s) == ("noatime", 5.0)
    assert not config.mount.acl
    assert config.client.token_file == Path("/t")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("nonsense", "unknown option 'nonsense'"),
        ("attr_timeout=soon", "not a number"),
        ("attr_timeout=-1", "between 0 and"),
        ("retry_timeout=0", "must be positive"),
    ],
)
def test_bad_options(options: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_options(options).apply(MountConfig())


@pytest.mark.parametrize(
    ("source", "cluster", "subdir"),
    [
        ("unix:/run/x.sock", ("unix:/run/x.sock",), "/"),
        ("host:/", ("host:7400",), "/"),
        ("host:9:/a/b", ("host:9",), "/a/b"),
        ("h1,h2:8:/", ("h1:7400", "h2:8"), "/"),
    ],
)
def test_sources(source: str, cluster: tuple[str, ...], subdir: str) -> None:
    config, changes = parse_source(source)
    config = changes.apply(config)
    assert (config.client.cluster, config.mount.subdir) == (cluster, subdir)


def test_bad_sources(tmp_path: Path) -> None:
    for source in ("", ":/", "host:port:/"):
        with pytest.raises(ConfigError):
            parse_source(source)
    with pytest.raises(ConfigError, match="no such file"):
        parse_source(str(tmp_path))


def test_the_configuration_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mount.toml"
    file.write_text(dump(MountConfig()))
    assert load(MountConfig, file) == MountConfig()
    order = parse(["--config", str(file), str(tmp_path / "mnt"), "-o", "ro"])
    assert order.config.mount.read_only
    assert order.mountpoint == tmp_path / "mnt"
    file.write_text("[mount]\natimes = 'no'\n")
    with pytest.raises(ConfigError, match="atimes"):
        parse(["--config", str(file), "/mnt"])


def test_what_is_in_the_way_of_mounting(tmp_path: Path) -> None:
    with pytest.raises(kernel.MountError, match="does not exist"):
        kernel.prepare(tmp_path / "none", recover=False)
    (tmp_path / "file").touch()
    with pytest.raises(kernel.MountError, match="not a directory"):
        kernel.prepare(tmp_path / "file", recover=False)
    kernel.prepare(tmp_path, recover=False)


def test_flags_of_the_mount() -> None:
    usual = kernel.mount_flags(MountOptions())
    assert usual == kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_POSIXACL
    bold = kernel.mount_flags(MountOptions(suid=True, dev=True, acl=False, read_only=True))
    assert bold == kernel.MS_RDONLY


def test_a_failure_is_one_line_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superfs.mount.main.configure_logs", lambda _config: None)
    (tmp_path / "token").write_text("nonsense")
    options = f"token={tmp_path}/token,retry_timeout=0.2"
    for argv, status in (
        ([f"unix:{tmp_path}/none.sock", str(tmp_path / "none"), "-o", options], 1),
        ([f"unix:{tmp_path}/none.sock", str(tmp_path), "-o", options], 1),
        (["--config", str(tmp_path / "none.toml"), str(tmp_path)], 78),
        ([str(tmp_path)], 2),
    ):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == status
        assert "superfs-mount: " in capsys.readouterr().err
