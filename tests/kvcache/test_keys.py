"""Keys: the same in every process and for ever, different for whatever makes different bytes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.keys import Fingerprint, KeyChain, token_bytes

TOP = Path(__file__).parents[2]
MODEL = Fingerprint(
    weights="sha256:0123", dtype="bfloat16", layers=4, kv_heads=2, head_dim=64, block_tokens=4,
    rope={"type": "llama3", "theta": 500000.0, "factor": 8.5, "ranges": [1, 2]},
)  # fmt: skip
TOKENS = [1, 2, 3, 4, 5, 70_000, 0xFFFFFFFF, 0, 9]
CANONICAL = (
    b'{"block_tokens":4,"dtype":"bfloat16","extra":{},"head_dim":64,"kv_heads":2,"layers":4,'
    b'"lora":"","rope":{"factor":8.5,"ranges":[1,2],"theta":500000,"type":"llama3"},'
    b'"shard":[0,1,0,1],"weights":"sha256:0123"}'
)
GOLDEN = {
    "seed": "a1d7e34b6e721d507762e0b381be80f7",
    "first": "aa5b37bbbfcfd73f2137caf8056e2147",
    "second": "45ff406852b79b681fbe7037dc6b7ff2",
    "salted": "8a96f772422e87f82ef5710f19b25c7c",
    "extra": "d9959b74f215a044b20bbf6087c22a47",
}


def _vectors() -> dict[str, str]:
    plain, salted = KeyChain(MODEL), KeyChain(MODEL, b"tenant")
    first, second = plain.keys(TOKENS)
    return {
        "seed": plain.seed.hex(),
        "first": first.hex(),
        "second": second.hex(),
        "salted": salted.keys(TOKENS)[1].hex(),
        "extra": plain.keys(TOKENS, {0: b"image"})[1].hex(),
    }


def test_golden_vectors() -> None:
    assert MODEL.canonical() == CANONICAL
    assert token_bytes([1, 70_000]) == bytes([1, 0, 0, 0, 0x70, 0x11, 1, 0])
    assert _vectors() == GOLDEN


def test_another_process_makes_the_same_keys() -> None:
    """Whatever its hash seed, and whatever order its dictionaries have."""
    program = (
        "from superfs.core.kvcache.keys import *\n"
        "rope = {'ranges': (1, 2), 'theta': 500000, 'factor': 8.5, 'type': 'llama3'}\n"
        "model = Fingerprint('sha256:0123', 'bfloat16', 4, 2, 64, 4, rope)\n"
        f"print(KeyChain(model).keys({TOKENS})[1].hex())"
    )
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(TOP / "proto")}
        run = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == GOLDEN["second"]


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "sha256:0124"}, {"dtype": "float16"}, {"layers": 5}, {"kv_heads": 4},
        {"head_dim": 32}, {"rope": {}}, {"shard": (0, 2, 0, 1)}, {"shard": (1, 2, 0, 1)},
        {"lora": "a"}, {"extra": {"mm": "v1"}},
    ],
)  # fmt: skip
def test_whatever_changes_the_bytes_changes_every_key(change: dict[str, object]) -> None:
    other = dataclasses.replace(MODEL, **change)  # type: ignore[arg-type]
    ours, theirs = KeyChain(MODEL).keys(TOKENS), KeyChain(other).keys(TOKENS)
    assert not set(ours) & set(theirs)


def test_a_key_stands_for_its_whole_prefix() -> None:
    chain = KeyChain(MODEL)
    keys = chain.keys(TOKENS)
    assert len(keys) == 2, "full blocks only"
    assert chain.keys([*TOKENS[:7], 7])[0] == keys[0]
    assert chain.keys([*TOKENS[:7], 7])[1] != keys[1]
    assert chain.keys([7, *TOKENS[1:]])[1] != keys[1]
    with_image = chain.keys(TOKENS, {1: b"image"})
    assert with_image[0] == keys[0]
    assert with_image[1] != keys[1]
    assert not set(KeyChain(MODEL, b"a").keys(TOKENS)) & set(KeyChain(MODEL, b"b").keys(TOKENS))


@pytest.mark.parametrize("tokens", [[-1, 0, 0, 0], [1 << 32, 0, 0, 0], [1.5, 0, 0, 0]])
def test_what_is_no_token(tokens: list[int]) -> None:
    with pytest.raises(FsError) as caught:
        KeyChain(MODEL).keys(tokens)
    assert caught.value.code is Code.INVALID


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, b"raw", object()])
def test_what_has_no_canonical_form(value: object) -> None:
    with pytest.raises(FsError):
        dataclasses.replace(MODEL, extra={"it": value}).canonical()  # type: ignore[dict-item]


def test_a_block_has_a_size() -> None:
    for size in (0, 4097):
        with pytest.raises(FsError):
            dataclasses.replace(MODEL, block_tokens=size)
    with pytest.raises(FsError):
        KeyChain(MODEL).next(b"short", TOKENS[:4])
    with pytest.raises(FsError):
        KeyChain(MODEL).next(bytes(16), TOKENS[:3])
    with pytest.raises(FsError):
        KeyChain(MODEL).next(bytes(16), TOKENS[:4], bytes(4097))
    with pytest.raises(FsError):
        KeyChain(MODEL, bytes(257))
