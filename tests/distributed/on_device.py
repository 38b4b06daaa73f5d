"""What ranks do whose shards a GPU's kernels step, here on the host (tests/csrc/cuda).

No host reads the sums or the counts of a message before the next step begins.
"""

import ctypes
from contextlib import contextmanager

import torch
from torch import distributed as dist
from torch.distributed.tensor.debug import CommDebugMode

from d3fast.optim.backends import cpu, shard_messages, shard_plan
from tests.csrc.cuda.on_host import HostLauncher
from tests.distributed.ranks import descend, draw, far_apart, layout_of, spread, summary

SMALL = 64.0  # bytes: a bucket or more for most tensors


@contextmanager
def _on_device(library, most):
    usual = cpu.CpuLauncher, shard_plan.on_device, shard_messages.BUCKET_BYTES
    HostLauncher.library = ctypes.CDLL(library)
    cpu.CpuLauncher, shard_plan.on_device = HostLauncher, lambda tensor: True
    shard_messages.BUCKET_BYTES = {"cpu": most}
    try:
        yield
    finally:
        cpu.CpuLauncher, shard_plan.on_device, shard_messages.BUCKET_BYTES = usual


def run(world, library, most, function, *args):
    """What a function does, on ranks like these with buckets of some bytes."""
    with _on_device(library, most):
        return function(world, *args)


def problem(world, options):
    layout = layout_of("shards", world)
    params, opt = far_apart(layout, torch.float32, {"momentum": 0.9, **options})

    def step(t):
        descend(params, opt, layout, torch.float32, 1, start=t)

    return params, opt, step


def errors_by_step(world, change, restore=None):
    """The error of each of six steps; before the third, ``change(params, opt)`` on rank 1."""
    params, opt, _ = problem(world, {})
    layout, errors = layout_of("shards", world), []
    for t in range(6):
        for p, grad in zip(params, draw(100 + t, torch.float32), strict=True):
            p.grad = spread(grad, layout)
        if dist.get_rank() == 1 and t in (2, 3):
            (change if t == 2 else restore or (lambda params, opt: None))(params, opt)
        try:
            opt.step()
            errors.append(None)
        except ValueError as error:
            errors.append(str(error))
    return errors


def set_the_old_options(params, opt):
    opt.param_groups[0].update(
        lr=0.05, scope="tensor", distance_weight=1.0, constraint="norm_sphere"
    )


def scaled(world, overflow_at, options):
    """Steps with scaled gradients, of which rank 1 finds one infinite; no host looks at it."""
    params, opt, step = problem(world, options)
    for t in range(4):
        opt.grad_scale = torch.ones(())
        opt.found_inf = torch.tensor(float(t == overflow_at and dist.get_rank() == 1))
        step(t)
    reads = opt._stepper._sharded._on_device
    return {"reads": reads, **summary(params, opt)}


def skipping(world, left_out, options):
    params, opt, step = problem(world, options)
    for t in range(4):
        if t != left_out:
            step(t)
    return summary(params, opt)


def host_reads(world):
    """Per step: messages, and numbers that the host read from tensors."""
    params, opt, _ = problem(world, {})
    reads, usual = [], {name: getattr(torch.Tensor, name) for name in ("tolist", "item")}
    found = []
    for name, method in usual.items():
        setattr(torch.Tensor, name, lambda t, m=method: (reads.append(1), m(t))[1])
    try:
        for t in range(5):
            reads.clear()
            layout = layout_of("shards", world)
            for p, grad in zip(params, draw(100 + t, torch.float32), strict=True):
                p.grad = spread(grad, layout)
            with CommDebugMode() as calls:
                before = len(reads)
                opt.step()
            found.append((sum(calls.get_comm_counts().values()), len(reads) - before))
    finally:
        for name, method in usual.items():
            setattr(torch.Tensor, name, method)
    return found
