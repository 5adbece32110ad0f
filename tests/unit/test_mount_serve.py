"""The process of a mount, without a mount."""

from __future__ import annotations

import subprocess
import sys

READS = """
import ctypes, errno, os, signal
from superfs.mount.serve import stray_reads_interrupted

reader, writer = os.pipe()
held = ctypes.PyDLL(None, use_errno=True)  # calls with the interpreter's lock held, as pyfuse3
with stray_reads_interrupted(0.05):
    for _ in range(2):
        assert held.read(reader, ctypes.create_string_buffer(1), 1) == -1
        assert ctypes.get_errno() == errno.EINTR
assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0), "it would end the process at its end"
"""


def test_a_read_that_finds_nothing_does_not_hold_everything_up() -> None:
    """What the kernel announced is gone when its process was killed before it was read."""
    done = subprocess.run([sys.executable, "-c", READS], timeout=60, check=False)
    assert done.returncode == 0
