"""A file of prompts through an engine: `superfs kv generate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.keys import KeyChain
from superfs.kvcache.fastdecode.engine import Engine
from superfs.kvcache.fastdecode.frames import read_secret, split_address
from superfs.kvcache.fastdecode.link import LocalLink, SharedLink
from superfs.kvcache.fastdecode.placing import EngineConfig
from superfs.kvcache.fastdecode.pool import Pool, fingerprint
from superfs.kvcache.fastdecode.smodel import SModel
from superfs.kvcache.fastdecode.streamlink import StreamLink
from superfs.kvcache.store import KVStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.client import ClientConfig
    from superfs.kvcache.fastdecode.form import Form
    from superfs.kvcache.fastdecode.link import Link
    from superfs.kvcache.fastdecode.requests import Request
    from superfs.kvcache.fastdecode.sampling import Sampling

LINE_BYTES_MAX = 16 << 20
PROMPTS_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Loaded:
    model: Any
    tokenizer: Any  # None: there is none

    @property
    def ends(self) -> list[int]:
        found = getattr(self.model.generation_config, "eos_token_id", None)
        return [] if found is None else [found] if isinstance(found, int) else list(found)

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text


def load(directory: Path, device: str = "cpu") -> Loaded:
    """A model that transformers has saved. Nothing is fetched from anywhere."""
    if not (directory / "config.json").is_file():
        raise FsError(Code.NOT_FOUND, f"{directory} has no config.json: it is no saved model")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, local_files_only=True, dtype="auto"
    )
    tokenizer = None
    if (directory / "tokenizer_config.json").is_file():
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    return Loaded(model.eval().to(device), tokenizer)


def read_prompts(path: Path, loaded: Loaded) -> list[list[int]]:
    """One a line: plain text; or an object of JSON with "prompt", or with "tokens"."""
    found: list[list[int]] = []
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX + 1), b""), 1):
            if len(line) > LINE_BYTES_MAX or len(found) >= PROMPTS_MAX:
                raise FsError(
                    Code.TOO_LARGE, f"{path}:{number}: up to {PROMPTS_MAX} lines of up to "
                    f"{LINE_BYTES_MAX} bytes",
                )  # fmt: skip
            if line.strip():
                found.append(_tokens(line, loaded, f"{path}:{number}"))
    if not found:
        raise FsError(Code.INVALID, f"{path} has no prompts")
    return found


def _tokens(line: bytes, loaded: Loaded, where: str) -> list[int]:
    try:
        text: Any = line.decode().rstrip("\r\n")
        if text.startswith("{"):
            given = json.loads(text)
            if "tokens" in given:
                return [int(token) for token in given["tokens"]]
            text = given["prompt"]
        if not isinstance(text, str):
            raise TypeError("the prompt is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise FsError(
            Code.INVALID,
            f'{where}: not text, {{"prompt": …}} or {{"tokens": […]}}: {error}',
        ) from None
    if loaded.tokenizer is None:
        raise FsError(Code.INVALID, f'{where}: the model has no tokenizer: give {{"tokens": […]}}')
    return [int(token) for token in loaded.tokenizer(text)["input_ids"]]


@dataclass(frozen=True, slots=True)
class Where:
    """R-workers, and what stays in this process."""

    rworkers: Sequence[str]  # paths of sockets on this host, HOST:PORT elsewhere
    storage: str = ""
    memory_bytes: int = 0  # of this process; 0: none, unless there are no R-workers
    local_share: float = 0.0
    threads: int = 1
    secret_file: Path | None = None  # for those elsewhere


DEFAULT_MEMORY_BYTES = 1 << 30


def open_store(loaded: Loaded, namespace: str, cluster: ClientConfig) -> KVStore:
    """Of a KVCache pool, for `engine_of`."""
    chain = KeyChain(fingerprint(loaded.model, chunk_tokens=EngineConfig().chunk_tokens))
    return KVStore.open(cluster, namespace, chain)


def engine_of(
    loaded: Loaded, where: Where, *, batch: int, tokens_max: int, store: KVStore | None = None
) -> Engine:
    part = SModel(loaded.model, storage=where.storage)
    minis = 2 if where.rworkers and batch > 1 else 1
    config = EngineConfig(
        batch=batch, minis=minis, tokens_max=tokens_max, local_share=where.local_share
    )
    links: list[Link] = []
    try:
        sizes = {"rows": config.rows, "minis": minis, "slots": batch, "tokens_max": tokens_max}
        for name in where.rworkers:
            links.append(_link(name, where.secret_file, part.form, sizes))
        if where.local_share or not links:
            memory = where.memory_bytes or DEFAULT_MEMORY_BYTES
            here = LocalLink(
                part.form, rows=config.rows, minis=minis, slots=batch, tokens_max=tokens_max,
                memory_bytes=memory, threads=where.threads,
            )  # fmt: skip
            links.append(here)
        decode = loaded.decode if loaded.tokenizer is not None else None
        pool = Pool(store, part) if store is not None else None
        return Engine(part, links, config, ends=loaded.ends, decode=decode, pool=pool)
    except BaseException:
        for link in links:
            link.close()
        raise


def _link(name: str, secret_file: Path | None, form: Form, sizes: dict[str, int]) -> Link:
    if "/" in name:
        return SharedLink(Path(name), form, **sizes)
    split_address(name)
    if secret_file is None:
        raise FsError(Code.INVALID, f"{name} is on another host: give --secret-file")
    return StreamLink(name, form, secret=read_secret(secret_file), **sizes)


def generate(
    engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling],
    told: Callable[[int, int], None],
) -> Iterator[tuple[int, Request]]:  # fmt: skip
    """Each with its number, as it ends. `told`: requests that have ended, tokens so far."""
    waiting = dict(enumerate(map(engine.submit, prompts, sampling)))
    ended = 0
    while waiting:
        engine.advance()
        for number in [n for n, request in waiting.items() if request.finish]:
            ended += 1
            yield number, waiting.pop(number)
        told(ended, engine.figures.decoded_tokens)


def as_dict(number: int, request: Request, loaded: Loaded) -> dict[str, Any]:
    found: dict[str, Any] = {
        "index": number, "finish": request.finish, "tokens": request.generated,
    }  # fmt: skip
    if loaded.tokenizer is not None:
        found["text"] = request.text(loaded.decode)
    if request.chosen:
        found["logprobs"] = [
            {"token": c.token, "logprob": c.logprob, "best": [list(pair) for pair in c.best]}
            for c in request.chosen
        ]
    if request.error is not None:
        found["error"] = str(request.error)
    return found
