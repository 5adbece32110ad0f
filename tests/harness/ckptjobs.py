"""What ranks do in tests of checkpoints: called by name, on every rank, in a world of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

from superfs.checkpoint import SuperFSReader, SuperFSWriter, session, steps

State = dict[str, Any]
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.float8_e8m0fnu, torch.float4_e2m1fn_x2, torch.complex32),
    *(torch.uint16, torch.uint32, torch.uint64),
)


def random_bytes(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Any bit pattern, NaNs included: what comes back must be equal as bytes."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.Size(shape).numel() * dtype.itemsize
    high = 2 if dtype is torch.bool else 256
    raw = torch.randint(0, high, (size,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    a, b = one.detach().contiguous(), other.detach().contiguous()
    alike = (a.shape, a.dtype) == (b.shape, b.dtype)
    return alike and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def many_kinds(seed: int) -> State:
    """Replicated plain tensors of every dtype, odd shapes, and what is not a tensor."""
    state: State = {f"d{n}": random_bytes((7, 3), d, seed + n) for n, d in enumerate(DTYPES)}
    state |= {
        "wide": random_bytes((1, 300_001), torch.bfloat16, seed + 100),
        "three": random_bytes((3, 200_003), torch.float32, seed + 101),
        "scalar": random_bytes((), torch.float64, seed + 102),
        "empty": torch.empty((0, 5)),
        "turned": random_bytes((600, 700), torch.float32, seed + 103).t(),
        "strided": random_bytes((1000, 90), torch.int16, seed + 104)[::3, 5:50],
    }
    return state


def zeros_like(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def check(state: State, expected: State) -> None:
    for name, tensor in expected.items():
        found = state[name]
        if isinstance(tensor, DTensor):
            found, tensor = found.to_local(), tensor.to_local()
        assert same(found, tensor), name


def round_trip(path: str, objects: State, write: State, read: State) -> dict[str, int]:
    """Save, then load into other memory: equal as bytes. What the reader counted."""
    state = many_kinds(1)
    state["tied"] = state["three"]
    dcp.save({**state, "objects": objects}, storage_writer=SuperFSWriter(path, **write))
    found = zeros_like(state)
    target = {**found, "objects": dict.fromkeys(objects)}
    reader = SuperFSReader(path, **read)
    dcp.load(target, storage_reader=reader)
    check(found, state)
    assert list(target["objects"]) == list(objects)
    for name, value in objects.items():
        assert type(target["objects"][name]) is type(value), name
        assert repr(target["objects"][name]) == repr(value), name
    return reader.statistics


def round_trip_of_one(path: str, size: int, asynchronous: bool) -> None:
    """One tensor of so many bytes, all different from their neighbours."""
    group = dist.new_group(backend="gloo")
    tensor = torch.arange(size // 8 + 1).view(torch.uint8)[:size]
    writer = SuperFSWriter(path, process_group=group, durable=False)
    if asynchronous:
        dcp.async_save({"w": tensor}, storage_writer=writer, process_group=group).result()
    else:
        dcp.save({"w": tensor}, storage_writer=writer, process_group=group)
    found = {"w": torch.zeros_like(tensor)}
    dcp.load(found, storage_reader=SuperFSReader(path, process_group=group), process_group=group)
    assert torch.equal(found["w"], tensor)


# ---- layouts ------------------------------------------------------------------------------------

SHAPES = ((37, 1000), (5, 70_001), (301,), (64, 33, 9), (2, 2), (1_000_003,))


def full_state(seed: int = 7) -> dict[str, torch.Tensor]:
    return {f"w{n}": random_bytes(s, torch.float32, seed + n) for n, s in enumerate(SHAPES)}


def laid_out(layout: str, tensors: dict[str, torch.Tensor]) -> State:
    """The tensors as DTensors: replicated, sliced along a dimension, or in a grid of both."""
    world = dist.get_world_size()
    if layout == "plain":
        return {name: tensor.clone() for name, tensor in tensors.items()}
    grids: dict[str, tuple[tuple[int, ...], tuple[Placement, ...]]] = {
        "ddp": ((world,), (Replicate(),)),
        "fsdp": ((world,), (Shard(0),)),
        "tp": ((world,), (Shard(1),)),
        "hsdp": ((2, world // 2), (Replicate(), Shard(0))),
        "fsdp-tp": ((2, world // 2), (Shard(0), Shard(1))),
    }
    shape, placements = grids[layout]
    mesh = init_device_mesh("cpu", shape)
    found: State = {}
    for name, tensor in tensors.items():
        fitting = [p if p.is_replicate() or p.dim < tensor.dim() else Shard(0) for p in placements]
        if fitting.count(Shard(0)) > 1:
            fitting = [Replicate(), Shard(0)]
        found[name] = distribute_tensor(tensor, mesh, fitting)
    return found


def save_as(path: str, layout: str, **options: Any) -> dict[str, int]:  # noqa: ANN401
    writer = SuperFSWriter(path, **options)
    dcp.save(laid_out(layout, full_state()), storage_writer=writer)
    return dict(writer.session.statistics)


def save_all_as(root: str, layouts: list[str]) -> None:
    for layout in layouts:
        save_as(f"{root}/{layout}", layout)


def load_each_as(root: str, saved: list[str], layouts: list[str], share: str) -> None:
    for name in saved:
        load_all_as(f"{root}/{name}", layouts, share)


def load_as(path: str, layout: str, **options: Any) -> dict[str, int]:  # noqa: ANN401
    """Into zeros, and compared with what was saved."""
    zeros = {name: torch.zeros_like(tensor) for name, tensor in full_state().items()}
    state = laid_out(layout, zeros)
    reader = SuperFSReader(path, **options)
    dcp.load(state, storage_reader=reader)
    check(state, laid_out(layout, full_state()))
    return reader.statistics


def load_all_as(path: str, layouts: list[str], share: str) -> list[dict[str, int]]:
    return [load_as(path, layout, share=share) for layout in layouts]


def load_part(path: str, names: list[str]) -> dict[str, int]:
    state = {name: torch.zeros_like(full_state()[name]) for name in names}
    reader = SuperFSReader(path)
    dcp.load(state, storage_reader=reader)
    check(state, {name: full_state()[name] for name in names})
    return reader.statistics


# ---- replicas, caches, staging ------------------------------------------------------------------


def save_differing(path: str, per_rank: list[str], verify: str, saves: int) -> None:
    """After so many saves of equal tensors one rank's differs, at its end."""
    buffer = torch.zeros(1_000_000)
    for number in range(saves + 1):
        if number == saves and dist.get_rank() == dist.get_world_size() - 1:
            buffer[-1] = 1
        state = {"model": {"w": torch.ones(1000), "buffer": buffer}}
        writer = SuperFSWriter(f"{path}-{number}", per_rank=per_rank, verify_replicas=verify)
        dcp.save(state, storage_writer=writer)


