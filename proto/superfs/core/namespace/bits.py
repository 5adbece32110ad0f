"""The flags of core/attrs.py as plain numbers. An operation of an IntFlag makes a new enum member,
which costs more than a rule's look into the store; and attributes shall hold plain numbers."""

from __future__ import annotations

from superfs.core.attrs import Flag, Set

INLINE = int(Flag.INLINE)
HAS_XATTR = int(Flag.HAS_XATTR)
HAS_ACL = int(Flag.HAS_ACL)
HAS_DEFAULT_ACL = int(Flag.HAS_DEFAULT_ACL)
TRUNCATING = int(Flag.TRUNCATING)
MULTI = int(Flag.MULTI)
HAS_CAPABILITY = int(Flag.HAS_CAPABILITY)
ACL_FLAGS = HAS_ACL | HAS_DEFAULT_ACL

SET_MODE = int(Set.MODE)
SET_UID = int(Set.UID)
SET_GID = int(Set.GID)
SET_SIZE = int(Set.SIZE)
SET_ATIME = int(Set.ATIME)
SET_MTIME = int(Set.MTIME)
SET_ATIME_NOW = int(Set.ATIME_NOW)
SET_MTIME_NOW = int(Set.MTIME_NOW)
SET_KILL_PRIV = int(Set.KILL_PRIV)
