"""The front desk of a mount: reads /dev/fuse, answers at once what memory can answer, and hands
everything else to pyfuse3 (relay.py).

Most requests of a kernel that was told everything under leases ask for what is known here. Each
costs one read and one write of the device, and no task of the loop; through pyfuse3 it would cost
five system calls and two turns of the loop (docs/decisions/0014-front-desk.md).
"""

from __future__ import annotations

import errno
import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from superfs.client.sharedmem import PAGE_BYTES
from superfs.core.errors import Code, FsError
from superfs.core.ids import is_virtual
from superfs.mount.desk import protocol
from superfs.mount.desk.answers import Answers
from superfs.mount.desk.changes import Changes
from superfs.mount.desk.device import ENDED
from superfs.mount.desk.kvdesk import KERNEL_ROOT, TWO_PLACES, KvDesk
from superfs.mount.desk.protocol import (
    HEADER,
    HEADER_BYTES,
    REQUEST_BYTES_MAX,
    WRITE_DATA,
    Op,
)
from superfs.mount.desk.transfers import Transfers
from superfs.mount.desk.waits import Waits
from superfs.mount.meter import Gauge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from superfs.mount.desk.device import Device
    from superfs.mount.desk.relay import Relay
    from superfs.mount.kvtree import KvTree
    from superfs.mount.meter import Meter
    from superfs.mount.services import Services

    Handler = Callable[[int, int, memoryview, int, int], bytes | None]

BURST = 64
"""Requests in a row before other tasks of the loop get their turn."""
TURN_NS = 3_000_000
"""They get it after so long, too, when the desk waits for a disk."""
LINGER_NS = 50_000
"""How long the desk looks for the next request before it goes to sleep: waking up takes longer than
most programs do between two requests."""
LARGE_BYTES = 128 * 1024
"""Behind so large a request the next one takes longer to come than waking up."""
SKIPPED = (errno.ENOENT, errno.EINTR)
"""A request whose process was killed before it was read."""

log = logging.getLogger("superfs.mount")