def save_unalike(path: str) -> None:
    """Each rank holds something that others do not, and a tensor is tied on some: what they have in
    common is still the same, and is seen to be."""
    rank = dist.get_rank()
    common = random_bytes((90_001,), torch.float32, 5)
    for number in range(3):
        twin = common if rank else common.clone()
        state: State = {f"only{rank}": torch.ones(50_000 + rank)} if rank < 2 else {}
        state |= {"common": common, "twin": twin}
        dcp.save(state, storage_writer=SuperFSWriter(f"{path}-{number}"))
        common += 1


def own_round_trip(path: str) -> None:
    """Tensors and objects of which every rank stores its own, of its own size."""
    rank = dist.get_rank()
    state = {
        "w": torch.ones(5),
        "rng": torch.full((10 + rank,), rank, dtype=torch.uint8),
        "loader": {"position": rank * 10, "names": ("a", b"b")},
    }
    dcp.save(state, storage_writer=SuperFSWriter(path, per_rank=["rng", "loader.*"]))
    found = {
        "w": torch.zeros(5),
        "rng": torch.zeros(10 + rank, dtype=torch.uint8),
        "loader": {"position": None, "names": None},
    }
    dcp.load(found, storage_reader=SuperFSReader(path))
    assert found["loader"] == state["loader"]
    check({"rng": found["rng"], "w": found["w"]}, {"rng": state["rng"], "w": state["w"]})


def remembered(path: str) -> list[dict[str, int]]:
    """Statistics after each of: first save, same again, another shape on one rank only, as at
    first."""
    found = []
    for number, (extra, shape) in enumerate([(0, 5), (0, 5), (1, 6), (0, 5)]):
        state = {"w": torch.ones(shape if not extra or dist.get_rank() else 5)}
        writer = SuperFSWriter(f"{path}-{number}", per_rank=["w"])
        dcp.save(state, storage_writer=writer)
        found.append(dict(writer.session.statistics))
    return found


