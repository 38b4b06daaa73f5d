# SPDX-License-Identifier: Apache-2.0
r"""Other implementations of the D3 step, written from its formulas (arXiv 2411.09585).

    u = w * (theta - theta_0) / ||theta - theta_0||,  v <- momentum * v + g - u
    theta <- theta - lr * v,  theta <- theta * ||theta_0|| / ||theta||

``sgd`` is torch's fused SGD without distance term and projection. ``autograd`` follows the
published code: the distance is a term of the loss. Only the backward pass of that term is timed;
the radius is computed once, and rescaling is in place. ``foreach`` is the fastest composition of
multi-tensor calls found: a scratch buffer instead of a temporary, torch's fused SGD for the
descent. ``compile`` is the plain step under torch.compile, one graph for all sizes. Untracked
tensors take torch's fused SGD in both.

For weights of a half type there are two: ``sgd``, and ``plain``, the reference backend of d3fast,
which rounds like the kernels. The others would lose small steps.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.contenders import LR, MOMENTUM, WEIGHT, optimizer
from benchmarks.speed.timing import Contender
from benchmarks.speed.workloads import Problem, Workload

SGD, AUTOGRAD, FOREACH, COMPILE = "sgd", "autograd", "foreach", "compile"
PLAIN = "plain"


class Unavailable(Exception):
    """A peer cannot run on this machine; the message gives the reason."""


def _parameters(problem: Problem, grads: Sequence[Tensor]) -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(theta) for theta in problem.thetas]
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    return params


def _sgd(problem: Problem, params: list[torch.nn.Parameter], **options: Any) -> torch.optim.SGD:
    opt = torch.optim.SGD(params, lr=LR, momentum=MOMENTUM, **options)
    for p, v in zip(params, problem.momenta, strict=True):
        opt.state[p]["momentum_buffer"] = v
    return opt


def sgd(problem: Problem) -> Contender:
    """Return ``torch.optim.SGD(fused=True)``: no distance, no projection."""
    opt = _sgd(problem, _parameters(problem, problem.grads), fused=True)
    return Contender(SGD, opt.step)


def plain(problem: Problem) -> Contender:
    """Return the step of the reference backend on the sphere."""
    opt = optimizer(problem, backend="reference")
    return Contender(PLAIN, opt.step)


def autograd(problem: Problem) -> Contender:
    """Return the step with the distance as a loss term, SGD, and rescaling through ``.data``."""
    params = _parameters(problem, [g.clone() for g in problem.grads])  # backward adds to them
    opt = _sgd(problem, params)
    tracked = params[: len(problem.references)]
    radii = [r.norm() for r in problem.references]

    def step() -> None:
        pairs = zip(tracked, problem.references, strict=True)
        distance = sum(torch.norm(p - theta_0) for p, theta_0 in pairs)
        (-WEIGHT * distance).backward()
        opt.step()
        for p, radius in zip(tracked, radii, strict=True):
            p.data.mul_(radius / p.data.norm())

    return Contender(AUTOGRAD, step, held=[*problem.references, *radii])


def _norms(tensors: list[Tensor]) -> list[float]:
    return torch.stack(torch._foreach_norm(tensors)).tolist()  # one wait for the device


def _fused_sgd(thetas: list[Tensor], grads: list[Tensor], momenta: list[Tensor]) -> None:
    torch._fused_sgd_(
        thetas,
        grads,
        momenta,
        weight_decay=0.0,
        momentum=MOMENTUM,
        lr=LR,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )


def foreach(problem: Problem) -> Contender:
    """Return the step from multi-tensor calls."""
    references, count = problem.references, len(problem.references)
    thetas, grads, momenta = (x[:count] for x in (problem.thetas, problem.grads, problem.momenta))
    rest = [x[count:] for x in (problem.thetas, problem.grads, problem.momenta)]
    scratch = [torch.empty_like(theta) for theta in thetas if theta.is_cpu]
    radii = _norms(references)

    @torch.no_grad()
    def step() -> None:
        if scratch:  # on a CPU a foreach call is this loop, and has no form that writes elsewhere
            for theta, theta_0, out in zip(thetas, references, scratch, strict=True):
                torch.sub(theta, theta_0, out=out)
            d = scratch
        else:
            d = list(torch._foreach_sub(thetas, references))
        scales = [-WEIGHT / distance if distance else 0.0 for distance in _norms(d)]
        torch._foreach_mul_(d, scales)
        torch._foreach_add_(d, grads)
        _fused_sgd(thetas, d, momenta)
        pairs = zip(radii, _norms(thetas), strict=True)
        torch._foreach_mul_(thetas, [radius / norm if norm else 1.0 for radius, norm in pairs])
        if rest[0]:
            _fused_sgd(*rest)

    return Contender(FOREACH, step, held=[*references, *scratch])


def _plain_step(theta: Tensor, grad: Tensor, v: Tensor, theta_0: Tensor, radius: Tensor) -> None:
    delta = theta - theta_0
    distance = torch.linalg.vector_norm(delta)
    u = torch.where(distance > 0, delta * (WEIGHT / distance), 0.0)
    v.mul_(MOMENTUM).add_(grad - u)
    moved = theta - LR * v
    theta.copy_(moved * (radius / torch.linalg.vector_norm(moved)))


_compiled = torch.compile(_plain_step, dynamic=True)


def compiled(problem: Problem) -> Contender:
    """Return the plain step under torch.compile, tensor by tensor, one graph for all sizes.

    Raises:
        Unavailable: torch.compile fails; the message is the first line of its error.
    """
    references, count = problem.references, len(problem.references)
    columns = (problem.thetas, problem.grads, problem.momenta, references)
    flat = [tuple(t.detach().view(-1) for t in row) for row in zip(*columns, strict=False)]
    radii = [r.norm() for r in references]
    rest = [x[count:] for x in (problem.thetas, problem.grads, problem.momenta)]

    @torch.no_grad()
    def step() -> None:
        for row, radius in zip(flat, radii, strict=True):
            _compiled(*row, radius)  # type: ignore[call-arg]
        if rest[0]:
            _fused_sgd(*rest)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step()
            step()
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Unavailable(f"torch.compile: {lines[0][:200]}") from None
    return Contender(COMPILE, step, held=[*references, *radii])


PEERS: Mapping[str, Callable[[Problem], Contender]] = {
    SGD: sgd,
    AUTOGRAD: autograd,
    FOREACH: foreach,
    COMPILE: compiled,
    PLAIN: plain,
}


def peers(workload: Workload) -> list[str]:
    """Return the names of the peers of a workload."""
    if workload.half:
        return [SGD, PLAIN]
    return [SGD, AUTOGRAD, FOREACH, *([COMPILE] if workload.compiled else [])]
