"""What can be set about a mount, from a TOML file or from mount(8)'s `-o` options.

-o option                       TOML
ro, rw                          [mount] read_only
noatime, relatime, strictatime  [mount] atime
attr_timeout=S entry_timeout=S negative_timeout=S    [mount] attr_timeout_s ...
allow_other, noallow_other      [mount] allow_other (default: as root yes, else no)
acl, noacl                      [mount] acl
nodelegate, delegate            [mount] delegate: whether changes are told a moment later
suid dev exec sync (and no-)    [mount] suid dev exec sync
subdir=PATH                     [mount] subdir
kv, nokv                        [mount] kv: .kv in the root, the blocks of the KVCache pool
recover                         [mount] recover: take a dead mount off the mount point first
token=FILE cluster=ADDRESS      [client] token_file, cluster
retry_timeout=S                 [client] retry_timeout_s
memory_max=MIB                  [mount] memory_max
metrics=HOST:PORT log_level=L   [mount] metrics, log_level
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from superfs.client.config import ClientConfig
from superfs.core.config import ConfigError, load

ATIMES = ("noatime", "relatime", "strictatime")
CHOICES = ("auto", "yes", "no")
DEFAULT_PORT = 7400
MEMORY_MIN_MIB, MEMORY_MAX_MIB = 96, 1024 * 1024
"""An empty mount takes some 60 MiB."""
ENTRIES_A_MIB = 50
"""Of the memory of a mount, as many as take a sixteenth of it."""
LEARNED_A_MIB = 200
"""As many as take a fourth of it."""
CONTENTS_PART = 8
"""Of it, for contents of small files."""
CONFIG_OF_HOME = Path("config/mount.toml")
"""Where `superfs up --dir` puts the configuration of mounts."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    mountpoint: str = ""  # a command line may name it instead
    subdir: str = "/"
    read_only: bool = False
    allow_other: str = "auto"
    acl: bool = True
    suid: bool = False
    dev: bool = False
    exec: bool = True
    sync: bool = False
    delegate: bool = True  # what nobody else uses is changed here, and told within a second
    kv: bool = True  # .kv in the root shows the blocks of the KVCache pool
    recover: bool = False
    atime: str = "relatime"
    attr_timeout_s: float = 0.0  # of what no lease covers, as are the next two
    entry_timeout_s: float = 0.0
    negative_timeout_s: float = 0.0
    release_delay_s: float = 5.0  # how late the server may hear that a file was closed
    listing_entries_max: int = 20_000  # bigger directories are not kept whole
    contents_cache_mib: int = 64  # of small files' contents, which are fetched ahead; 0: neither
    memory_max: int = 512  # MiB: what the mount remembers is what fits
    tasks: int = 32  # requests that wait for a daemon at the same time; not reads and writes
    max_background: int = 64
    read_ahead_kib: int = 4096
    metrics: str = ""  # host:port of Prometheus HTTP; empty: off
    log_level: str = "info"
    log_format: str = "json"

    def __post_init__(self) -> None:
        _one_of("atime", self.atime, ATIMES)
        _one_of("allow_other", self.allow_other, CHOICES)
        _one_of("log_level", self.log_level, ("debug", "info", "warning", "error"))
        _one_of("log_format", self.log_format, ("json", "console"))
        for name in ("attr_timeout_s", "entry_timeout_s", "negative_timeout_s", "release_delay_s"):
            if not 0 <= getattr(self, name) <= 86_400:
                raise ValueError(f"{name} must be between 0 and 86400 seconds")
        if not 2 <= self.tasks <= 512:
            raise ValueError("tasks must be between 2 and 512")
        if not 1 <= self.max_background <= 65_535:
            raise ValueError("max_background must be between 1 and 65535")
        if not 0 <= self.read_ahead_kib <= 65_536:
            raise ValueError("read_ahead_kib must be between 0 and 65536")
        if not 0 <= self.contents_cache_mib <= 65_536:
            raise ValueError("contents_cache_mib must be between 0 and 65536")
        if not MEMORY_MIN_MIB <= self.memory_max <= MEMORY_MAX_MIB:
            raise ValueError(
                f"memory_max must be between {MEMORY_MIN_MIB} and {MEMORY_MAX_MIB} MiB"
            )
        if self.listing_entries_max < 0:
            raise ValueError("listing_entries_max must not be negative")

    @property
    def kept_entries_max(self) -> int:
        """What `listing_entries_max` says, as far as there is memory for several such."""
        return min(self.listing_entries_max, self.memory_max * ENTRIES_A_MIB)

    @property
    def learned_entries_max(self) -> int:
        """Of a directory whose names are learned before they are asked for."""
        return self.memory_max * LEARNED_A_MIB if self.listing_entries_max else 0

    @property
    def contents_max_mib(self) -> int:
        """What `contents_cache_mib` says, as far as it leaves memory for names."""
        return min(self.contents_cache_mib, self.memory_max // CONTENTS_PART)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


@dataclass(frozen=True, slots=True)
class MountConfig:
    client: ClientConfig = field(default_factory=ClientConfig)
    mount: MountOptions = field(default_factory=MountOptions)


FLAGS: dict[str, tuple[str, object]] = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "noatime": ("atime", "noatime"),
    "relatime": ("atime", "relatime"),
    "strictatime": ("atime", "strictatime"),
    "allow_other": ("allow_other", "yes"),
    "noallow_other": ("allow_other", "no"),
    "recover": ("recover", True),
    **{name: (name, True) for name in ("acl", "suid", "dev", "exec", "sync", "delegate", "kv")},
    **{f"no{name}": (name, False) for name in ("acl", "suid", "dev", "exec", "delegate", "kv")},
    "async": ("sync", False),
}
VALUES: dict[str, tuple[str, str, type[Any]]] = {
    "attr_timeout": ("mount", "attr_timeout_s", float),
    "entry_timeout": ("mount", "entry_timeout_s", float),
    "negative_timeout": ("mount", "negative_timeout_s", float),
    "subdir": ("mount", "subdir", str),
    "memory_max": ("mount", "memory_max", int),
    "metrics": ("mount", "metrics", str),
    "log_level": ("mount", "log_level", str),
    "log_format": ("mount", "log_format", str),
    "token": ("client", "token_file", Path),
    "cluster": ("client", "cluster", str),
    "retry_timeout": ("client", "retry_timeout_s", float),
}
# Words that concern mount(8), systemd or the init scripts, and `default_permissions`, which is
# always on.
_OF_MOUNT = "auto noauto user nouser users owner group defaults _netdev nofail dirsync diratime"
IGNORED = frozenset(f"{_OF_MOUNT} nodiratime default_permissions".split())
IGNORED_PREFIXES = ("x-", "comment=")


