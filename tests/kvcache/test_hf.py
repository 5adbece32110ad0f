"""Real models of transformers in front of a real pool: the same bits with and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from superfs.client import ClientConfig
from superfs.core.errors import FsError
from superfs.core.limits import KIB, MIB
from superfs.kvcache import KeyChain
from superfs.kvcache.store import KVStore

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from superfs.kvcache import hf  # noqa: E402 - it needs both

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[2]
BLOCK = 8
HEADS = 4
VOCABULARY = 101
MODELS = [
    pytest.param(kv_heads, dtype, id=f"{name}-{dtype}")
    for kv_heads, name in ((4, "mha"), (2, "gqa"), (1, "mqa"))
    for dtype in ("float32", "bfloat16", "float16")
]


def make_model(
    kv_heads: int = 2, dtype: str = "float32", seed: int = 1, **more: Any  # noqa: ANN401
) -> Any:  # noqa: ANN401  # fmt: skip
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=HEADS,
        num_key_value_heads=kv_heads, vocab_size=VOCABULARY, max_position_embeddings=512, **more,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()


def prompt(count: int, seed: int = 5) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    found: list[int] = torch.randint(VOCABULARY, (count,), generator=generator).tolist()
    return found


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {
        "slab_bytes": 32 * MIB, "slab_dir": str(tmp_path_factory.mktemp("slab")),
        "granule_bytes": 4 * KIB, "disk_bytes": 64 * MIB, "disk_segment_bytes": 16 * MIB,
        "disk_free_bytes_min": 0,
    }  # fmt: skip
    with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
        yield cluster


@pytest.fixture
def store(pooled: Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[..., KVStore]]:
    """Opens the store of a model in the namespace of this test, for a tenant."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:60].strip("-")
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    with ExitStack() as opened:

        def make(
            model: Any, salt: bytes = b"", bytes_per_s: float = 0, **more: Any  # noqa: ANN401
        ) -> KVStore:  # fmt: skip
            more.setdefault("block_tokens", BLOCK)
            chain = KeyChain(hf.fingerprint(model, **more), salt)
            return opened.enter_context(KVStore.open(config, name, chain, bytes_per_s=bytes_per_s))

        yield make
    assert not pooled.trouble()


