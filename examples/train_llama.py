"""Trains a small Llama on the bytes of some files, and goes on where it was when started again.

    torchrun --nproc-per-node 2 examples/train_llama.py --checkpoints /mnt/run README.md docs/*.md

Kill it at any moment, with any signal, and start it again: it loads the newest checkpoint that was
committed and does the steps that are missing. With as many ranks as before it computes the same to
the last bit as if it had never been killed, with another number the same but for the order of sums.

What that takes: parameters and moments, which any number of ranks loads (FSDP2); where the loader
is, told in samples, not in ranks; and the state of each rank's random numbers (`per_rank`).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from superfs.checkpoint import SuperFSReader, SuperFSWriter, committed

if TYPE_CHECKING:
    from concurrent.futures import Future

VOCABULARY = 259  # every byte, and three more: nothing divides it that is a number of ranks


class Samples:
    """Windows of a text in random order, epoch after epoch: the same whoever asks for them."""

    def __init__(self, text: bytes, context: int, seed: int) -> None:
        self._text = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self._context = context
        self._generator = torch.Generator().manual_seed(seed)
        self._begin()

    def _begin(self) -> None:
        self._epoch = self._generator.get_state()
        count = len(self._text) // self._context
        self._order = torch.randperm(count, generator=self._generator).tolist()
        self._position = 0

    def next(self, count: int) -> list[int]:
        """The numbers of the samples of a batch: of the whole one, on every rank."""
        if self._position + count > len(self._order):
            self._begin()
        self._position += count
        return self._order[self._position - count : self._position]

    def tokens(self, numbers: list[int]) -> torch.Tensor:
        size = self._context
        return torch.stack([self._text[n * size : (n + 1) * size] for n in numbers]).long()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["epoch"])
        self._begin()
        self._position = state["position"]


class Training:
    """One rank's part."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.step = args, 0
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        if args.batch % self.world:
            raise SystemExit(f"a batch of {args.batch} cannot be dealt to {self.world} ranks")
        text = b"\n".join(path.read_bytes() for path in sorted(args.text))
        self.samples = Samples(text, args.context, args.seed)
        torch.manual_seed(args.seed)  # the same parameters on all ranks
        self.model = LlamaForCausalLM(_config(args))
        mesh = init_device_mesh("cpu", (self.world,))
        for layer in self.model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=args.lr)
        torch.manual_seed(args.seed + 1 + self.rank)  # other units are dropped on each
        self.group = dist.new_group(backend="gloo")  # for what goes on behind the training
        self._saving: Future[Any] | None = None

    def run(self) -> list[float]:
        """The loss of each step."""
        self.resume()
        losses = []
        while self.step < self.args.steps:
            losses.append(self.train())
            if self.rank == 0 and self.args.show:
                print(f"step {self.step} loss {losses[-1]:.6f}", flush=True)
            if self.step % self.args.save_every == 0:
                self.save()
        self.saved()
        return losses

    def train(self) -> float:
        self.model.train()
        mine = self.samples.next(self.args.batch)[self.rank :: self.world]
        tokens = self.samples.tokens(mine)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        loss = self.model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        mean = loss.detach().double() / self.world
        dist.all_reduce(mean)
        return float(mean)

    def _rate(self) -> float:
        """Up in a tenth of the steps, then down along a cosine: known by the step alone."""
        done, args = self.step / self.args.steps, self.args
        return float(args.lr * min(10 * done + 0.01, 0.55 + 0.45 * math.cos(math.pi * done)))

    # ---- checkpoints ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {
            "model": model,
            "optimizer": optimizer,
            "samples": self.samples.state_dict(),
            "step": self.step,
            "world": self.world,
            "rng": torch.get_rng_state(),
        }

    def save(self) -> None:
        """Training goes on as soon as this rank's bytes are copied."""
        self.saved()
        path = self.args.checkpoints / f"step-{self.step:08}"
        writer = SuperFSWriter(path, process_group=self.group, per_rank=["rng"])
        self._saving = dcp.async_save(self.state(), storage_writer=writer, process_group=self.group)

    def saved(self) -> None:
        """Waits for the save that goes on, and raises what went wrong with it."""
        if self._saving is not None:
            self._saving.result()
            self._saving = None

    def resume(self) -> None:
        found: list[Any] = [None]
        if self.rank == 0 and self.args.checkpoints.is_dir():
            found = [max((path.name for path in committed(self.args.checkpoints)), default=None)]
        dist.broadcast_object_list(found)  # one answer for all: another save may just be committed
        if found[0] is None:
            return
        path, state = self.args.checkpoints / found[0], self.state()
        was: dict[str, Any] = {"world": 0}
        dcp.load(was, storage_reader=SuperFSReader(path))
        if was["world"] != self.world:
            del state["rng"]  # those were of other ranks
        dcp.load(state, storage_reader=SuperFSReader(path))
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        self.samples.load_state_dict(state["samples"])
        self.step = state["step"]
        if "rng" in state:
            torch.set_rng_state(state["rng"])
        if self.rank == 0 and self.args.show:
            print(f"resumed from {path}, saved by {was['world']} ranks", flush=True)


def _config(args: argparse.Namespace) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 11 // 4,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads // 2,
        max_position_embeddings=args.context,
        attention_dropout=args.dropout,
        tie_word_embeddings=True,
        use_cache=False,
    )


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("text", nargs="+", type=Path, help="what to learn")
    parser.add_argument("--checkpoints", required=True, type=Path, help="where checkpoints go")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=20)
    parser.add_argument("--batch", type=int, default=12, help="samples of a step, of all ranks")
    parser.add_argument("--context", type=int, default=128, help="bytes of a sample")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--dropout", type=float, default=0.0, help="of attention")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", dest="show", action="store_false")
    return parser.parse_args(words)


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)  # sums in one order
    dist.init_process_group("gloo")
    Training(args).run()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
