"""The KVCache pool, for processes that never met (docs/kvcache.md)."""

from superfs.core.kvcache.keys import Fingerprint, KeyChain
from superfs.kvcache.store import KVStore

__all__ = ["Fingerprint", "KVStore", "KeyChain"]
