"""What ranks do in the tests of this folder, and the loop in which they wait for it.

The functions below the loop run on every rank of a group, and with ``world=None`` in the test
itself, on whole tensors: the single process that a sharded run has to follow.
"""

import os
import traceback
import warnings
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed.checkpoint as dcp
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from d3fast import D3FusedAdamW, D3FusedSGD, param_groups

OPTIMIZERS = {"sgd": D3FusedSGD, "adamw": D3FusedAdamW}
SHAPES = ((7, 5), (1,), (3, 2), (301,), (6, 0))


DIED = "the process died"
TIMEOUT = 30.0  # seconds, of the process groups


@dataclass
class Raised:
    line: str
    trace: str


def serve(rank, world, store, inbox, outbox):
    """Be one rank: take calls until killed."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=TIMEOUT),
    )
    warnings.simplefilter("ignore")
    while True:
        function, args = inbox.get()
        try:
            outbox.put((rank, function(world, *args)))
        except Exception as error:
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            outbox.put((rank, Raised(line, traceback.format_exc())))


def whole(tensor):
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    wide = torch.promote_types(full.dtype, torch.float32)  # numpy has no bfloat16
    return full.detach().to(wide, copy=True).numpy()


def layout_of(name, world):
    """A mesh, and the placements of a tensor on it."""
    if name == "shards":
        return init_device_mesh("cpu", (world,)), [Shard(0)]
    if name == "copies":
        return init_device_mesh("cpu", (world,)), [Replicate()]
    mesh = init_device_mesh("cpu", (2, world // 2))
    return mesh, {
        "copies of shards": [Replicate(), Shard(0)],
        "shards of shards": [Shard(0), Shard(0)],
    }[name]


def spread(tensor, layout):
    if layout is None:
        return tensor
    return distribute_tensor(tensor, *layout, src_data_rank=None)


def draw(seed, dtype, shapes=SHAPES):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]


def far_apart(layout, dtype, options):
    """Parameters away from their references, and an optimizer over them.

    Whole tensors take the plain step, shards that of the kernels where they serve.
    """
    params = [nn.Parameter(spread(t + 3, layout)) for t in draw(0, dtype)]
    backend = "reference" if layout is None else "auto"
    options = {"lr": 0.05, "backend": backend, "reference": draw(1, dtype), **options}
    optimizer = OPTIMIZERS[options.pop("optimizer", "sgd")]
    return params, optimizer(params, track="all", **options)


def descend(params, opt, layout, dtype, steps, start=0):
    for t in range(start, start + steps):
        for p, grad in zip(params, draw(100 + t, dtype), strict=True):
            p.grad = spread(grad, layout)
        opt.step()


def summary(params, opt):
    return {
        "params": [whole(p) for p in params],
        "distances": {k: float(d) for k, d in opt.distances().items()},
        "total": float(opt.total_distance()),
        "smallest part": min(
            p.to_local().numel() if isinstance(p, DTensor) else p.numel()
            for p in params
            if p.numel()
        ),
    }


def trajectory(world, layout_name, dtype, options, steps=20, change=None):
    """Steps in shards or whole; before the third and the sixth ``change`` is called."""
    layout = layout_of(layout_name, world) if world else None
    params, opt = far_apart(layout, dtype, options)
    for t in range(steps):
        if change is not None and t in (2, 5):
            with torch.no_grad():
                change(params, opt)
        descend(params, opt, layout, dtype, 1, start=t)
    return summary(params, opt)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 5))
    return model.double()


def wrapped(kind, world):
    """The network as one way of parallel training has it."""
    model = network()
    if world is None:
        return model
    if kind == "fsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    elif kind == "tensor parallel":
        cut(model, init_device_mesh("cpu", (world,)))
    elif kind == "both":
        mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("data", "tensor"))
        cut(model, mesh["tensor"])
        fully_shard(model, mesh=mesh["data"])
    elif kind == "ddp":
        model = DistributedDataParallel(model)
    return model


def cut(model, mesh):
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def batch_of(kind, world, step):
    """The rank's share of a batch of 8."""
    g = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 10, generator=g, dtype=torch.float64)
    targets = torch.randint(0, 5, (8,), generator=g)
    if world is None or kind == "tensor parallel":
        return inputs, targets
    groups = 2 if kind == "both" else world
    at = dist.get_rank() // (world // groups)
    return inputs.chunk(groups)[at], targets.chunk(groups)[at]


def optimizer_of(model, options):
    optimizer = options.get("optimizer", "sgd")
    usual = {"sgd": {"momentum": 0.9}, "adamw": {}}[optimizer]
    options = {"lr": 0.1, "backend": "auto", **usual, **options}
    options.pop("optimizer", None)
    track = options.pop("track", "all")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        groups = model.named_parameters() if track is None else param_groups(model, track=track)
        return OPTIMIZERS[optimizer](groups, **options)


def train(model, opt, kind, world, steps, start=0):
    for t in range(start, start + steps):
        inputs, targets = batch_of(kind, world, t)
        opt.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        opt.step()


def training(world, kind, options, steps=20):
    model = wrapped(kind, world)
    opt = optimizer_of(model, options)
    opt.warm_start("random", generator=torch.Generator().manual_seed(7))
    start = [whole(p) for p in model.parameters()]
    train(model, opt, kind, world, steps)
    return {"start": start, **summary(list(model.parameters()), opt)}


def local_bits(world, options):
    """The parameters of a DDP run, as they are on this rank."""
    model = wrapped("ddp", world)
    opt = optimizer_of(model, options)
    opt.warm_start("random", generator=torch.Generator().manual_seed(7))
    train(model, opt, "ddp", world, 5)
    return [p.detach().numpy().tobytes() for p in model.parameters()]


def save(world, kind, options, folder, steps):
    model = wrapped(kind, world)
    opt = optimizer_of(model, options)
    opt.warm_start("random", generator=torch.Generator().manual_seed(7))
    train(model, opt, kind, world, steps)
    weights, state = get_state_dict(model, opt)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder)


def resume(world, kind, options, folder, steps, start):
    model = wrapped(kind, world)
    for p in model.parameters():
        p.data.mul_(0)  # whatever is right afterwards was loaded
    opt = optimizer_of(model, options)
    weights, state = get_state_dict(model, opt)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
    set_state_dict(model, opt, model_state_dict=weights, optim_state_dict=state)
    train(model, opt, kind, world, steps, start)
    return summary(list(model.parameters()), opt)


class _Killed(dcp.FileSystemWriter):
    def write_data(self, *args):
        os._exit(1)


def killed_while_saving(world, kind, options, folder):
    model = wrapped(kind, world)
    opt = optimizer_of(model, options)
    train(model, opt, kind, world, 7)
    weights, state = get_state_dict(model, opt)
    writer = (_Killed if dist.get_rank() == 1 else dcp.FileSystemWriter)(folder)
    dcp.save({"model": weights, "optimizer": state}, storage_writer=writer)
