"""Prompts served by vLLM, in its own Python: a job on standard input, what came of it as JSON.

{"model": directory, "dtype": …, "block": tokens, "pool": extra config or null,
 "rounds": [[prompt, …], …]}    a prompt is a list of tokens; those of a round go together
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

TOKENS = 8


def answer(output: Any) -> dict[str, Any]:  # noqa: ANN401
    (made,) = output.outputs
    chances = [
        sorted((token, one.logprob) for token, one in step.items()) for step in made.logprobs
    ]
    return {"tokens": list(made.token_ids), "cached": output.num_cached_tokens, "chances": chances}


def main() -> None:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams
    from vllm.config import KVTransferConfig

    job = json.load(sys.stdin)
    transfer = None
    if job["pool"]:
        transfer = KVTransferConfig(
            kv_connector="SuperFSConnector",
            kv_connector_module_path="superfs.kvcache.vllm",
            kv_role="kv_both",
            kv_load_failure_policy=job.get("failures", "recompute"),
            kv_connector_extra_config=job["pool"],
        )
    model = LLM(
        job["model"], load_format="dummy", skip_tokenizer_init=True, dtype=job["dtype"], seed=1,
        max_model_len=2048, enforce_eager=True, kv_transfer_config=transfer,
        disable_hybrid_kv_cache_manager=True, block_size=job["block"], max_num_seqs=4,
        max_num_batched_tokens=job.get("step", 2048),
    )  # fmt: skip
    sampling = SamplingParams(temperature=0.0, max_tokens=TOKENS, logprobs=3, detokenize=False)
    found = []
    for prompts in job["rounds"]:
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        found.append([answer(one) for one in model.generate(asked, sampling, use_tqdm=False)])
    print("ANSWERS " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
