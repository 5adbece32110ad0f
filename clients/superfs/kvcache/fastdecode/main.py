"""superfs-rworker: keeps keys and values of S-workers on this host, and attends.

    superfs-rworker --config FILE    serve
                    --check-config | --print-config

It holds nothing that could not be computed again, so it has no state directory and is no member of
the cluster. SIGTERM ends it. Exit status: 0 clean, 2 usage, 78 configuration, 1 else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from superfs.core.config import ConfigError, dump, load
from superfs.core.errors import FsError
from superfs.kvcache.fastdecode.frames import read_secret, split_address
from superfs.kvcache.fastdecode.remote import RemoteServer
from superfs.kvcache.fastdecode.rworker import LocalServer
from superfs.kvcache.fastdecode.session import Room
from superfs.rpc.memory import keep_large_buffers

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("superfs.rworker")

EXIT_CONFIG = 78
THREADS_MAX = 1024
SESSIONS_MAX = 1024
LEASE_S_MIN, LEASE_S_MAX = 0.1, 3600.0
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    socket: Path = Path("/run/superfs/rworker.sock")
    listen: str = ""  # HOST:PORT, for S-workers on other hosts; "": none
    secret_file: Path = Path("/etc/superfs/rworker.secret")
    memory_bytes: int = 1 << 30
    threads: int = 0  # that attend; 0: one for each processor it may use
    sessions_max: int = 16
    lease_s: float = 30.0
    kernel_dir: Path = Path("/var/cache/superfs/kernels")
    log_level: str = "info"

    def __post_init__(self) -> None:
        ranges = (
            ("memory_bytes", 1 << 20, 1 << 50),
            ("threads", 0, THREADS_MAX),
            ("sessions_max", 1, SESSIONS_MAX),
            ("lease_s", LEASE_S_MIN, LEASE_S_MAX),
        )
        for name, least, most in ranges:
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be from {least} to {most}")
        for name in ("socket", "secret_file", "kernel_dir"):
            if not getattr(self, name).is_absolute():
                raise ConfigError(f"{name} must be an absolute path")
        if self.listen:
            try:
                split_address(self.listen)
            except FsError as error:
                raise ConfigError(f"listen: {error.detail}") from None
        if self.log_level not in LEVELS:
            raise ConfigError(f"log_level must be one of {', '.join(LEVELS)}")


@dataclass(frozen=True, slots=True)
class RworkerConfig:
    rworker: WorkerConfig = field(default_factory=WorkerConfig)


class JsonLines(logging.Formatter):
    """As the daemons log."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def notify(message: str) -> None:
    """sd_notify; without NOTIFY_SOCKET nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.connect(address)
        sender.send(message.encode())


def serve(config: WorkerConfig) -> None:
    threads = config.threads or len(os.sched_getaffinity(0))
    room = Room(
        config.memory_bytes, threads=threads, kernel_dir=config.kernel_dir,
        lease_s=config.lease_s, sessions_max=config.sessions_max,
    )  # fmt: skip
    secret = read_secret(config.secret_file) if config.listen else b""
    server = LocalServer(config.socket, room, config.lease_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    remote: RemoteServer | None = None
    try:
        where = str(config.socket)
        if config.listen:
            remote = RemoteServer(config.listen, secret, room, config.lease_s)
            where += f" and {remote.address}"
        log.info("serving at %s: %d bytes, %d threads", where, config.memory_bytes, threads)
        notify(f"READY=1\nSTATUS=serving at {where}")
        server.serve(lambda: notify("WATCHDOG=1"))
    finally:
        notify("STOPPING=1")
        if remote is not None:
            remote.close()
        server.close()
    log.info("stopped")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    parser = argparse.ArgumentParser("superfs-rworker", allow_abbrev=False)
    parser.add_argument(
        "--config", type=Path, default=Path("/etc/superfs/rworker.toml"), metavar="FILE"
    )
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--check-config", action="store_true", help="read the file and stop")
    act.add_argument("--print-config", action="store_true", help="print every default")
    args = parser.parse_args(argv)
    if args.print_config:
        sys.stdout.write(dump(RworkerConfig()).lstrip("\n"))
        sys.exit(0)
    os.umask(0o077)
    try:
        config = load(RworkerConfig, args.config).rworker
        if args.check_config:
            print(f"{args.config}: good")
            sys.exit(0)
        output = logging.StreamHandler(sys.stderr)
        output.setFormatter(JsonLines())
        logging.basicConfig(level=config.log_level.upper(), handlers=[output])
        keep_large_buffers()
        serve(config)
    except (ConfigError, FsError, OSError) as error:
        print(f"superfs-rworker: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, OSError) else EXIT_CONFIG)
    sys.exit(0)


if __name__ == "__main__":
    main()
