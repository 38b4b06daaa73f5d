"""What ranks do in the tests of AMP, warm starts, references and bad input; see ``ranks``."""

import warnings

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.placement_types import Partial

from d3fast import D3FusedSGD
from tests.distributed.ranks import (
    batch_of,
    descend,
    draw,
    far_apart,
    layout_of,
    network,
    optimizer_of,
    spread,
    summary,
    train,
    whole,
    wrapped,
)


def all_reduces_per_step(world, kind):
    """How many all-reduces each step of a training takes, forward and backward pass apart."""
    model = wrapped(kind, world)
    opt = optimizer_of(model, {})
    opt.warm_start("random", generator=torch.Generator().manual_seed(7))
    counts = []
    for t in range(4):
        inputs, targets = batch_of(kind, world, t)
        opt.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        with CommDebugMode() as calls:
            opt.step()
        counts.append(sum(calls.get_comm_counts().values()))
    return counts


def scaled_training(world, overflow_at):
    """Four steps under a GradScaler; in one of them rank 1 has an infinite gradient."""
    model = wrapped("fsdp", world)
    opt = optimizer_of(model, {})
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    moved = []
    for t in range(4):
        inputs, targets = batch_of("fsdp", world, t)
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        if t == overflow_at and dist.get_rank() == 1:
            loss = loss * float("inf")
        before = [whole(p) for p in model.parameters()]
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        after = [whole(p) for p in model.parameters()]
        moved.append(any((a != b).any() for a, b in zip(before, after, strict=True)))
    return {"moved": moved, "scale": scaler.get_scale(), **summary(list(model.parameters()), opt)}


def unscaled_training(world):
    model = wrapped("fsdp", world)
    opt = optimizer_of(model, {})
    train(model, opt, "fsdp", world, 4)
    return summary(list(model.parameters()), opt)


def sharded_after_construction(world):
    model = network()
    opt = optimizer_of(model, {})
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    train(model, opt, "fsdp", world, 1)


def warm_started(world, layout_name, mode, equal_seeds=True):
    layout = layout_of(layout_name, world) if world else None
    params, opt = far_apart(layout, torch.float64, {})
    seed = 0 if equal_seeds else dist.get_rank()
    opt.warm_start(mode, generator=torch.Generator().manual_seed(seed))
    return summary(params, opt)


def overflow_on_one_rank(world):
    layout = layout_of("shards", world)
    params, opt = far_apart(layout, torch.float64, {"momentum": 0.9})
    before = [whole(p) for p in params]
    opt.found_inf = torch.tensor(float(dist.get_rank() == 1))
    opt.grad_scale = torch.ones(())
    descend(params, opt, layout, torch.float64, 1)
    return before, [whole(p) for p in params]


def tracked_without_asking(world):
    """The positions that a bare list tracks, of a bias, two matrices with zeros and a third one."""
    layout = layout_of("shards", world) if world else None
    half, none = torch.zeros(4, 3), torch.zeros(2, 3)
    half[3, 1] = 1.0  # on the last rank
    tensors = [torch.ones(4), half, none, torch.ones(4, 3)]
    opt = D3FusedSGD([nn.Parameter(spread(t, layout)) for t in tensors], backend="reference")
    return opt.param_groups[0]["track"]


def gradient_missing_on_one_rank(world):
    layout = layout_of("shards", world)
    params, opt = far_apart(layout, torch.float64, {})
    before = [p.to_local().clone() for p in params]
    for p, grad in zip(params, draw(100, torch.float64), strict=True):
        p.grad = spread(grad, layout)
    if dist.get_rank() == 1:
        params[0].grad = None
    return refused_without_moving(opt, params, before)


def no_gradient_at_all_on_one_rank(world):
    layout = layout_of("shards", world)
    params, opt = far_apart(layout, torch.float64, {})
    before = [p.to_local().clone() for p in params]
    if dist.get_rank() == 0:
        for p, grad in zip(params, draw(100, torch.float64), strict=True):
            p.grad = spread(grad, layout)
    return refused_without_moving(opt, params, before)


def option_out_of_range_on_one_rank(world):
    layout = layout_of("shards", world)
    params, opt = far_apart(layout, torch.float64, {})
    plain = nn.Parameter(torch.ones(3))
    opt.add_param_group({"params": [plain], "distance_weight": 0.0, "constraint": None})
    plain.grad = torch.ones(3)
    before = [p.detach().clone() for p in (plain,)] + [p.to_local().clone() for p in params]
    for p, grad in zip(params, draw(100, torch.float64), strict=True):
        p.grad = spread(grad, layout)
    if dist.get_rank() == 1:
        opt.param_groups[0]["lr"] = -1.0
    return refused_without_moving(opt, [plain, *params], before)


def later_step(world, change):
    """Three steps; before the third, ``change(params, opt)`` on rank 1."""
    layout = layout_of("shards", world)
    params, opt = far_apart(layout, torch.float64, {"momentum": 0.9})
    descend(params, opt, layout, torch.float64, 2)
    for p, grad in zip(params, draw(100, torch.float64), strict=True):
        p.grad = spread(grad, layout)
    if dist.get_rank() == 1:
        change(params, opt)
    opt.step()


def remove_a_gradient(params, opt):
    params[3].grad = None


def remove_all_gradients(params, opt):
    opt.zero_grad()


def set_a_bad_option(params, opt):
    opt.param_groups[0]["lr"] = -1.0


