"""Every limit, with its unit in its name and the relations between them asserted."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# names and records
NAME_BYTES_MAX = 255
SYMLINK_BYTES_MAX = 4095
XATTR_NAME_BYTES_MAX = 255
XATTR_VALUE_BYTES_MAX = 64 * KIB
XATTR_LIST_BYTES_MAX = 64 * KIB
LINKS_MAX = 65_000
CHAINS_PER_FILE_MAX = 16
INLINE_BYTES_MAX = 8160
"""Small files live in the metadata store up to this size: record, header and checksum together
stay within two 4,096-byte pages of LMDB (and within one up to 4,072 bytes)."""

# chunks and extents
CHUNK_BYTES = 4 * MIB
CHUNKS_MAX = 1 << 32
"""Chunk indexes are 32 bits on the wire: files end at 16 PiB."""
BLOCK_BYTES = 16 * KIB
"""One crc32c each."""
SEGMENT_BYTES = 64 * MIB
PAGE_BYTES = 4 * KIB
"""What lies in a lent segment begins at a multiple of it, with one for its head in front."""
EXTENTS_PER_CHUNK_MAX = 64
FILE_DATA_BYTES_MAX = CHUNK_BYTES * CHUNKS_MAX

# messages
MESSAGE_DATA_BYTES_MAX = 1 * MIB
PLACED_BYTES_MAX = 2 * MIB
"""Of one write that a client has placed itself: it can still be carried, as several."""
MESSAGE_BYTES_MAX = 4 * MIB
BATCH_OPS_MAX = 1024
LISTING_ENTRIES_MAX = 4096
LISTING_BYTES_MAX = 2 * MIB
MANY_ENTRIES_MAX = 4096
REMOVE_TREE_ENTRIES_MAX = 2048
TOUCH_INODES_MAX = 1024
RESERVE_COUNT_MAX = 65_536
RESERVE_GENERATIONS_MAX = 65_536
GENERATION_RUNS_MAX = 4
"""Reservations of generations that a session has at a time; a further one ends the oldest."""
LOG_ENTRIES_MAX = 4096
GROUPS_MAX = 65_536
TOKEN_BYTES_MAX = 8 * KIB
REQUESTS_PER_MESSAGE_MAX = 64
LOCATE_CHUNKS_MAX = 64
LOCATE_EXTENTS_MAX = 4096
LOCATE_FILES_MAX = 1024
DESCRIPTORS_PER_MESSAGE_MAX = 16
BUFFER_BYTES_MAX = 64 * MIB
KV_KEYS_MAX = 1024

# logs of clients
LOG_BYTES_MAX = 64 * MIB
LOG_CHANGES_MAX = 4096
"""Of what a client has done by itself and not shipped: then its programs wait."""
LOG_ROOM_BYTES = 2 * (LOG_BYTES_MAX + LOG_CHANGES_MAX * KIB)
"""What that may take in the store of a metadata daemon; it is kept free for each such client."""

PROMISE_BYTES_MAX = LOG_BYTES_MAX + 2 * LOG_CHANGES_MAX * KIB
"""What contents of new files that a client has not sent yet may take at a data daemon: they, their
heads, and the ends of segments."""

# bounded cache directories
CACHE_BYTES_MAX = 1 << 60
CACHE_TTL_S_MAX = 10 * 366 * 86_400
CACHES_MAX = 1024
"""Of one metadata daemon."""

# sessions
REPLY_WINDOW_OPS = 4096
OPEN_PER_SESSION_MAX = 1 << 17
SESSIONS_MAX = 65_536
DEAD_SESSIONS_MAX = 64
"""That one hello may bury."""
PROTOCOL_VERSION = 1

assert CHUNK_BYTES % BLOCK_BYTES == 0
assert SEGMENT_BYTES % CHUNK_BYTES == 0
assert BLOCK_BYTES % PAGE_BYTES == 0
assert INLINE_BYTES_MAX < BLOCK_BYTES
assert MESSAGE_DATA_BYTES_MAX <= CHUNK_BYTES
assert MESSAGE_DATA_BYTES_MAX + 64 * KIB < MESSAGE_BYTES_MAX
assert PLACED_BYTES_MAX + 64 * KIB < MESSAGE_BYTES_MAX
assert CHUNK_BYTES % PLACED_BYTES_MAX == 0
assert LISTING_BYTES_MAX < MESSAGE_BYTES_MAX
assert BATCH_OPS_MAX <= REPLY_WINDOW_OPS
assert OPEN_PER_SESSION_MAX * 26 < MESSAGE_BYTES_MAX, "a hello names all of them, 26 bytes each"
