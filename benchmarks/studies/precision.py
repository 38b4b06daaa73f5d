# SPDX-License-Identifier: Apache-2.0
"""Error of 1,000 steps with weights in a half type, against the same steps in float64.

The arithmetic of the step is float32. After every step the new weights are stored in one of
``STORAGE`` and read back before the next; the runs differ in nothing else. The step is the
plain-PyTorch reference (no kernels).

Two kinds of gradients: random ones, the same numbers in every run, and those of the clean loss of
the head of a digits classifier at the weights that the run has stored.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import typer
from torch import Tensor, nn

from benchmarks.studies.harness import RESULTS, save
from d3fast.data.sklearn_digits import digits
from d3fast.optim import D3FusedSGD
from d3fast.results.engine import run_jobs
from d3fast.results.format import MISSING, shortest, significant
from d3fast.results.jobs import Job, RunDir
from d3fast.results.pool import local_engine
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown
from d3fast.runtime.seeding import generator, global_seed
from d3fast.training.loss import CleanLoss

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LRS = (1e-4, 1e-3, 1e-2)
STARTS = ("near", "random")
SHAPES = ((10, 64), (10, 512), (128, 256))
MOMENTUM, STEPS, SEEDS = 0.9, 1000, 3
_LOWEST = {torch.bfloat16: -126, torch.float16: -14}  # exponents of the least normal numbers

Gradient = Callable[[int, Tensor], Tensor]  # (step, weights of the forward pass) -> gradient


def spacing(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the spacing of ``dtype`` around each element of a float32 tensor."""
    finest = int(torch.tensor(torch.finfo(dtype).eps).log2())
    exponent = (torch.frexp(x).exponent - 1).clamp(min=_LOWEST[dtype])
    return torch.ldexp(torch.ones_like(x), exponent + finest)


def _stochastic(x: Tensor, dtype: torch.dtype, draws: torch.Generator) -> tuple[Tensor, ...]:
    unit = spacing(x, dtype)
    return ((torch.floor(x / unit + torch.rand(x.shape, generator=draws)) * unit).to(dtype),)


def _nearest(x: Tensor, dtype: torch.dtype, draws: torch.Generator) -> tuple[Tensor, ...]:
    return (x.to(dtype),)


def _kahan(x: Tensor, dtype: torch.dtype, draws: torch.Generator) -> tuple[Tensor, ...]:
    return x.to(dtype), (x - x.to(dtype).float()).to(dtype)


def _split(x: Tensor, dtype: torch.dtype, draws: torch.Generator) -> tuple[Tensor, ...]:
    high = x.to(dtype).float()
    low = (x - high) / (spacing(high, dtype) * 2.0**-16)
    return high.to(dtype), low.round().clamp(-(2**15), 2**15 - 1).to(torch.int16)


def _master(x: Tensor, dtype: torch.dtype, draws: torch.Generator) -> tuple[Tensor, ...]:
    return x.to(dtype), x


def _joined(high: Tensor, low: Tensor | None = None) -> Tensor:
    if low is None:
        return high.float()
    if low.dtype == torch.float32:
        return low
    if low.dtype == torch.int16:
        return high.float() + low.float() * (spacing(high.float(), high.dtype) * 2.0**-16)
    return high.float() + low.float()


# (weights, dtype, draws) -> stored tensors: what the model sees, then what only the optimizer has.
STORAGE: Mapping[str, Callable[[Tensor, torch.dtype, torch.Generator], tuple[Tensor, ...]]] = {
    "to nearest": _nearest,
    "stochastic": _stochastic,
    "Kahan": _kahan,
    "int16 remainder": _split,
    "fp32 master": _master,
}
ROUNDED = "float64, rounded once"


@dataclass(frozen=True)
class Problem:
    """Start, reference and gradients of a run.

    Attributes:
        name: name in the rows.
        theta_0: the reference, float32 numbers that the half type represents exactly.
        start: the weights before the first step, likewise.
        gradient: gradient of the loss, in the dtype of the weights it is given.
    """

    name: str
    theta_0: Tensor
    start: Tensor
    gradient: Gradient


