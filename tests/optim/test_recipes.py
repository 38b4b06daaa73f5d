"""How half types are trained: autocast, a gradient scaler, accumulation, clipping, together.

Of a linear classifier every gradient is recorded and the step taken once more, by hand and in
float64. ``backend="auto"``: the kernels where they take the dtype, else the plain-PyTorch twin.
"""

import contextlib
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD

pytestmark = pytest.mark.filterwarnings("ignore:param group . runs on the slower:UserWarning")

LR, MOMENTUM = 0.01, 0.9
SCALE = 1024.0

# Weights' dtype, whether the forward pass is under autocast, how close float64 is.
KINDS = {
    "f32": (torch.float32, False, 1e-6),
    "autocast": (torch.float32, True, 1e-6),
    "bf16": (torch.bfloat16, False, 4e-3),
    "f16": (torch.float16, False, 5e-4),
}


@dataclass
class Run:
    """A classifier in training, and the same one by hand."""

    kind: str
    scaled: bool = False
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        dtype, self.cast, self.bound = KINDS[self.kind]
        g = torch.Generator().manual_seed(0)
        self.x = torch.randn(32, 20, generator=g).to(dtype)
        self.y = torch.randint(0, 5, (32,), generator=g)
        self.p = nn.Parameter(torch.randn(5, 20, generator=g).to(dtype))
        self.opt = D3FusedSGD([self.p], track="all", lr=LR, momentum=MOMENTUM, **self.options)
        self.theta_0 = self.p.detach().double().clone()
        self.opt.warm_start("random", generator=g)
        self.theta, self.v = self.p.detach().double().clone(), torch.zeros(5, 20).double()
        self.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, enabled=self.scaled)

    def backward(self, rows=slice(None), weight=1.0):
        half = torch.autocast("cpu", torch.bfloat16) if self.cast else contextlib.nullcontext()
        with half:
            logits = nn.functional.linear(self.x[rows], self.p)
            loss = weight * nn.functional.cross_entropy(logits.float(), self.y[rows])
        self.scaler.scale(loss).backward()

    def step(self):
        self.scaler.step(self.opt)
        self.scaler.update()
        self.follow(self.p.grad.double())
        self.opt.zero_grad()

    def follow(self, grad):
        """The step of DESIGN, section 2, by hand; the sphere of theta_0."""
        delta = self.theta - self.theta_0
        self.v = MOMENTUM * self.v + grad - delta / delta.norm()
        self.theta = self.theta - LR * self.v
        self.theta = self.theta * (self.theta_0.norm() / self.theta.norm())


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_follows_float64(kind, scaled, relative_error):
    run = Run(kind, scaled)
    for _ in range(20):
        run.backward()
        run.step()
    assert relative_error([run.p], [run.theta]) <= run.bound
    (distance,) = run.opt.distances().values()
    assert float(distance) == pytest.approx(float((run.theta - run.theta_0).norm()), rel=run.bound)


@pytest.mark.parametrize("kind", ["f32", "autocast", "bf16"])
def test_a_scaler_of_a_power_of_two_changes_no_bit(kind, same_bits):
    runs = [Run(kind, scaled) for scaled in (False, True)]
    for run in runs:
        for _ in range(10):
            run.backward()
            run.step()
    assert same_bits(*([run.p, *run.opt.state[run.p].values()] for run in runs))


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_accumulate_over_parts_of_a_batch(kind, scaled, relative_error):
    run, whole = Run(kind, scaled), Run("f32")
    for _ in range(10):
        for part in range(4):
            run.backward(slice(8 * part, 8 * part + 8), weight=0.25)
        run.step()
        whole.backward()
        whole.step()
    assert relative_error([run.p], [run.theta]) <= run.bound
    assert relative_error([run.p], [whole.p]) <= 1e-2  # by the gradients' own rounding


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("kind", ["f32", "autocast", "bf16"])  # torch unscales no f16 gradients
def test_gradients_are_clipped_in_units_of_the_loss(kind, scaled, relative_error):
    run = Run(kind, scaled)
    for _ in range(10):
        run.backward()
        run.scaler.unscale_(run.opt)
        before = nn.utils.clip_grad_norm_([run.p], 0.05)
        assert 0.05 < float(before) < 10
        assert float(run.p.grad.float().norm()) == pytest.approx(0.05, rel=1e-2)
        run.step()
    assert relative_error([run.p], [run.theta]) <= run.bound


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("momentum_dtype", [None, torch.float32], ids=["own", "f32"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_overflow_moves_nothing_and_halves_the_scale(kind, momentum_dtype, steps, same_bits):
    run = Run(kind, True, {"momentum_dtype": momentum_dtype})
    for _ in range(steps):
        run.backward()
        run.step()
    held = lambda: [run.p.detach().clone(), *map(torch.clone, run.opt.state[run.p].values())]  # noqa: E731
    before = held()
    run.backward()
    run.p.grad[0, 0] = math.inf
    run.scaler.step(run.opt)
    run.scaler.update()
    assert len(held()) == len(before)
    assert same_bits(held(), before)
    assert run.scaler.get_scale() == SCALE / 2


@pytest.mark.parametrize("kind", KINDS)
def test_after_an_overflow_training_goes_on_as_if_nothing_had_been(kind, same_bits):
    runs = [Run(kind, True), Run(kind, True)]
    for overflows, run in enumerate(runs):
        for t in range(6):
            run.backward()
            if overflows and t == 2:
                run.p.grad.fill_(math.nan)
                run.scaler.step(run.opt)
                run.scaler.update(SCALE)
                run.opt.zero_grad()
                run.backward()
            run.step()
    assert same_bits(*([run.p, *run.opt.state[run.p].values()] for run in runs))