def set_another_scope(params, opt):
    opt.param_groups[0]["scope"] = "group"


def untrack(params, opt):
    opt.param_groups[0].update(distance_weight=0.0, constraint=None)


def tracked_by_one_rank(world):
    """Two steps without tracking; before the third, rank 1 alone begins to track."""
    layout = layout_of("shards", world)
    params, opt = far_apart(layout, torch.float64, {"distance_weight": 0.0, "constraint": None})
    descend(params, opt, layout, torch.float64, 2)
    if dist.get_rank() == 1:
        opt.param_groups[0]["distance_weight"] = 1.0
    descend(params, opt, layout, torch.float64, 1)


def goes_on_after_an_error(world):
    """Two steps, one that rank 1 refuses, and two more."""
    layout = layout_of("shards", world)
    params, opt = far_apart(layout, torch.float64, {"momentum": 0.9})
    descend(params, opt, layout, torch.float64, 2)
    opt.param_groups[0]["lr"] = -1.0 if dist.get_rank() == 1 else 0.05
    refused = 0
    try:
        opt.step()
    except ValueError:
        refused += 1
    opt.param_groups[0]["lr"] = 0.05
    descend(params, opt, layout, torch.float64, 2)
    return refused, float(params[0].detach().full_tensor().norm())


def edit_in_place(params, opt):
    params[0].mul_(1.5)


def edit_through_data(params, opt):
    params[3].data.mul_(1.5)


def edit_one_part(params, opt):
    """What no rank but the last can see, done to whole tensors alike."""
    whole_or_part = params[3].to_local() if isinstance(params[3], DTensor) else params[3]
    if not isinstance(params[3], DTensor):
        whole_or_part[151:].mul_(1.5)
    elif dist.get_rank() == dist.get_world_size() - 1:
        whole_or_part.mul_(1.5)


def edit_one_part_unseen(params, opt):
    """The same, hidden from version counters."""
    if not isinstance(params[3], DTensor):
        params[3].data[151:].mul_(1.5)
    elif dist.get_rank() == dist.get_world_size() - 1:
        params[3]._local_tensor.data.mul_(1.5)


def refresh(params, opt):
    opt.refresh_distances()


def refresh_on_one_rank(params, opt):
    if not dist.is_initialized() or dist.get_rank() == 1:
        opt.refresh_distances()


def halve_momenta(params, opt):
    for state in opt.state.values():
        state["momentum_buffer"].mul_(0.5)


def replace_a_momentum(params, opt):
    state = opt.state[params[0]]
    state["momentum_buffer"] = state["momentum_buffer"] * 0.5


def project_inside(params, opt):
    opt.param_groups[0].update(constraint="norm_ball", radius=0.8)


def refused_without_moving(opt, params, before):
    try:
        opt.step()
    finally:
        here = [p.to_local() if isinstance(p, DTensor) else p for p in params]
        if not all(torch.equal(a, b) for a, b in zip(here, before, strict=True)):
            raise AssertionError("a parameter moved")


def partial_placement(world):
    mesh = init_device_mesh("cpu", (world,))
    D3FusedSGD([nn.Parameter(DTensor.from_local(torch.ones(3), mesh, [Partial()]))], track="all")


def fused_asked_for(world, p):
    options = {"backend": "fused", "distance_p": p}
    far_apart(layout_of("shards", world), torch.float64, options)


def mixed_group(world, scope):
    layout = layout_of("shards", world)
    params = [nn.Parameter(spread(torch.ones(4), layout)), nn.Parameter(torch.ones(2))]
    opt = D3FusedSGD(
        params,
        track="all",
        lr=0.1,
        scope=scope,
        backend="reference",
        reference=[p * 2 for p in params],
    )
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    return [whole(p) for p in params]


def state_of_another_mesh(world):
    layout = layout_of("shards", world)
    _, first = far_apart(layout, torch.float64, {"momentum": 0.9})
    _, second = far_apart(layout_of("shards of shards", world), torch.float64, {"momentum": 0.9})
    second.load_state_dict(first.state_dict())


def backend_warning(world, p):
    layout = layout_of("shards", world)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        far_apart(layout, torch.float64, {"backend": "auto", "distance_p": p})
    return [str(w.message) for w in caught]


def two_tracked_groups(world, missing=False):
    """Groups with options of their own, and how many all-reduces one step takes."""
    layout = layout_of("shards", world) if world else None
    params = [nn.Parameter(spread(t + 3, layout)) for t in draw(0, torch.float64)]
    first, second = params[:2], params[2:]
    groups = [
        {"params": first, "reference": [2 * p.detach() for p in first], "scope": "group"},
        {
            "params": second,
            "reference": [3 * p.detach() for p in second],
            "constraint": "distance_ball",
            "radius": 0.1,
            "distance_p": 1.5,
        },
    ]
    backend = "reference" if layout is None else "auto"
    opt = D3FusedSGD(groups, lr=0.05, momentum=0.9, track="all", backend=backend)
    if missing:
        for p, grad in zip(params, draw(100, torch.float64), strict=True):
            p.grad = spread(grad, layout)
        second[0].grad = None if dist.get_rank() == 1 else second[0].grad
        return refused_without_moving(opt, params, [p.to_local().clone() for p in params])
    with CommDebugMode() as calls:
        descend(params, opt, layout, torch.float64, 20)
    return {"calls": sum(calls.get_comm_counts().values()), **summary(params, opt)}
