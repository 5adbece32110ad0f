"""A conversation of several turns, served by a small model of Hugging Face transformers, with its
KVCache kept in a pool. Run it twice: the second process has never met the first, and computes less.

    superfs up --dir DIR ...     (with [kvcache] slab_bytes in DIR/config/datad-2.toml)
    python examples/kvcache_conversation.py --cluster unix:DIR/run/clusterd.sock \\
        --token-file DIR/token

Needs torch and transformers (`make .venv/.test`). The model is the small Llama of train_llama.py:
random, or with `--checkpoint` what that has saved (and with `--text` bytes of a file in place of
random ones for what is said to it). What matters is that its answers are the same with and without
the pool, to the last bit, and when the first token comes. `--kv-heads 8` has every head keys and
values of its own (MHA), 1 all of them the same (MQA).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import transformers

from superfs.checkpoint import SuperFSReader
from superfs.client import ClientConfig
from superfs.kvcache import KeyChain, KVStore, hf

BLOCK_TOKENS = 16
VOCABULARY = 259  # every byte, and three more


class Nothing:
    """A pool that never has anything."""

    def __init__(self, chain: KeyChain) -> None:
        self.chain = chain

    def get_parts(self, _keys: Any, _sizes: Any, room: Any, _arrived: Any) -> int:  # noqa: ANN401
        room(0)
        return 0

    def storing(self, _keys: Any, _count: int, _size: int) -> None:  # noqa: ANN401
        return None

    def behind(self, _work: Any, _works: Any) -> None:  # noqa: ANN401
        pass


def make_model(options: argparse.Namespace) -> Any:  # noqa: ANN401
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        hidden_size=options.hidden, intermediate_size=options.hidden * 11 // 4,
        num_hidden_layers=options.layers, num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads or options.heads // 2, vocab_size=VOCABULARY,
        max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(config).eval()
    if options.checkpoint is not None:
        state = {"model": model.state_dict()}
        dcp.load(state, storage_reader=SuperFSReader(options.checkpoint))
        model.load_state_dict(state["model"])
    return model


def said_to_it(options: argparse.Namespace) -> list[list[int]]:
    """The tokens of each turn."""
    size, turns = options.turn_tokens, options.turns
    if options.text is not None:
        data = options.text.read_bytes()
        if len(data) < size * turns:
            raise SystemExit(f"{options.text} has less than {size * turns} bytes")
        return [list(data[at : at + size]) for at in range(0, size * turns, size)]
    generator = torch.Generator().manual_seed(11)
    return torch.randint(VOCABULARY, (turns, size), generator=generator).tolist()


def answer(model: Any, tokens: list[int], store: Any, count: int) -> dict[str, Any]:  # noqa: ANN401
    started = time.perf_counter()
    filled = hf.prefill_with_store(model, tokens, store)
    said = [int(filled.logits.argmax())]
    first_token_s = time.perf_counter() - started
    with torch.no_grad():
        while len(said) < count:
            out = model(input_ids=torch.tensor([said[-1:]]), past_key_values=filled.cache)
            said.append(int(out.logits[0, -1].argmax()))
    digest = hashlib.sha256(filled.logits.numpy().tobytes()).hexdigest()[:16]
    return {
        "prompt_tokens": len(tokens), "restored_tokens": filled.restored_tokens,
        "first_token_ms": round(first_token_s * 1000, 1), "answer": said, "logits": digest,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="of train_llama.py: one step's directory")
    parser.add_argument("--text", type=Path, help="what is said to it, byte by byte")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=0, help="half of the heads by default")
    parser.add_argument("--namespace", default="example", help="one for each model")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--turn-tokens", type=int, default=480)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = make_model(options)
    chain = KeyChain(hf.fingerprint(model, block_tokens=BLOCK_TOKENS), salt=b"example")
    config = ClientConfig(cluster=(options.cluster,), token_file=options.token_file)
    tokens: list[int] = []
    turns = []
    with KVStore.open(config, options.namespace, chain) as store:
        for turn, said in enumerate(said_to_it(options)):
            tokens += said
            without = answer(model, tokens, Nothing(chain), 4)
            found = answer(model, tokens, store, 4)
            found |= {f"{name}_without": without[name] for name in ("answer", "logits")}
            found["first_token_ms_without"] = without["first_token_ms"]
            turns.append(found)
            if not options.json:
                print(
                    f"turn {turn + 1}: answers {found['answer']}; "
                    f"{found['prompt_tokens']:5} tokens, {found['restored_tokens']:5} from the "
                    "pool; first token after "
                    f"{found['first_token_ms']:7} ms, {without['first_token_ms']:7} ms without; "
                    f"the same: {found['logits'] == without['logits']}"
                )
            tokens += found["answer"]
    if options.json:
        print(json.dumps(turns))


if __name__ == "__main__":
    main()