def staged_apart(path: str, saves: int, arena_bytes: int | None = None) -> int:
    """What is changed right after `async_save` has returned is not in the checkpoint. Returns how
    many bytes the arena has."""
    group = dist.new_group(backend="gloo")
    tensor = torch.zeros(3_000_001)
    for number in range(saves):
        writer = SuperFSWriter(f"{path}-{number}", process_group=group, arena_bytes=arena_bytes)
        tensor.fill_(number)
        state = {"w": tensor, "step": number}
        future = dcp.async_save(state, storage_writer=writer, process_group=group)
        tensor.fill_(-1)
        future.result()
        found = {"w": torch.zeros_like(tensor), "step": None}
        reader = SuperFSReader(f"{path}-{number}", process_group=group)
        dcp.load(found, storage_reader=reader, process_group=group)
        assert found["step"] == number
        assert torch.equal(found["w"], torch.full_like(tensor, number))
    courier = session.of(group).courier
    assert courier is not None
    return courier.arena_bytes


def while_one_is_written(path: str, policy: str) -> list[str]:
    """A second `async_save` while the first is held up on rank 0: what becomes of each."""
    import threading

    group = dist.new_group(backend="gloo")
    go_on = threading.Event()

    def hold(step: str) -> None:
        if step == "before-delivery" and dist.get_rank() == 0:
            go_on.wait(60)

    steps.hook = hold
    state = {"w": torch.ones(100_000)}
    outcomes = []
    futures = []
    for number in range(2):
        writer = SuperFSWriter(f"{path}-{number}", process_group=group, in_flight=policy)
        if policy == "wait" and number == 1:
            go_on.set()
        try:
            futures.append(dcp.async_save(state, storage_writer=writer, process_group=group))
            outcomes.append("saved")
        except Exception as error:
            outcomes.append(str(error))
    go_on.set()
    for future in futures:
        future.result()
    return outcomes


# ---- what other jobs begin and end with ----------------------------------------------------------


def load_step(path: str, size: int = 700_000) -> int:
    state = {"w": torch.zeros(size), "step": -1}
    dcp.load(state, storage_reader=SuperFSReader(path))
    assert torch.equal(state["w"], torch.full((size,), float(state["step"])))
    return int(state["step"])


def save_plain(path: str, size: int, fill: float = 1.0) -> None:
    state = {"w": torch.full((size,), fill), "v": torch.ones(10), "note": "text"}
    dcp.save(state, storage_writer=SuperFSWriter(path))


def load_plain(path: str, size: int, share: str = "auto") -> None:
    state = {"w": torch.zeros(size), "v": torch.zeros(10), "note": ""}
    dcp.load(state, storage_reader=SuperFSReader(path, share=share))
    assert torch.equal(state["w"], torch.ones(size))


class Watchful(dcp.DefaultLoadPlanner):
    """Keeps what comes to the coordinator; may send every rank there what all of them asked for."""

    def __init__(self, resend: list[Any] | None) -> None:
        super().__init__()
        self.seen: list[int] = []
        self._resend = resend

    def create_local_plan(self) -> dcp.LoadPlan:
        plan = super().create_local_plan()
        if self._resend is not None:
            self._resend[:] = plan.items
            self._resend.pop()
        return plan

    def create_global_plan(self, global_plan: list[dcp.LoadPlan]) -> list[dcp.LoadPlan]:
        self.seen = [len(plan.items) for plan in global_plan]
        if self._resend is not None:
            return [replace(plan, items=list(self._resend)) for plan in global_plan]
        return super().create_global_plan(global_plan)


def load_watched(path: str, size: int) -> tuple[list[int], float, float]:
    """How much DCP gathers for a plan; and what a planner loads that leaves an item out."""
    state = {"w": torch.zeros(size)}
    planner = Watchful(None)
    dcp.load(state, storage_reader=SuperFSReader(path), planner=planner)
    part = {"v": torch.zeros(10), "w": torch.zeros(size)}
    dcp.load(part, storage_reader=SuperFSReader(path), planner=Watchful([]))
    return planner.seen, state["w"].sum().item(), part["v"].sum().item() - part["w"].sum().item()


def many_saves(path: str, saves: int, asynchronous: bool) -> list[tuple[int, int, int]]:
    """(resident and shared bytes, descriptors, threads) after each save."""
    import shutil
    import threading

    group = dist.new_group(backend="gloo")
    state = {"w": torch.ones(500_000), "small": {str(n): torch.ones(n) for n in range(50)}}
    found = []
    for number in range(saves):
        where = f"{path}-{number}"
        writer = SuperFSWriter(where, process_group=group, durable=False)
        if asynchronous:
            dcp.async_save(state, storage_writer=writer, process_group=group).result()
        else:
            dcp.save(state, storage_writer=writer, process_group=group)
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.rmtree(where)
        memory = session.of(group).courier
        pids = [os.getpid()] + ([memory.pid] if memory is not None else [])
        resident = sum(_resident(pid) for pid in pids)
        threads = threading.active_count()
        found.append((resident, len(os.listdir("/proc/self/fd")), threads))
    return found


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
