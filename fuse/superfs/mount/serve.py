"""The life of a mount: pyfuse3's main loop, what runs beside it, and the end in order.

Unmounting from outside, SIGTERM and SIGINT all end the same way: no new requests, everything that
waits in memory goes to the daemons, the connection closes.

This process never makes a system call on its own mount while it serves: a thread that waits for
an answer of its own process cannot be killed, and kill -9 would leave the mount hanging for ever.
Unmounting is a child's work for that reason. Dropping names comes near to it, and so another child
(guard.py) cuts the connection when this process is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pyfuse3
import trio
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from superfs.client.file import OpenInode
from superfs.client.kvblocks import KvBlocks
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.core.limits import MIB
from superfs.mount import figures, kernel, kvtree
from superfs.mount.desk.desk import Desk
from superfs.mount.desk.device import Device, Notices
from superfs.mount.desk.relay import Relay
from superfs.mount.guard import Guard
from superfs.mount.kvtree import KvTree
from superfs.mount.meter import Meter
from superfs.mount.operations import Operations
from superfs.mount.services import Services
from superfs.mount.window import Window
from superfs.rpc.pending import run_sync
from superfs.rpc.scraping import close_http

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.client.connection import Connection
    from superfs.client.meta import MetaClient
    from superfs.core.namespace.txn import Ref
    from superfs.mount.kernel import Mountpoint
    from superfs.mount.options import MountOptions
    from superfs.mount.recalls import Recalls

FINISH_TIMEOUT_S = 60.0
KV_PART = 16
"""Of the memory of a mount, for contents of blocks of the KVCache pool."""
GREETED_MAX = 8
"""Chains whose daemons a new mount connects to before anybody reads."""

log = logging.getLogger("superfs.mount")


def serve(
    connection: Connection,
    recalls: Recalls,
    root: Ref,
    mountpoint: Mountpoint,
    options: MountOptions,
) -> None:
    """Returns when the file system is not mounted any more."""
    device = Device(mountpoint.fd)
    relay = Relay(device)
    number = kernel.device_of(mountpoint.path)
    guard = Guard(mountpoint.fd, str(mountpoint.path), number)
    services = Services.make(
        connection.meta,
        lambda attr: OpenInode(connection, attr),
        options,
        root,
        data=connection.data,
        kernel=Notices(mountpoint.fd, relay.drain),
        guard=guard,
    )
    meter = Meter()
    figures.watch(meter, services, recalls, connection)
    meter.figures["lapses"] = ("Leases that ended unrenewed", lambda: guard.acted)
    stop_metrics = serve_metrics(options.metrics, meter)
    operations = Operations(services, meter)
    device.answered = recalls.answered
    blocks = KvBlocks(connection)
    kv = None
    if options.kv and root.ino == ROOT and not _is_taken(connection.meta, root):
        room = options.memory_max * MIB // KV_PART
        kv = KvTree(blocks, room, services.mounted.notify.drop_names)
    desk = Desk(device, relay, services, meter, connection.data.slot, kv)
    seen = figures.Figures(meter, str(mountpoint.path), connection.config, options.subdir, number)
    window = Window(services, device, seen)
    with contextlib.suppress(FsError):  # who reads or writes will be told
        connection.data.greet(connection.map.chain_ids[:GREETED_MAX])
    try:
        pyfuse3.init(operations, f"/dev/fd/{relay.fd}", {"default_permissions"})
        try:
            trio.run(
                _main, services, recalls, operations.begun, desk, guard, window, mountpoint, options
            )
        finally:
            pyfuse3.close(unmount=False)
    except RuntimeError as error:
        raise kernel.MountError(f"mount point {mountpoint.path}: {error}") from None
    finally:
        relay.close()
        blocks.close()
        guard.close()
        os.close(mountpoint.fd)  # the connection to the kernel
        detach(mountpoint)
        stop_metrics()


def _is_taken(meta: MetaClient, root: Ref) -> bool:
    try:
        run_sync(meta.lookup(root, kvtree.NAME))
    except FsError as error:
        return error.code is not Code.NOT_FOUND
    log.warning("there is a .kv in the file system: it is shown, and not the KVCache pool")
    return True


def serve_metrics(address: str, meter: Meter) -> Callable[[], None]:
    if not address:
        return lambda: None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(meter)
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host or "127.0.0.1", registry)
    except (OSError, ValueError) as error:
        raise kernel.MountError(f"metrics address {address!r}: {error}") from None

    log.info("metrics at http://%s:%d/metrics", *server.server_address[:2])

    def stop() -> None:
        close_http(server)
        thread.join()

    return stop


async def _main(
    services: Services,
    recalls: Recalls,
    begun: trio.Event,
    desk: Desk,
    guard: Guard,
    window: Window,
    mountpoint: Mountpoint,
    options: MountOptions,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(services.run)
        nursery.start_soon(recalls.run, services.mounted)
        nursery.start_soon(_announce, services, begun, guard, mountpoint, options)
        nursery.start_soon(window.run)
        nursery.start_soon(_run_pyfuse3, options.tasks)
        nursery.start_soon(_watch_signals, services, mountpoint, nursery.cancel_scope)
        await desk.run()
        nursery.cancel_scope.cancel()
    notify("STOPPING=1")
    with trio.move_on_after(FINISH_TIMEOUT_S) as scope:
        await services.finish()
    if scope.cancelled_caught:
        log.error("the end did not come in %d s: some writes may be lost", FINISH_TIMEOUT_S)
    log.info("unmounted %s", mountpoint.path)


async def _run_pyfuse3(tasks: int) -> None:
    await pyfuse3.main(min_tasks=tasks, max_tasks=tasks)


async def _announce(
    services: Services,
    begun: trio.Event,
    guard: Guard,
    mountpoint: Mountpoint,
    options: MountOptions,
) -> None:
    """Once the kernel's first request has been answered, and the kernel has the answer: what it is
    told there would replace what `tune` sets."""
    await begun.wait()
    services.mounted.notify.settle()
    if not guard.start():
        log.info(
            "this kernel cannot be told to forget all names: what it is told is good for one lease"
        )
    kernel.tune(mountpoint.path, options)
    log.info("mounted at %s", mountpoint.path)
    notify(f"READY=1\nSTATUS=mounted at {mountpoint.path}")


async def _watch_signals(
    services: Services, mountpoint: Mountpoint, everything: trio.CancelScope
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: unmounting %s", signal.Signals(number).name, mountpoint.path)
            if await trio.to_thread.run_sync(_unmount, mountpoint, abandon_on_cancel=True):
                continue  # the main loop ends by itself
            log.warning("%s is in use: detached, its users get errors now", mountpoint.path)
            await services.files.flush_everything()
            everything.cancel()


def _unmount(mountpoint: Mountpoint) -> bool:
    """In a thread: the kernel asks us things meanwhile. False: it was in use and is detached."""
    for lazy in (False, True):
        if os.geteuid() == 0:
            command = ["umount", "-i", *(["-l"] if lazy else [])]
        else:
            command = ["fusermount3", "-u", *(["-z"] if lazy else [])]
        done = subprocess.run(
            [*command, "--", str(mountpoint.path)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return not lazy
        log.debug("unmount: %s", done.stderr.strip())
    return False


def detach(mountpoint: Mountpoint) -> None:
    """After whatever happened: nobody may run into a mount that nobody serves."""
    if kernel.is_superfs(mountpoint.path):
        _unmount(mountpoint)


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
