"""superfs-mount: connects, mounts, serves until it is unmounted, and leaves nothing unwritten.

    superfs-mount --config FILE [MOUNTPOINT] [-o OPTIONS]
    superfs-mount SOURCE MOUNTPOINT [-o OPTIONS]

It stays in the foreground. Exit status: 0 unmounted in order, 2 usage, 78 configuration, 1 else.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from superfs.client.connection import Connection
from superfs.core.config import ConfigError, load
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT, ROOT_GENERATION
from superfs.core.namespace.txn import Ref
from superfs.mount import kernel
from superfs.mount.options import MountConfig, parse_options, parse_source
from superfs.mount.recalls import Recalls
from superfs.mount.serve import serve
from superfs.rpc.memory import keep_large_buffers
from superfs.rpc.pending import run_sync

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.client.meta import MetaClient

EXIT_USAGE, EXIT_CONFIG, EXIT_FAILED = 2, 78, 1
HINTS = {
    Code.UNAVAILABLE: "is the cluster running, and is the address right?",
    Code.DEADLINE: "is the cluster running, and is the address right?",
    Code.UNAUTHENTICATED: "the token is not this cluster's, or has been revoked",
    Code.FORBIDDEN: "this token may not be used for that",
    Code.ACCESS: "may this user read the token file?",
}


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asks for."""

    config: MountConfig
    mountpoint: Path
    source: str


def parse(argv: Sequence[str]) -> Order:
    parser = argparse.ArgumentParser("superfs-mount", description="Mount a SuperFS.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML; see systemd/mount.toml")
    parser.add_argument("-o", dest="options", default="", metavar="OPT,...", help="as in fstab")
    parser.add_argument("place", nargs="*", metavar="[SOURCE] MOUNTPOINT")
    args = parser.parse_args(argv)
    places: list[str] = args.place
    if len(places) > (1 if args.config else 2) or (not args.config and len(places) != 2):
        parser.error("give --config FILE [MOUNTPOINT], or SOURCE MOUNTPOINT")
    changes = parse_options(args.options)
    if args.config:
        config = changes.apply(load(MountConfig, args.config))
        source = ",".join(config.client.cluster)
    else:
        source = places[0]
        config, from_source = parse_source(source)
        config = changes.apply(from_source.apply(config))
    mountpoint = places[-1] if places else config.mount.mountpoint
    if not mountpoint:
        parser.error("where? Name the mount point, or set mountpoint in the table [mount]")
    return Order(_named(config, mountpoint), _resolved(mountpoint), source)


def _resolved(mountpoint: str) -> Path:
    """As the kernel's table will have it. Without touching a mount: it may be dead."""
    path = Path(os.path.abspath(mountpoint))
    path = path.parent.resolve() / path.name
    is_link = not kernel.is_mounted(path) and os.path.islink(path)
    return path.resolve() if is_link else path


def _named(config: MountConfig, mountpoint: str) -> MountConfig:
    name = f"mount {mountpoint} on {socket.gethostname()}"
    return dataclasses.replace(config, client=dataclasses.replace(config.client, client_name=name))


def find_root(meta: MetaClient, subdir: str) -> Ref:
    """The directory that becomes the root of the mount."""
    here = Ref(ROOT, ROOT_GENERATION, ROOT)
    for name in filter(None, subdir.split("/")):
        attr = run_sync(meta.lookup(here, os.fsencode(name))).attr
        assert attr is not None
        if not attr.is_dir:
            raise FsError(Code.NOT_DIRECTORY, subdir)
        here = Ref(attr.ino, attr.generation, attr.place)
    run_sync(meta.getattr(here))
    return here


def run(order: Order) -> None:
    kernel.prepare(order.mountpoint, recover=order.config.mount.recover)
    recalls = Recalls()
    options = order.config.mount
    exclusive = options.delegate and not (options.sync or options.read_only)
    with Connection.open(order.config.client, recalls, exclusive=exclusive) as connection:
        try:
            root = find_root(connection.meta, order.config.mount.subdir)
        except FsError as error:
            if error.code in (Code.NOT_FOUND, Code.NOT_DIRECTORY):
                raise kernel.MountError(
                    f"there is no directory {order.config.mount.subdir} to mount"
                ) from None
            raise
        mountpoint = kernel.mount(order.mountpoint, order.source, order.config.mount)
        serve(connection, recalls, root, mountpoint, order.config.mount)


def main(argv: Sequence[str] | None = None) -> None:
    keep_large_buffers()
    gc.freeze()  # what is imported stays: no collection, nor the one at the end, looks at it
    try:
        order = parse(sys.argv[1:] if argv is None else argv)
        configure_logs(order.config)
        run(order)
    except ConfigError as error:
        _fail(EXIT_CONFIG, str(error))
    except kernel.MountError as error:
        _fail(EXIT_FAILED, str(error))
    except FsError as error:
        hint = HINTS.get(error.code)
        _fail(EXIT_FAILED, f"{error}" + (f" ({hint})" if hint else ""))
    except OSError as error:
        _fail(EXIT_FAILED, str(error))


def _fail(status: int, message: str) -> None:
    print(f"superfs-mount: {message}", file=sys.stderr)
    sys.exit(status)


def configure_logs(config: MountConfig) -> None:
    from superfs.mount.logs import configure

    configure(config.mount.log_level, config.mount.log_format)
    logging.captureWarnings(True)
