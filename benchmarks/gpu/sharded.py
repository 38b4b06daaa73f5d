# SPDX-License-Identifier: Apache-2.0
"""Step of sharded tensors on one GPU, one rank by itself: ``python -m benchmarks.gpu.sharded``.

The step is that of several ranks: an update, an all-reduce and a projection for each bucket of 64
MiB of weights. A mesh of one rank needs no all-reduce; here NCCL is asked for it all the same, so
that its launch and its stream are part of the time. The weights must be those of the same steps on
plain tensors.
"""

import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import distributed as dist

from benchmarks.gpu.endurance import weights
from benchmarks.gpu.figures import emit
from benchmarks.gpu.problems import captured, d3, problem, synchronize, worker_arguments
from benchmarks.gpu.replay import STEPS
from benchmarks.speed.timing import Contender, host_seconds, interleave, quartiles
from benchmarks.speed.workloads import Problem
from d3fast.optim import D3FusedSGD
from d3fast.optim.backends import dtensor

VARIANTS = ("free", "norm_sphere")
LISTS = ("10x25M", "10x2.5M", "ViT-B/16")
NUMBERS = 4 * 10 + 2  # of a message about ten tensors


@contextmanager
def one_rank(device: torch.device) -> Iterator[Any]:
    """Be the only rank of a mesh, and send its messages all the same."""
    from torch.distributed.device_mesh import init_device_mesh

    backend = "nccl" if device.type == "cuda" else "gloo"
    usual = dtensor._process_groups
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            mesh = init_device_mesh(device.type, (1,))
            dtensor._process_groups = lambda mesh: [] if mesh is None else [mesh.get_group(0)]
            yield mesh
        finally:
            dtensor._process_groups = usual
            dist.destroy_process_group()


def sharded(drawn: Problem, mesh: Any) -> Problem:
    """Return a problem whose tensors are DTensors, cut along their first dimension."""
    from torch.distributed.tensor import DTensor, Shard

    def place(tensors: Sequence[torch.Tensor]) -> list[Any]:
        return [DTensor.from_local(t, mesh, [Shard(0)], run_check=False) for t in tensors]

    return replace(
        drawn,
        thetas=place(drawn.thetas),
        references=place(drawn.references),
        grads=place(drawn.grads),
    )


def local_weights(opt: D3FusedSGD) -> torch.Tensor:
    """Return a copy of all local weights."""
    params = [p for group in opt.param_groups for p in group["params"]]
    return torch.cat([dtensor.local(p).detach().flatten() for p in params])


def require_close(drawn: Problem, mesh: Any, variant: str, steps: int) -> None:
    """Raise ``RuntimeError`` where steps on shards leave other weights than those on tensors."""
    whole, parts = d3(drawn, variant), d3(sharded(drawn, mesh), variant)
    for _ in range(steps):
        whole.step()
        parts.step()
    want, got = weights(whole).double(), local_weights(parts).double()
    off = float((got - want).norm() / want.norm())
    if not off < 1e-6:
        raise RuntimeError(f"{variant}: shards differ from plain tensors by {off:.1e}")


def measure(name: str, drawn: Problem, mesh: Any, budget: float) -> None:
    """Print the medians of one list of tensors."""
    placed = sharded(drawn, mesh)
    optimizers = {variant: d3(placed, variant) for variant in VARIANTS}
    eager = [Contender(v, opt.step) for v, opt in optimizers.items()]
    replays = [Contender(v, captured(o.step, drawn.device, STEPS)) for v, o in optimizers.items()]
    found = interleave(replays, drawn.device, budget)
    for variant, seconds in found.items():
        q1, median, q3 = (1e3 * s / STEPS for s in quartiles(seconds))
        emit(f"{name} in shards, {variant}: replay", median, "ms", q3 - q1)
    for variant, seconds in interleave(eager, drawn.device, budget, host_seconds).items():
        emit(f"{name} in shards, {variant}: host", 1e6 * quartiles(seconds)[1], "us")
    synchronize(drawn.device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the lists, and the all-reduce alone."""
    parser = worker_arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each list")
    given = parser.parse_args(arguments)
    small = problem("10x2.5M", given.device, max(given.shrink, 10))
    with one_rank(small.device) as mesh:
        for variant in VARIANTS:
            require_close(small, mesh, variant, 5)
        for name in LISTS:
            measure(name, problem(name, given.device, given.shrink), mesh, given.seconds / 2)
            gc.collect()
        message = torch.zeros(NUMBERS, dtype=torch.float64, device=small.device)
        reduce = Contender("all-reduce", lambda: dtensor.all_reduce(message, mesh))
        reduce.call()
        replay = Contender("all-reduce", captured(reduce.call, small.device, STEPS))
        seconds = interleave([replay], small.device, 1.0)["all-reduce"]
        emit("message of 10 tensors: all-reduce", 1e6 * quartiles(seconds)[1] / STEPS, "us")


if __name__ == "__main__":
    main()