@dataclass(slots=True)
class Changes:
    """What a command line asks for on top of a configuration."""

    client: dict[str, Any] = field(default_factory=dict)
    mount: dict[str, Any] = field(default_factory=dict)

    def apply(self, config: MountConfig) -> MountConfig:
        try:
            return MountConfig(
                dataclasses.replace(config.client, **self.client),
                dataclasses.replace(config.mount, **self.mount),
            )
        except ValueError as error:
            raise ConfigError(f"options: {error}") from None


def parse_options(text: str) -> Changes:
    """`text` as mount(8) gives it: words and name=value, separated by commas."""
    changes = Changes()
    for word in filter(None, text.split(",")):
        name, equals, value = word.partition("=")
        if word in FLAGS:
            key, setting = FLAGS[word]
            changes.mount[key] = setting
        elif equals and name in VALUES:
            table, key, kind = VALUES[name]
            getattr(changes, table)[key] = _converted(word, key, kind, value)
        elif word not in IGNORED and not word.startswith(IGNORED_PREFIXES):
            known = ", ".join(sorted(FLAGS) + sorted(f"{name}=..." for name in VALUES))
            raise ConfigError(f"options: unknown option {word!r}; known: {known}")
    return changes


def _converted(word: str, key: str, kind: type[Any], value: str) -> object:
    if key == "cluster":
        return tuple(value.split("+"))
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"options: {word!r}: not a number") from None


def parse_source(source: str) -> tuple[MountConfig, Changes]:
    """What to mount, as a command line or /etc/fstab names it:

    HOST[:PORT][,HOST[:PORT]...]:[/SUBDIR]   clusterd over TCP
    unix:PATH                                clusterd on this host
    DIR                                      a cluster started with `superfs up --dir DIR`
    """
    if source.startswith("unix:"):
        return MountConfig(), Changes(client={"cluster": (source,)})
    home = Path(source)
    if ("/" in source and ":" not in source) or home.is_dir():
        return load(MountConfig, home / CONFIG_OF_HOME), Changes()
    hosts, slash, subdir = source.partition("/")
    hosts = hosts.removesuffix(":")
    if not hosts:
        raise ConfigError(f"{source!r} names no host: write HOST[:PORT]:/, unix:PATH or DIR")
    targets = tuple(_with_port(host) for host in hosts.split(","))
    changes = Changes(client={"cluster": targets})
    if slash and subdir:
        changes.mount["subdir"] = f"/{subdir}"
    return MountConfig(), changes


def _with_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return f"{host}:{DEFAULT_PORT}"
    if not name or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ConfigError(f"{host!r} is not HOST or HOST:PORT")
    return host