def _started(theta_0: Tensor, start: str, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    theta_0 = theta_0.to(dtype)
    opt = D3FusedSGD([nn.Parameter(theta_0.clone())], track="all", backend="reference")
    opt.warm_start(start, generator=generator(seed, "start"))
    return theta_0.float(), opt.param_groups[0]["params"][0].detach().float()


def random_problem(shape: tuple[int, int], start: str, dtype: torch.dtype, seed: int) -> Problem:
    """Return weights as ``nn.Linear`` draws them and gradients of norm 1, half of it noise."""
    draws = generator(seed, "weights")
    theta_0 = (2 * torch.rand(shape, generator=draws) - 1) / shape[1] ** 0.5
    direction = torch.randn(shape, generator=draws) / (2 * theta_0.numel()) ** 0.5

    def gradient(step: int, weights: Tensor) -> Tensor:
        noise = torch.randn(shape, generator=generator(seed, f"gradient {step}"))
        both = direction + noise / (2 * theta_0.numel()) ** 0.5
        return both.to(dtype).to(weights)

    return Problem(f"{shape[0]}x{shape[1]}", *_started(theta_0, start, dtype, seed), gradient)


def digits_head(start: str, dtype: torch.dtype, seed: int) -> Problem:
    """Return the head of a digits classifier with a frozen body, on 250 clean images."""
    splits = digits(seed, train=None, clean=250)
    with global_seed(seed):
        body, head = nn.Sequential(nn.Linear(64, 64), nn.ReLU()), nn.Linear(64, 10, bias=False)
    training = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.1, momentum=0.9)
    shuffle, loss = generator(seed, "shuffle"), CleanLoss(epsilon=0.1, weight=0.5)
    for _ in range(10):
        for images, labels in splits.train.batches(64, shuffle=shuffle):
            training.zero_grad()
            torch.autograd.backward(
                nn.functional.cross_entropy(head(body(images.flatten(1))), labels)
            )
            training.step()
    (whole,) = splits.clean.batches(250)
    features = body(whole[0].flatten(1)).detach()

    def gradient(step: int, weights: Tensor) -> Tensor:
        rows = torch.randint(250, (64,), generator=generator(seed, f"batch {step}"))
        at = weights.clone().requires_grad_()
        with torch.enable_grad():
            value = loss(features[rows].to(at) @ at.T, whole[1][rows])
        return torch.autograd.grad(value, at)[0]

    theta_0 = head.weight.detach()
    return Problem("digits head", *_started(theta_0, start, dtype, seed), gradient)


def _optimizer(problem: Problem, dtype: torch.dtype, lr: float) -> D3FusedSGD:
    return D3FusedSGD(
        [nn.Parameter(problem.start.to(dtype, copy=True))],
        lr=lr,
        momentum=MOMENTUM,
        reference=[problem.theta_0],
        track="all",
        backend="reference",
    )


def run_float64(problem: Problem, lr: float, steps: int) -> Tensor:
    """Return the weights after ``steps`` steps in float64."""
    opt = _optimizer(problem, torch.float64, lr)
    (theta,) = opt.param_groups[0]["params"]
    for t in range(steps):
        theta.grad = problem.gradient(t, theta.detach())
        opt.step()
    return theta.detach()


def run_half(
    problem: Problem,
    dtype: torch.dtype,
    storage: str,
    momentum: str,
    lr: float,
    steps: int,
    seed: int,
) -> tuple[Tensor, ...]:
    """Return the stored tensors after ``steps`` steps in float32.

    Args:
        problem: the weights and gradients.
        dtype: the half type of weights and gradients.
        storage: one of ``STORAGE``.
        momentum: ``"fp32"``, or ``"same"`` for a buffer in ``dtype``, rounded to nearest.
        lr: learning rate.
        steps: number of steps.
        seed: draws stochastic rounding.
    """
    opt = _optimizer(problem, torch.float32, lr)
    (theta,), draws = opt.param_groups[0]["params"], generator(seed, "rounding")
    kept = STORAGE[storage](problem.start, dtype, draws)
    for t in range(steps):
        theta.data.copy_(_joined(*kept))
        theta.grad = problem.gradient(t, kept[0].float()).to(dtype).float()
        opt.step()
        kept = STORAGE[storage](theta.detach(), dtype, draws)
        if momentum == "same":
            buffer = opt.state[theta]["momentum_buffer"]
            buffer.copy_(buffer.to(dtype))
    return kept


def _shown(value: Tensor) -> float:
    return float(f"{float(value):.3g}")


def errors(problem: Problem, got: Tensor, want: Tensor) -> dict[str, float]:
    """Return relative errors of the weights, computed in float64.

    Args:
        problem: the reference and the start.
        got: the weights as the model sees them.
        want: the weights of the float64 run.

    Returns:
        ``distance`` and ``norm``: of the distance from theta_0 and of the norm; ``weights`` and
        ``way``: norm of the difference over that of the weights and of the displacement.
    """
    got, theta_0, start = (x.double() for x in (got, problem.theta_0, problem.start))
    distance, off = (want - theta_0).norm(), (got - want).norm()
    return {
        "distance": _shown(((got - theta_0).norm() - distance).abs() / distance),
        "norm": _shown((got.norm() / theta_0.norm() - 1).abs()),
        "weights": _shown(off / want.norm()),
        "way": _shown(off / (want - start).norm()),
    }


def extra_bytes(kept: Sequence[Tensor]) -> int:
    """Return the bytes per parameter of the tensors beside the weights."""
    return sum(x.element_size() for x in kept[1:])


def problems(dtype: torch.dtype, seed: int) -> Iterator[tuple[str, Problem]]:
    """Yield all problems of one seed with the name of the start."""
    for start in STARTS:
        for shape in SHAPES:
            yield start, random_problem(shape, start, dtype, seed)
        yield start, digits_head(start, dtype, seed)


