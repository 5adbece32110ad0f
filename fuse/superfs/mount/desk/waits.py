"""Requests that wait for a daemon, and what becomes of them when whoever asked is to end.

The kernel says once of each request that a signal has come for who waits for it, whatever signal.
Most are none of our business: a program that gets one every second is not told that its file could
not be read. But who is killed must not wait until a daemon is back, nor who is asked to end and
only wants to know something. A second's patience keeps this out of the way of everything but that:
what is done sooner is answered as it would be.

The operation goes on, for nobody can tell whether it is done already. What the kernel does not hear
of then is put right when its answer comes.
"""

from __future__ import annotations

import errno
import signal
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from superfs.mount.desk import protocol
from superfs.mount.desk.protocol import ENTRY_BYTES, HEADER, OUT_BYTES, Op

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.mount.desk.device import Device
    from superfs.mount.services import Services

PATIENCE_S = 1.0
LOOK_S = 0.25
PF_EXITING = 0x4
ASKED_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
QUESTIONS = frozenset({1, 3, 5, 14, 15, 17, 22, 23, 27, 28, 34, 44})
"""What changes nothing: a program that catches a signal may be told EINTR of these."""
ENTRIES = frozenset({1, 6, 8, 9, 13, 35})
"""Answered with an inode that the kernel then counts."""
_NUMBER = struct.Struct("=Q")


class Waits:
    def __init__(
        self,
        device: Device,
        services: Services,
        fate: Callable[[int], tuple[bool, bool]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer = device.answer
        self._services = services
        self._fate = fate or fate_of
        self._now = now
        self._asked: dict[int, bytes] = {}  # unique -> header
        self._given_up: dict[int, bytes] = {}
        self.nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._asked) + len(self._given_up)

    def __contains__(self, unique: int) -> bool:
        return unique in self._asked

    def begin(self, header: bytes) -> None:
        """Of a request that is not answered at once."""
        self._asked[int.from_bytes(header[8:16], sys.byteorder)] = header

    def over(self, unique: int) -> bool:
        """Before its answer goes to the kernel; False: nobody waits for that any more. In any
        thread, for what leaves nothing to be put right."""
        return self._asked.pop(unique, None) is not None or self._given_up.pop(unique, None) is None

    def answered(self, message: bytes) -> bool:
        """As `over`, of an answer that may leave something."""
        unique = int.from_bytes(message[8:16], sys.byteorder)
        if self._asked.pop(unique, None) is not None:
            return True
        header = self._given_up.pop(unique, None)
        if header is None:
            return True
        self._put_right(header, message)
        return False

    def interrupt(self, unique: int) -> None:
        """A signal has come for whoever waits for this."""
        if unique in self._asked:
            assert self.nursery is not None
            self.nursery.start_soon(self._watch, unique)

    async def _watch(self, unique: int) -> None:
        """The kernel says it once: a second signal may be the one that kills."""
        patient_until = self._now() + PATIENCE_S
        while True:
            await trio.sleep(LOOK_S)
            header = self._asked.get(unique)
            if header is None:
                return
            if self._now() < patient_until:
                continue
            _, opcode, _, _, _, _, pid, _, _ = HEADER.unpack(header)
            dies, is_asked = self._fate(pid)
            if dies or (is_asked and opcode in QUESTIONS):
                self._given_up[unique] = self._asked.pop(unique)
                self._answer(protocol.error(unique, errno.EINTR))
                return

    # ---- answers that come too late

    def _put_right(self, header: bytes, message: bytes) -> None:
        _, opcode, _, number, *_ = HEADER.unpack(header)
        mounted = self._services.mounted
        if opcode not in QUESTIONS:
            mounted.notify.drop_attr(number)  # names the kernel has dropped itself
        if int.from_bytes(message[4:8], sys.byteorder, signed=True):
            return
        if opcode in (Op.OPEN, Op.CREATE):
            at = OUT_BYTES + (ENTRY_BYTES if opcode == Op.CREATE else 0)
            self._release(_NUMBER.unpack_from(message, at)[0])
        elif opcode == Op.OPENDIR:
            self._services.dirs.pop(_NUMBER.unpack_from(message, OUT_BYTES)[0])
        if opcode in ENTRIES:
            self._forget([_NUMBER.unpack_from(message, OUT_BYTES)[0]])
        elif opcode == Op.READDIRPLUS:
            self._forget(protocol.listed_numbers(memoryview(message)[OUT_BYTES:]))

    def _release(self, fh: int) -> None:
        handle = self._services.handles.pop(fh)
        assert self.nursery is not None
        self.nursery.start_soon(self._services.files.release, handle)

    def _forget(self, numbers: list[int]) -> None:
        self._services.forget((number, 1) for number in numbers if number)


def fate_of(pid: int) -> tuple[bool, bool]:
    """Whether this thread dies as soon as it may, and whether it has been asked to end. Without a
    doubt only: one of another namespace has no number here."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        flags = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6])
    except OSError:
        return False, False
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("S"))
    own, shared = int(masks["SigPnd"], 16), int(masks["ShdPnd"], 16)
    dies = bool(flags & PF_EXITING) or bool(own & _bit(signal.SIGKILL))
    wanted = (own | shared) & ~int(masks["SigBlk"], 16) & ~int(masks["SigIgn"], 16)
    return dies, any(wanted & _bit(number) for number in ASKED_TO_END)


def _bit(number: int) -> int:
    return 1 << (number - 1)
