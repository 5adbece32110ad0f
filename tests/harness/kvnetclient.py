"""A client of a KVCache pool on another host: a line on standard input is a verb and how many
blocks, a line on standard output how many of them it was, with the right bytes.

kvnetclient.py TARGET TOKEN_FILE BLOCK_BYTES
"""

from __future__ import annotations

import sys
from pathlib import Path

from superfs.client import ClientConfig
from superfs.kvcache import Fingerprint, KeyChain, KVStore

CHAIN = KeyChain(Fingerprint("w", "float32", 1, 1, 1, block_tokens=1))


def main() -> None:
    target, token, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with KVStore.open(
        ClientConfig(cluster=(target,), token_file=token), "net", CHAIN, shared=False
    ) as store:
        print("ready", flush=True)
        for line in sys.stdin:
            verb, count = line.split()
            keys = CHAIN.keys(range(int(count)))
            blocks = [(key * (size // 16 + 1))[:size] for key in keys]
            if verb == "put":
                found = store.put(keys, blocks)
            elif verb == "match":
                found = store.match(keys)
            else:
                got = store.get(keys)
                found = len(got) if got == blocks[: len(got)] else -1
            print(found, flush=True)


if __name__ == "__main__":
    main()
