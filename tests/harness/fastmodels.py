"""Small models with random weights, what plain transformers says of them, and R-workers as
processes."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
import transformers

from harness import zygote
from harness.daemon import Daemon
from harness.waiting import wait_until
from superfs.core.limits import MIB
from superfs.kvcache.fastdecode.link import LocalLink, SharedLink
from superfs.kvcache.fastdecode.streamlink import StreamLink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from superfs.kvcache.fastdecode.smodel import SModel

VOCABULARY = 301
TOKENS_MAX = 512
BATCH = 12
SECRET = b"what two hosts share"
CLOSE = 1e-3
"""Two best logits that differ by less may come out the other way round."""


def make_model(
    kind: str = "llama", dtype: str = "float32", seed: int = 1, **more: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401  # fmt: skip
    torch.manual_seed(seed)
    name = {"llama": "Llama", "qwen3": "Qwen3", "qwen2": "Qwen2", "mistral": "Mistral"}[kind]
    sizes = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048, "head_dim": 16, "sliding_window": None,
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**(sizes | more))
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():  # so that logits are not all alike
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return model.to(getattr(torch, dtype)).eval()


def make_prompt(count: int, seed: int = 5) -> list[int]:
    generator = torch.Generator().manual_seed(1000 * count + seed)
    found: list[int] = torch.randint(VOCABULARY, (count,), generator=generator).tolist()
    return found


class Plain:
    """A model alone, with one prompt: what everybody else must come to."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._model = model
        self.close = 0  # answers that went another way where two tokens were all but equal
        self.checked = 0

    def check(self, prompt: Sequence[int], generated: Sequence[int]) -> None:
        """Step for step, up to where two tokens are all but equal."""
        self.checked += 1
        with torch.no_grad():
            whole = torch.tensor([[*prompt, *generated]])
            logits = self._model(input_ids=whole).logits[0, len(prompt) - 1 : -1].float()
        for at, token in enumerate(generated):
            best = logits[at].topk(2)
            if int(best.indices[0]) == token:
                continue
            assert float(best.values[0] - best.values[1]) < CLOSE, (at, token, best)
            assert token == int(best.indices[1])
            self.close += 1
            return


def local(part: SModel, **more: Any) -> LocalLink:  # noqa: ANN401
    sizes = {
        "rows": BATCH, "minis": 2, "slots": BATCH, "tokens_max": TOKENS_MAX,
        "memory_bytes": 8 * MIB,
    }  # fmt: skip
    return LocalLink(part.form, **(sizes | more))


class Workers:
    """R-workers on this host, each a process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._opened = ExitStack()
        self.daemons: dict[str, Daemon] = {}
        self.addresses: dict[str, str] = {}  # for other hosts

    def start(
        self, name: str, *, wrap: Any = None, **settings: Any,  # noqa: ANN401
    ) -> Path:  # fmt: skip
        """Its socket. `wrap`: of its command, to run it elsewhere."""
        path = self._directory / f"{name}.sock"
        settings = {
            "socket": str(path), "memory_bytes": 16 * MIB, "threads": 1, "lease_s": 30.0,
            "kernel_dir": os.path.expanduser("~/.cache/superfs/kernels"),
        } | settings  # fmt: skip
        if "listen" in settings:
            secret = self._directory / "secret"
            secret.touch(0o600)
            secret.write_bytes(SECRET)
            settings["secret_file"] = str(secret)
        lines = [
            f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in settings.items()
        ]
        config = self._directory / f"{name}.toml"
        config.write_text("\n".join(["[rworker]", *lines, ""]))
        command = [str(zygote.BIN / "superfs-rworker"), "--config", str(config)]
        command = wrap(command) if wrap is not None else command
        daemon = Daemon(name, command, self._directory / f"{name}.log", executed=True)
        daemon.start()
        self.daemons[name] = daemon
        self._opened.callback(self._end, daemon)
        wait_until(lambda: "serving at" in daemon.tail() or not daemon.running, name)
        assert daemon.running, daemon.tail()
        found = re.search(r" and (\S+:\d+): ", daemon.tail())
        self.addresses[name] = found[1] if found else ""
        return path

    @staticmethod
    def _end(daemon: Daemon) -> None:
        if daemon.running:
            os.kill(daemon.pid, signal.SIGCONT)
            daemon.stop()

    def stream(self, part: SModel, name: str, **more: Any) -> StreamLink:  # noqa: ANN401
        """To one that was started with listen="127.0.0.1:0"."""
        sizes: dict[str, Any] = {"rows": BATCH, "minis": 2, "slots": BATCH}
        sizes |= {"tokens_max": TOKENS_MAX, "secret": SECRET}
        return StreamLink(self.addresses[name], part.form, **(sizes | more))

    def link(self, part: SModel, name: str, **more: Any) -> SharedLink:  # noqa: ANN401
        sizes = {"rows": BATCH, "minis": 2, "slots": BATCH, "tokens_max": TOKENS_MAX}
        return SharedLink(self._directory / f"{name}.sock", part.form, **(sizes | more))

    def close(self) -> None:
        self._opened.close()