class Desk:
    def __init__(
        self,
        device: Device,
        relay: Relay,
        services: Services,
        meter: Meter,
        slot: Callable[[], memoryview | None] = lambda: None,
        kv: KvTree | None = None,
    ) -> None:
        """`slot` gives memory that data daemons can read (DataClient.slot). `kv`: what is shown as
        `.kv`, if that is."""
        self._device = device
        self._fd = device.fd
        self._answer = device.answer
        self._relay = relay
        self._mounted = services.mounted
        self._nursery: trio.Nursery | None = None
        self._slot = slot
        self._own = memoryview(bytearray(REQUEST_BYTES_MAX))
        self._buffer = self._own
        self._request = self._own[:HEADER_BYTES]  # that is being served
        self._waits = relay.waits = Waits(device, services)
        answers = Answers(services, self._waits)
        changes = Changes(services)
        transfers = Transfers(
            services, self._start, device.give, self._renew, self._waits, self._header
        )
        self._arrivals = transfers.arrivals
        handlers: dict[Op, Handler] = {
            Op.LOOKUP: answers.lookup,
            Op.FORGET: answers.forget,
            Op.BATCH_FORGET: answers.batch_forget,
            Op.INTERRUPT: answers.interrupt,
            Op.GETATTR: answers.getattr,
            Op.READLINK: answers.readlink,
            Op.GETXATTR: answers.getxattr,
            Op.LISTXATTR: answers.listxattr,
            Op.OPENDIR: answers.opendir,
            Op.READDIRPLUS: answers.readdirplus,
            Op.RELEASEDIR: answers.releasedir,
            Op.FSYNCDIR: answers.fsyncdir,
            Op.OPEN: transfers.open,
            Op.READ: transfers.read,
            Op.WRITE: transfers.write,
            Op.FLUSH: transfers.flush,
            Op.FSYNC: transfers.fsync,
            Op.RELEASE: transfers.release,
        }
        if services.mounted.meta.here is not None:
            handlers |= {
                Op.CREATE: changes.create,
                Op.MKDIR: changes.mkdir,
                Op.SYMLINK: changes.symlink,
                Op.LINK: changes.link,
                Op.UNLINK: changes.unlink,
                Op.RMDIR: changes.rmdir,
                Op.RENAME: changes.rename,
                Op.RENAME2: changes.rename2,
                Op.SETATTR: changes.setattr,
            }
        self._handlers: dict[int, tuple[Handler, Gauge]] = {
            int(op): (handler, meter.of(_METER_NAMES.get(op, op.name.lower())))
            for op, handler in handlers.items()
        }
        self._kv = None if kv is None else KvDesk(kv, self._start, self._waits)
        self._kv_gauge = meter.of("kv") if kv is not None else Gauge()
        self._relayed = 0
        self._serving = (Gauge(), 0)  # which, and since when
        meter.figures["relayed"] = ("Requests handed to pyfuse3", lambda: self._relayed)

    async def run(self) -> None:
        """Until the file system is unmounted, or cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._waits.nursery = self._nursery
            self._nursery.start_soon(self._relay.run)
            while True:
                await trio.lowlevel.wait_readable(self._fd)
                while self._serve_burst():
                    await trio.lowlevel.checkpoint()
                if self._has_ended:
                    break
            self._nursery.cancel_scope.cancel()

    _has_ended = False

    def _serve_burst(self) -> bool:
        """False when nothing more came, and nothing is to come from a disk."""
        fd, readv, arrivals = self._fd, os.readv, self._arrivals
        clock, linger, length = time.perf_counter_ns, 0, 0
        turn = clock() + TURN_NS
        for _ in range(BURST):
            while True:
                try:
                    length = readv(fd, [self._buffer])
                    break
                except BlockingIOError:
                    if arrivals.expected:
                        arrivals.look()
                        linger = 0
                        if clock() > turn:
                            return True
                    elif length > LARGE_BYTES:
                        return False
                    elif not linger:
                        linger = clock() + LINGER_NS
                    elif clock() > linger:
                        return False
                except OSError as error:
                    if error.errno in ENDED:
                        self._has_ended = True
                        return False
                    if error.errno not in SKIPPED:
                        raise
            linger = 0
            self._serve(self._buffer[:length])
            if arrivals.expected:
                arrivals.look()
        return True

    def _renew(self) -> None:
        """What was received last is somebody's now, or would better be where daemons can read it.
        The bytes of a write then lie at the beginning of a page."""
        slot = self._slot()
        self._buffer = self._own if slot is None else slot[PAGE_BYTES - WRITE_DATA :]

    def _serve(self, request: memoryview) -> None:
        _, opcode, unique, number, uid, gid, _, _, _ = HEADER.unpack_from(request)
        if self._device.watcher is not None:
            self._device.watcher.began(request)
        kv = self._kv
        if kv is not None and (number <= KERNEL_ROOT or opcode in TWO_PLACES or is_virtual(number)):
            if opcode == Op.BATCH_FORGET:
                kv.tree.forget(protocol.forgotten(request[HEADER_BYTES:]))
            elif kv.claims(opcode, number, request[HEADER_BYTES:]):
                self._serve_kv(kv, request, opcode, unique, number)
                return
        found = self._handlers.get(opcode)
        if found is None:
            self._relayed += 1
            self._relay.send(request)
            return
        handler, gauge = found
        self._request = request
        started = time.perf_counter_ns()
        self._serving = gauge, started
        try:
            answer = handler(unique, number, request[HEADER_BYTES:], uid, gid)
        except Exception as error:
            gauge.errors += 1
            self._waits.over(unique)
            answer = protocol.error(unique, self._errno_of(error, number))
        if answer is None:
            self._relayed += 1
            self._relay.send(request)
            return
        if answer:
            self._answer(answer)
            gauge.note(time.perf_counter_ns() - started)

    def _serve_kv(
        self, kv: KvDesk, request: memoryview, opcode: int, unique: int, number: int
    ) -> None:
        self._request = request
        started = time.perf_counter_ns()
        self._serving = self._kv_gauge, started
        try:
            answer = kv.serve(unique, opcode, number, request[HEADER_BYTES:])
        except Exception as error:
            self._kv_gauge.errors += 1
            answer = protocol.error(unique, self._errno_of(error, number))
        if answer:
            self._answer(answer)
            self._kv_gauge.note(time.perf_counter_ns() - started)

    def _errno_of(self, error: BaseException, number: int) -> int:
        if isinstance(error, FsError):
            if error.code is Code.STALE:
                self._mounted.disbelieve(number)
            return error.errno
        log.error("a bug in the mount, answered with EIO", exc_info=error)
        return errno.EIO

    def _header(self) -> bytes:
        """Of the request that is being served."""
        return bytes(self._request[:HEADER_BYTES])

    def _start(
        self, unique: int, answer: Awaitable[tuple[bytes, ...]], header: bytes | None = None
    ) -> None:
        """`header`: of the request, when it is not the one that is being served."""
        assert self._nursery is not None
        self._waits.begin(header or self._header())
        self._nursery.start_soon(partial(self._finish, unique, answer, *self._serving))

    async def _finish(
        self, unique: int, answer: Awaitable[tuple[bytes, ...]], gauge: Gauge, started: int
    ) -> None:
        try:
            parts = await answer
        except Exception as error:
            gauge.errors += 1
            parts = (protocol.error(unique, self._errno_of(error, 0)),)
        if self._waits.over(unique):
            self._answer(*parts)
        gauge.note(time.perf_counter_ns() - started)


_METER_NAMES = {Op.BATCH_FORGET: "forget", Op.READDIRPLUS: "readdir", Op.RENAME2: "rename"}
