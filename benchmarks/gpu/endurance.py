# SPDX-License-Identifier: Apache-2.0
"""Long runs that a hang or a race would end: ``python -m benchmarks.gpu.endurance NAME``.

The process that starts this one kills it after a time limit: a block that waits for ever shows as
one. Every run checks that weights are finite and compares two ways to the same result.
"""

import gc
from collections.abc import Callable, Sequence

import torch

from benchmarks.gpu.figures import SKIPPED, emit
from benchmarks.gpu.problems import captured, d3, problem, synchronize, worker_arguments
from benchmarks.speed.workloads import Problem
from d3fast.optim import D3FusedSGD

LONG = 10_000  # steps
HUGE = 2**31 + 5  # elements


def weights(opt: D3FusedSGD) -> torch.Tensor:
    """Return a copy of all weights; raise ``RuntimeError`` where one is not finite."""
    flat = torch.cat([p.detach().flatten() for g in opt.param_groups for p in g["params"]])
    if not bool(torch.isfinite(flat).all()):
        raise RuntimeError("a weight is not finite")
    return flat


def require_equal(got: torch.Tensor, want: torch.Tensor, what: str) -> None:
    """Raise ``RuntimeError`` unless two lists of weights are equal bit for bit."""
    different = int((got != want).sum())
    if different:
        raise RuntimeError(f"{what}: {different} of {want.numel()} weights differ")


def long_run(name: str, drawn: Problem, steps: int) -> None:
    """Take many steps on the sphere, twice: the weights are equal bit for bit."""
    results = []
    for _ in range(2):
        opt = d3(drawn, "norm_sphere")
        for _ in range(steps):
            opt.step()
        results.append(weights(opt))
    require_equal(results[0], results[1], "two runs")
    emit(f"{name}, norm_sphere, twice: steps", 2 * steps, "")


def streams(drawn: Problem, steps: int) -> None:
    """Step two optimizers on two streams at a time: weights as on one stream."""
    device = drawn.device
    alone = [d3(drawn, v) for v in ("norm_sphere", "distance_ball")]
    beside = [d3(drawn, v) for v in ("norm_sphere", "distance_ball")]
    for opt in alone:
        for _ in range(steps):
            opt.step()
    if device.type == "cuda":
        sides = [torch.cuda.Stream(), torch.cuda.Stream()]
        for side in sides:
            side.wait_stream(torch.cuda.current_stream())
        for _ in range(steps):
            for opt, side in zip(beside, sides, strict=True):
                with torch.cuda.stream(side):
                    opt.step()
        synchronize(device)
    else:
        for _ in range(steps):
            for opt in beside:
                opt.step()
    for name, got, want in zip(("first", "second"), beside, alone, strict=True):
        require_equal(weights(got), weights(want), f"the {name} of two streams")
    emit("two streams: steps", 2 * steps, "")


def replays(drawn: Problem, steps: int) -> None:
    """Alternate replays and eager steps with gradients elsewhere: weights as in eager steps."""
    results = []
    for in_graph in (False, True):
        opt = d3(drawn, "norm_sphere", capturable=True)
        params = opt.param_groups[0]["params"]
        step: Callable[[], object] = opt.step
        static = [p.grad for p in params]
        for _ in range(1 if drawn.device.type == "cuda" and not in_graph else 0):
            opt.step()  # the graph's own warm-up, below
        if in_graph:
            step = captured(opt.step, drawn.device)
        for t in range(steps):
            if t % 3 == 2:
                for p in params:
                    p.grad = p.grad.clone()
                opt.step()
                for p, grad in zip(params, static, strict=True):
                    p.grad = grad
            else:
                step()
        results.append(weights(opt))
    require_equal(results[1], results[0], "replays with eager steps between")
    emit("replays with eager steps between: steps", steps, "")


def huge(device: torch.device, elements: int) -> None:
    """Step over one tensor of more than 2^31 elements, free and on its sphere."""
    needed = 5 * 4 * elements  # weights, gradients, reference, and copies on the way
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < needed:
        print(f"{SKIPPED}2^31 elements need {needed >> 30} GiB of GPU memory")
        return
    for constraint in (None, "norm_sphere"):
        generator = torch.Generator(device).manual_seed(0)
        theta = torch.empty(elements, device=device).normal_(0, 0.02, generator=generator)
        p = torch.nn.Parameter(theta)
        p.grad = theta.detach() * -0.5  # outwards
        radius = float(blockwise_norm(theta))
        opt = D3FusedSGD(
            [p], track="all", lr=0.5, distance_weight=0.0, constraint=constraint, backend="fused"
        )
        last = theta[-5:].clone()
        opt.step()
        norm = float(blockwise_norm(p.detach()))
        want = 1.25 if constraint is None else 1.0
        if abs(norm / radius - want) > 1e-4:
            raise RuntimeError(
                f"{constraint}: the norm is {norm / radius} of theta_0's, not {want}"
            )
        if not torch.allclose(p.detach()[-5:], last * want, rtol=1e-4):
            raise RuntimeError(f"{constraint}: the last elements were not stepped")
        del opt, p, theta
        gc.collect()
    emit("2^31 elements: elements", elements, "")


def blockwise_norm(tensor: torch.Tensor) -> torch.Tensor:
    """Return the norm in float64 without a copy in it."""
    pieces = [torch.linalg.vector_norm(x, dtype=torch.float64) for x in tensor.split(1 << 24)]
    return torch.linalg.vector_norm(torch.stack(pieces))


def main(arguments: Sequence[str] | None = None) -> None:
    """Take one of the runs."""
    parser = worker_arguments(__doc__)
    parser.add_argument("name", choices=("long", "streams", "replays", "huge"))
    given = parser.parse_args(arguments)
    if given.name == "huge":
        huge(torch.device(given.device), HUGE // given.shrink)
        return
    steps = max(6, LONG // given.shrink)
    if given.name == "long":
        for name in ("ResNet-18", "10x2.5M"):
            long_run(name, problem(name, given.device, given.shrink), steps)
        return
    runs = {"streams": streams, "replays": replays}
    runs[given.name](problem("ResNet-18", given.device, given.shrink), steps // 5)


if __name__ == "__main__":
    main()
