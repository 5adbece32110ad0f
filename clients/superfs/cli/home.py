"""Where an embedded cluster keeps its things: the layout of the directory of `superfs up --dir`.

cluster.key   what the daemons sign tokens with        (0600)
token         what clients show to get in              (0600)
formatted     which daemons have a formatted store: one "NAME state" line each, and one of the root
lock          held by the supervisor as long as it lives
config/       clusterd.toml metad-1.toml datad-2.toml … mount.toml
run/          sockets and the supervisor's status; a link to a shorter place if need be (0700)
log/          one file per process
clusterd/ metad-1/ datad-2/ …   the stores
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from superfs.cli.output import CliError

SOCKET_PATH_BYTES_MAX = 107
_LONGEST_SOCKET_NAME = "handshake.sock.tmp"
META_NODE = 1
FIRST_DATA_NODE = 2


@dataclass(frozen=True, slots=True)
class Home:
    root: Path

    @classmethod
    def at(cls, path: Path) -> Home:
        return cls(path.expanduser().absolute().resolve())

    @property
    def exists(self) -> bool:
        return self.key_file.exists()

    @property
    def key_file(self) -> Path:
        return self.root / "cluster.key"

    @property
    def token_file(self) -> Path:
        return self.root / "token"

    @property
    def formatted_file(self) -> Path:
        return self.root / "formatted"

    @property
    def lock_file(self) -> Path:
        return self.root / "lock"

    @property
    def config_dir(self) -> Path:
        return self.root / "config"

    @property
    def log_dir(self) -> Path:
        return self.root / "log"

    @property
    def run_dir(self) -> Path:
        """Resolved: a socket's path must be short as it is spelt."""
        return (self.root / "run").resolve()

    @property
    def status_file(self) -> Path:
        return self.run_dir / "supervisor.json"

    def config_file(self, name: str) -> Path:
        return self.config_dir / f"{name}.toml"

    def state_dir(self, name: str) -> Path:
        return self.root / name

    def log_file(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def socket(self, name: str) -> Path:
        return self.run_dir / f"{name}.sock"

    def address(self, name: str) -> str:
        return f"unix:{self.socket(name)}"

    def data_names(self) -> list[str]:
        """The data daemons this cluster has, in the order of their node numbers."""
        numbers = sorted(
            int(path.stem.removeprefix("datad-")) for path in self.config_dir.glob("datad-*.toml")
        )
        return [f"datad-{number}" for number in numbers]

    def daemon_names(self) -> list[str]:
        return ["clusterd", f"metad-{META_NODE}", *self.data_names()]

    def make_dirs(self) -> None:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.config_dir.mkdir(mode=0o700, exist_ok=True)
            self.log_dir.mkdir(mode=0o700, exist_ok=True)
            self._make_run_dir()
        except FileExistsError as error:
            raise CliError(
                f"{error.filename} is not a directory", hint="choose another --dir"
            ) from None
        except OSError as error:
            raise CliError(
                f"{error.filename}: {error.strerror}", hint="choose another --dir"
            ) from None

    def _make_run_dir(self) -> None:
        run = self.root / "run"
        longest = len(os.fsencode(run / _LONGEST_SOCKET_NAME))
        if longest <= SOCKET_PATH_BYTES_MAX:
            run.mkdir(mode=0o700, exist_ok=True)
            return
        short = _short_run_dir(self.root)
        _private_dir(short)
        if run.is_symlink() and run.readlink() != short:
            run.unlink()  # the directory was moved here from elsewhere
        if not run.is_symlink():
            run.symlink_to(short)


def _short_run_dir(root: Path) -> Path:
    """Always the same for one `root`, so that it can be made anew after a reboot."""
    digest = hashlib.blake2b(os.fsencode(root), digest_size=6).hexdigest()
    if os.geteuid() == 0 and Path("/run").is_dir():
        return Path(f"/run/superfs-{digest}")
    return Path(f"/tmp/superfs-{os.geteuid()}-{digest}")


def _private_dir(path: Path) -> None:
    """Ours alone: in a directory that anybody can write to, somebody may have been first."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise CliError(
            f"{path} exists and is not a private directory of yours",
            hint="remove it, or use a shorter --dir",
        )
