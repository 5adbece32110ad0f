"""What the checkpoint format and its writers keep to, with units, and what follows from it."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

BLOCK_BYTES = 4 * MIB
"""One xxh3 each; what has to be read to verify any byte of it."""
PIECE_BYTES_MIN = 256 * KIB
"""No cut leaves less of a shard on one side of it."""
ALIGN_BYTES = 4 * KIB
"""Pieces begin at such offsets in their file, and cuts lie at such offsets in their shard, which
keeps every element whole: no item has more than 16 bytes."""
BALANCE_SLACK_BYTES = 1 * MIB
BALANCE_SLACK_RATIO = 0.02

SAMPLE_BYTES = 4 * KIB
SAMPLES_PER_TENSOR = 8

ARENA_STEP_BYTES = 64 * MIB
ARENA_BYTES_MIN = BLOCK_BYTES
"""A wave of a save that does not fit the arena at once ends at a block."""
HOST_WINDOW_BYTES = 256 * MIB
"""Shared memory of a host through which ranks hand each other what they read."""
READ_THREADS_MIN = 2  # where storage is waited for
READ_THREADS_MAX = 4
READ_HOT_BYTES = 512 * KIB
"""Read and hashed at a time: it and the pages that it comes from fit the cache of a core, and the
calls for it cost little beside the copy."""
READ_BATCH_BYTES = 4 * MIB
"""Neighbours in a file are read by one call, up to so many bytes."""
READ_BATCH_BLOCKS = 256
PROBES = 32
PLANS_CACHED_MAX = 8

assert BLOCK_BYTES % ALIGN_BYTES == 0
assert PIECE_BYTES_MIN % ALIGN_BYTES == 0


def aligned(offset: int) -> int:
    return -(-offset // ALIGN_BYTES) * ALIGN_BYTES