def study(seed: int, steps: int = STEPS) -> Iterator[dict[str, Any]]:
    """Yield one row per dtype, problem, learning rate, storage and dtype of the momentum.

    ``carried`` is ``way`` of the weights that the optimizer knows, compensation included.
    """
    for name, dtype in DTYPES.items():
        for start, problem in problems(dtype, seed):
            for lr in LRS:
                want = run_float64(problem, lr, steps)
                about = {
                    "kind": "run",
                    "dtype": name,
                    "case": problem.name,
                    "start": start,
                    "lr": lr,
                    "seed": seed,
                }
                once = {**errors(problem, want.to(dtype), want), "carried": None}
                yield {**about, "way_kept": ROUNDED, "momentum": None, "bytes": None, **once}
                for storage in STORAGE:
                    for momentum in ("same", "fp32"):
                        kept = run_half(problem, dtype, storage, momentum, lr, steps, seed)
                        # Weights, gradient and reference in the half type, and what is added.
                        size = 6 + (2 if momentum == "same" else 4) + extra_bytes(kept)
                        known = errors(problem, _joined(*kept), want)["way"]
                        yield {
                            **about,
                            "way_kept": storage,
                            "momentum": momentum,
                            "bytes": size,
                            **errors(problem, kept[0], want),
                            "carried": known,
                        }


@dataclass(frozen=True)
class StudyJob:
    """All runs of one seed.

    Attributes:
        seed: draws the weights, the gradients and the rounding.
    """

    seed: int
    kind: ClassVar[str] = "precision"

    @property
    def name(self) -> str:
        """The seed."""
        return f"seed {self.seed}"

    def run(self, run_dir: RunDir, progress: bool) -> list[dict[str, Any]]:
        """Return the rows of the seed."""
        return list(study(self.seed))


def in_percent(values: Sequence[float | None]) -> str:
    """Return median and range in percent with two significant digits."""
    present = [100 * value for value in values if value is not None]
    if not present:
        return MISSING
    middle, low, high = (significant(f(present), 2) for f in (statistics.median, min, max))
    return f"{middle} ({low}–{high})"


def precision_table(results: Results, dtype: str, measure: str) -> str:
    """Return one line per storage and momentum, one column per learning rate, in percent.

    Args:
        results: results of the study.
        dtype: a name in ``DTYPES``.
        measure: ``"distance"``, ``"norm"``, ``"weights"`` or ``"way"``, as ``errors`` has them;
            ``"carried"``, as ``study`` has it.
    """
    rows = [row for row in results.rows if row["dtype"] == dtype]
    lrs = sorted({row["lr"] for row in rows})
    kinds = sorted(
        {(row["way_kept"], row["momentum"]) for row in rows},
        key=lambda kind: ([*STORAGE, ROUNDED].index(kind[0]), kind[1] != "same"),
    )
    lines = []
    for storage, momentum in kinds:
        own = [row for row in rows if (row["way_kept"], row["momentum"]) == (storage, momentum)]
        size = own[0]["bytes"]
        lines.append(
            [
                storage,
                {"same": dtype, None: MISSING}.get(momentum, momentum),
                MISSING if size is None else str(size),
                *(in_percent([r[measure] for r in own if r["lr"] == lr]) for lr in lrs),
            ]
        )
    headings = ["weights kept", "momentum", "bytes", *(f"lr {shortest(lr)}" for lr in lrs)]
    return to_markdown(text_table(headings, lines))


def worst_table(results: Results) -> str:
    """Return the largest errors in percent, momentum in the dtype of the weights."""
    lines = []
    for storage in (*STORAGE, ROUNDED):
        own = [
            r for r in results.rows if r["way_kept"] == storage and r["momentum"] in ("same", None)
        ]
        size = own[0]["bytes"]
        worst = (
            significant(100 * max(r[measure] for r in own if r["dtype"] == dtype), 2)
            for measure in ("distance", "way")
            for dtype in DTYPES
        )
        lines.append([storage, MISSING if size is None else str(size), *worst])
    headings = ["weights kept", "bytes"]
    headings += [
        f"{name}, {dtype}" for name in ("distance error", "displacement error") for dtype in DTYPES
    ]
    return to_markdown(text_table(headings, lines))


def run_seeds(study: str, jobs: Sequence[Job], workers: int) -> None:
    """Run one job per seed, each of which gives rows, and write the result file of the study."""
    with local_engine(RunDir(RESULTS), ["cpu"] * workers) as engine:
        parts = run_jobs(jobs, engine, title="seeds")
    settings = {
        "steps": STEPS,
        "momentum": MOMENTUM,
        "lrs": list(LRS),
        "starts": list(STARTS),
        "shapes": [list(shape) for shape in SHAPES],
        "constraint": "norm_sphere",
        "distance_weight": 1.0,
        "seeds": len(jobs),
    }
    rows = [row for part in parts for row in part]
    save(f"{study}-cpu", f"{study} --seeds {len(jobs)}", settings, rows)


def precision(
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = SEEDS,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
) -> None:
    """Run all seeds and write ``precision-cpu.json``."""
    run_seeds("precision", [StudyJob(seed) for seed in range(seeds)], workers)