class Counted:
    """How many tokens went through a model."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self.tokens = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _model: Any, _args: Any, kwargs: Any) -> None:  # noqa: ANN401
        self.tokens += kwargs["input_ids"].shape[1]


def in_chunks(model: Any, tokens: list[int], chunk: int) -> tuple[Any, Any]:  # noqa: ANN401
    """Without us: the cache, and the logits of the last token."""
    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad():
        for start in range(0, len(tokens), chunk):
            part = torch.tensor([tokens[start : start + chunk]])
            out = model(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache, out.logits[0, -1]


def same(filled: hf.Prefill, cache: Any, logits: Any) -> bool:  # noqa: ANN401
    """To the last bit."""
    if not torch.equal(filled.logits, logits):
        return False
    return all(
        torch.equal(mine.keys, other.keys) and torch.equal(mine.values, other.values)
        for mine, other in zip(filled.cache.layers, cache.layers, strict=True)
    )


@pytest.mark.parametrize("chunk", [BLOCK, 3 * BLOCK])
@pytest.mark.parametrize(("kv_heads", "dtype"), MODELS)
def test_the_same_bits(
    store: Callable[..., KVStore], kv_heads: int, dtype: str, chunk: int
) -> None:
    model = make_model(kv_heads, dtype)
    counted = Counted(model)
    one = store(model, chunk_tokens=chunk)
    tokens = prompt(133)
    cache, logits = in_chunks(model, tokens, chunk)
    counted.tokens = 0
    first = hf.prefill_with_store(model, tokens, one)
    assert (first.restored_tokens, first.computed_tokens) == (0, 133)
    assert counted.tokens == 133
    assert same(first, cache, logits)
    whole = 133 // chunk * chunk
    assert first.stored_tokens == whole
    counted.tokens = 0
    again = hf.prefill_with_store(model, tokens, one)
    assert (again.restored_tokens, again.computed_tokens) == (whole, 133 - whole)
    assert counted.tokens == 133 - whole, "nothing that was stored went through the model"
    assert same(again, cache, logits)
    longer = tokens + prompt(70, seed=6)
    third = hf.prefill_with_store(model, longer, store(model, chunk_tokens=chunk))
    assert third.restored_tokens == whole
    assert same(third, *in_chunks(model, longer, chunk))


def test_a_part_that_is_stored(store: Callable[..., KVStore]) -> None:
    """The end of a chunk is missing: it is computed whole, and stored."""
    model = make_model()
    one = store(model, chunk_tokens=4 * BLOCK)
    tokens = prompt(150)
    hf.prefill_with_store(model, tokens, one)
    keys = one.chain.keys(tokens)
    assert one.remove(keys[10:11]) == 6
    again = hf.prefill_with_store(model, tokens, one)
    assert (again.restored_tokens, again.stored_tokens) == (64, 128)
    assert same(again, *in_chunks(model, tokens, 4 * BLOCK))
    assert hf.prefill_with_store(model, tokens, one).restored_tokens == 128


def test_storing_goes_on_behind(store: Callable[..., KVStore]) -> None:
    """Nobody waits for it but who asks the store for something else."""
    model = make_model()
    slow, tokens = store(model, bytes_per_s=400e3), prompt(150)
    keys = slow.chain.keys(tokens)
    filled = hf.prefill_with_store(model, tokens, slow)
    assert not filled._stored.done(), "some 200 ms of bytes"
    assert slow.match(keys) == len(keys)
    assert filled._stored.done()
    assert slow.remove(keys[:1]) == len(keys)
    filled = hf.prefill_with_store(model, tokens, slow)
    slow.close()
    assert filled._stored.done()
    assert filled.stored_tokens == 144
    assert store(model).match(keys) == len(keys)


def test_one_shot_has_the_same_tokens(store: Callable[..., KVStore]) -> None:
    model = make_model()
    one = store(model)
    tokens = prompt(200)
    hf.prefill_with_store(model, tokens, one)
    filled = hf.prefill_with_store(model, tokens, one)
    assert filled.restored_tokens == 192
    with torch.no_grad():
        whole = model(input_ids=torch.tensor([tokens])).logits[0, -1]
    torch.testing.assert_close(filled.logits, whole, rtol=1e-4, atol=1e-5)
    ids = torch.tensor([tokens])
    plain = model.generate(ids, max_new_tokens=24, do_sample=False, pad_token_id=0)
    filled.cache.crop(-1)  # generate wants a token to begin with
    ours = model.generate(
        ids, past_key_values=filled.cache, max_new_tokens=24, do_sample=False, pad_token_id=0
    )
    assert torch.equal(plain, ours)


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_short_prompts(store: Callable[..., KVStore], count: int) -> None:
    model = make_model()
    one = store(model)
    for _ in range(2):
        filled = hf.prefill_with_store(model, prompt(count), one)
        assert same(filled, *in_chunks(model, prompt(count), BLOCK))
    assert filled.restored_tokens == (count - 1) // BLOCK * BLOCK
    assert filled.stored_tokens == count // BLOCK * BLOCK


def test_others_find_nothing(store: Callable[..., KVStore]) -> None:
    model = make_model()
    tokens = prompt(100)
    hf.prefill_with_store(model, tokens, store(model))
    assert hf.prefill_with_store(model, tokens, store(model)).restored_tokens == 96
    other = store(model, salt=b"another tenant")
    filled = hf.prefill_with_store(model, tokens, other)
    assert filled.restored_tokens == 0
    changed = make_model(seed=2)
    with pytest.raises(FsError, match="layout"):
        store(changed)
    with pytest.raises(FsError, match="another model"):
        hf.prefill_with_store(make_model(kv_heads=4), tokens, other)
    assert hf.weights_hash(model) == hf.weights_hash(make_model())
    with torch.no_grad():
        next(model.parameters()).view(-1)[17] += 1e-3
    assert hf.weights_hash(model) != hf.weights_hash(make_model())


def test_what_is_not_supported(store: Callable[..., KVStore]) -> None:
    model = make_model()
    one = store(model)
    with pytest.raises(FsError, match="at least one token"):
        hf.prefill_with_store(model, [], one)
    model.train()
    with pytest.raises(FsError, match="training"):
        hf.prefill_with_store(model, prompt(9), one)
    with pytest.raises(FsError, match="multiple"):
        hf.fingerprint(model, block_tokens=8, chunk_tokens=12)
    dynamic = make_model(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    with pytest.raises(FsError, match="depend on more"):
        hf.fingerprint(dynamic)
    sliding = transformers.MistralForCausalLM(
        transformers.MistralConfig(
            hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=VOCABULARY, sliding_window=16,
        )
    ).eval()  # fmt: skip
    name = KeyChain(hf.fingerprint(sliding, block_tokens=BLOCK))
    config = ClientConfig(cluster=one._config.cluster, token_file=one._config.token_file)
    with (
        KVStore.open(config, "sliding", name) as two,
        pytest.raises(FsError, match="full attention"),
    ):
        hf.prefill_with_store(sliding, prompt(9), two)


@pytest.mark.parametrize("what", ["flipped", "killed", "machine lost"])
def test_faults_never_change_what_comes_out(
    pooled: Cluster, store: Callable[..., KVStore], what: str
) -> None:
    model = make_model()
    one = store(model, salt=what.encode())
    tokens = prompt(300)
    cache, logits = in_chunks(model, tokens, BLOCK)
    stored = hf.prefill_with_store(model, tokens, one)
    assert one.persist(one.chain.keys(tokens)) == stored.stored_tokens // BLOCK
    slab_dir = Path(pooled.settings["datad"]["kvcache"]["slab_dir"])
    if what == "flipped":
        (slab,) = slab_dir.glob("*.slab")
        raw = slab.read_bytes()
        block = one.get(one.chain.keys(tokens))[20]
        at = raw.find(block)
        while at >= 0:  # other tests have stored the same
            with slab.open("r+b") as file:
                file.seek(at + 1000)
                file.write(bytes([block[1000] ^ 1]))
            at = raw.find(block, at + 1)
        filled = hf.prefill_with_store(model, tokens, one)
        assert filled.restored_tokens == 20 * BLOCK
        assert same(filled, cache, logits)
    else:
        pooled.datad.kill()
        alone = hf.prefill_with_store(model, tokens, one)
        if what == "machine lost":
            for path in slab_dir.iterdir():
                path.unlink()
        pooled.start(["datad-2"])
        assert same(alone, cache, logits)
    filled = hf.prefill_with_store(model, tokens, one)
    assert filled.restored_tokens == 296
    assert same(filled, cache, logits)


def converse(pooled: Cluster, *words: object) -> list[dict[str, Any]]:
    """The example, in a process of its own."""
    command = [
        sys.executable, TOP / "examples" / "kvcache_conversation.py",
        "--cluster", pooled.target("clusterd"), "--token-file", pooled.token_file,
        "--layers", 2, "--hidden", 64, "--turns", 3, "--turn-tokens", 60, "--json", *words,
    ]  # fmt: skip
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120,
        env=dict(os.environ), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    turns: list[dict[str, Any]] = json.loads(done.stdout)
    return turns


def served_twice(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    """The second time with everything that the first has left, and the same bits."""
    return (
        [turn["restored_tokens"] for turn in first] == [0, 48, 112]
        and [turn["restored_tokens"] for turn in second] == [48, 112, 176]
        and all(
            one["answer"] == two["answer"] == one["answer_without"]
            and one["logits"] == two["logits"] == one["logits_without"]
            for one, two in zip(first, second, strict=True)
        )
    )


@pytest.mark.parametrize("kv_heads", [8, 2, 1], ids=["mha", "gqa", "mqa"])
def test_processes_that_never_met(pooled: Cluster, kv_heads: int) -> None:
    """A conversation served twice."""
    words = ("--kv-heads", kv_heads, "--namespace", f"example-{kv_heads}")
    assert served_twice(converse(pooled, *words), converse(pooled, *words))


def test_the_model_that_was_trained(pooled: Cluster, tmp_path: Path) -> None:
    """Its checkpoint is served as it was saved."""
    training = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1",
        TOP / "examples" / "train_llama.py", "--checkpoints", tmp_path, "--steps", 1,
        "--save-every", 1, "--hidden", 64, "--layers", 2, "--quiet", TOP / "README.md",
    ]  # fmt: skip
    subprocess.run([str(word) for word in training], check=True, timeout=120, capture_output=True)
    words: list[object] = ["--text", TOP / "README.md", "--namespace", "trained"]
    words += ["--checkpoint", tmp_path / "step-00000001"]
    first, second = (converse(pooled, *words) for _ in range(2))
    assert served_twice(first, second)
    untrained = converse(pooled, *words[:2], "--namespace", "untrained")
    assert [turn["logits"] for turn in untrained] != [turn["logits"] for turn in first]
