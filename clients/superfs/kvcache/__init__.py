"""The KVCache pool: keys of prefixes, and the simulator of what a pool keeps (docs/kvcache.md)."""

from superfs.core.kvcache.keys import Fingerprint, KeyChain

__all__ = ["Fingerprint", "KeyChain"]
