"""torch's database of optimizers (``torch.testing._internal.common_optimizers``), with ours in it.

An entry names one of our classes and the class of torch that it replaces. The inputs of that class
are taken from the database, each as plain step and with distance and constraint, on both backends.
"""

import copy
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

from d3fast import D3FusedAdamW, D3FusedSGD

DATABASE = "torch.testing._internal.common_optimizers"

PLAIN = {"distance_weight": 0.0, "constraint": None}
CONFIGURATIONS = {"plain": PLAIN, "d3": {"track": "all"}}
BACKENDS = ("fused", "reference")


def _import_database():
    reason = "this torch has no importable database of optimizers (it needs expecttest)"
    thawed = not torch.backends.flags_frozen()
    pytest.importorskip(DATABASE, reason=reason, exc_type=ImportError)
    if thawed:  # the database freezes them for the whole process
        setattr(torch.backends, "__allow_nonbracketed_mutation_flag", True)
    return import_module(DATABASE)


database = _import_database()


@dataclass(frozen=True)
class Entry:
    """One of our classes, and the class of torch whose entry it shares.

    Args:
        ours: our class.
        theirs: torch's class.
        refused: arguments of torch's class that ours refuses where they are set.
    """

    ours: type
    theirs: type
    refused: tuple[str, ...] = ()

    @property
    def info(self):
        """torch's entry with our class and what it supports."""
        theirs = next(info for info in database.optim_db if info.optim_cls is self.theirs)
        return database.OptimizerInfo(
            self.ours,
            optim_inputs_func=theirs.optim_inputs_func,
            optim_error_inputs_func=theirs.optim_error_inputs_func,
            scheduler_inputs=theirs.scheduler_inputs,
            supported_impls=("fused",),
            supports_fused_on=("cpu", "cuda"),
            supports_complex=False,
            has_capturable_arg=True,
        )

    def inputs(self, refused=False):
        """The inputs that our class takes, or those that it refuses."""
        of = lambda given: any(given.kwargs.get(name) for name in self.refused)  # noqa: E731
        return [i for i in self.info.optim_inputs_func(device="cpu") if of(i) == refused]


ENTRIES = [
    Entry(D3FusedSGD, torch.optim.SGD),
    Entry(D3FusedAdamW, torch.optim.AdamW, refused=("amsgrad",)),
]


@dataclass(frozen=True)
class Case:
    """An entry with one of its inputs, a configuration and a backend."""

    entry: Entry
    desc: str
    kwargs: dict[str, Any] = field(hash=False)
    configuration: str = "plain"
    backend: str = "fused"

    def make(self, params, **options):
        """Return our optimizer."""
        own = {**copy.deepcopy(self.kwargs), **CONFIGURATIONS[self.configuration]}
        return self.entry.ours(params, **{"backend": self.backend, **own, **options})

    def make_theirs(self, params, **options):
        """Return the optimizer of torch with the same input."""
        return self.entry.theirs(params, **{**copy.deepcopy(self.kwargs), **options})

    def __str__(self):
        name = f"{self.entry.ours.__name__}-{self.configuration}-{self.backend}"
        return f"{name}-{self.desc.replace(' ', '_')}"


def _cases():
    for entry in ENTRIES:
        inputs = entry.inputs()
        for given in inputs:
            for configuration in CONFIGURATIONS:
                for backend in BACKENDS:
                    case = Case(entry, given.desc, given.kwargs, configuration, backend)
                    marks = [] if given is inputs[-1] else [pytest.mark.slow]
                    yield pytest.param(case, id=str(case), marks=marks)


CASES = list(_cases())
entries = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.ours.__name__)
# One input per configuration and backend: for what no option of a step has a part in.
USUAL = [p for p in CASES if not p.marks]
# Without momentum, with it, and with an lr in a tensor: all that a schedule drives.
DRIVEN = [p for p in CASES if not p.marks or p.values[0].desc in ("default", "tensor lr")]


def of(params, **wanted):
    """Parametrize a test over the cases with the wanted configuration or backend."""
    has = lambda case: all(getattr(case, name) == value for name, value in wanted.items())  # noqa: E731
    return pytest.mark.parametrize("case", [p for p in params if has(p.values[0])])


cases, plain_cases = of(CASES), of(CASES, configuration="plain")
fused_cases = of(CASES, backend="fused")


def parameters(dtype=torch.float64, seed=0):
    """Return parameters of several shapes, as a model would have.

    A single number is not among them: on its norm sphere it stays, and its distance is a rounding
    error.
    """
    g = torch.Generator().manual_seed(seed)
    shapes = ((6, 5), (7,), (3, 2, 2))
    draws = [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]
    return [nn.Parameter(t.add(1).to(dtype)) for t in draws]


def set_gradients(params, step):
    """Give every parameter a gradient that depends on the step and its position alone."""
    g = torch.Generator().manual_seed(100 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=g, dtype=torch.float64).to(p)


def descend(opt, steps=3, start=0):
    """Take steps; return copies of the parameters."""
    params = [p for group in opt.param_groups for p in group["params"]]
    for step in range(start, start + steps):
        set_gradients(params, step)
        opt.step()
    return [p.detach().clone() for p in params]


def same_bits(first, second):
    """Return whether two lists of tensors are equal bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def relative_error(got, want):
    """Return ``||got - want|| / ||want||`` over all tensors, in float64."""
    got, want = (torch.cat([t.detach().double().flatten() for t in ts]) for ts in (got, want))
    return float((got - want).norm() / want.norm())
