# SPDX-License-Identifier: Apache-2.0
"""``torch.ops.d3fast.step``: one step of one param group as an operator, for compiled graphs.

Kernels that take addresses cannot be traced. The operator names the tensors that it writes to, and
its result depends on its arguments alone: a graph may be functionalized, reordered and run on
copies. Source: torch.library.custom_op.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from d3fast.optim.backends import cuda, group_plan, native, torch_backend
from d3fast.optim.backends.plans import Plans
from d3fast.optim.kahan import HALF_TYPES
from d3fast.optim.layout import same_layout
from d3fast.optim.options import check_gradient, check_options, is_tracked
from d3fast.optim.rules import RULES

# Options that are arguments of the operator, beside those of the rule: numbers as tensors, which
# may change without a recompilation, and constants of the graph.
NUMBERS = ("lr", "weight_decay", "distance_weight")
FIXED = ("maximize", "capturable", "distance_p", "scope", "constraint", "radius_unit")

Columns = Mapping[str, Sequence[Tensor]]

# Columns that hold one number per tensor, not an array of its shape.
_NUMBER_COLUMNS = {"distance": torch.float64, "steps": torch.float32}


class PlanCache:
    """The plans of an optimizer's param groups, kept from one call of the operator to the next.

    Args:
        captured: list that takes over what captured CUDA graphs address.

    Attributes:
        key: the number by which the operator finds the cache; no result depends on the cache.
        plans: by number of the group.
    """

    _keys = itertools.count()

    def __init__(self, captured: list[Any]) -> None:
        self.key = next(self._keys)
        self.plans: Plans[_Plan] = Plans(captured)
        _CACHES[self.key] = self


_CACHES: WeakValueDictionary[int, PlanCache] = WeakValueDictionary()  # a graph holds numbers only


class _Plan:
    """A launcher and the identity of the tensors that it was made for.

    The guard of eager steps compares Python objects. Dynamo may call the operator with copies, new
    objects in each step, so the operator compares the memory of the tensors instead. References
    are never written and never copied: they are compared as objects, with their versions.

    Args:
        columns: ``theta`` and the kernels' other columns of one group.
        joint: one norm over the group.

    Raises:
        RuntimeError: a CUDA graph is being captured.
        ValueError: a tensor whose shape or layout differs from its parameter's.
    """

    def __init__(self, columns: Columns, joint: bool) -> None:
        theta = columns["theta"]
        for name, tensors in columns.items():
            if tensors and len(tensors) != len(theta):
                raise ValueError(f"{name}: {len(theta)} tensors or none, got {len(tensors)}")
            if len({t.dtype for t in tensors}) > 1:
                raise ValueError(f"{name}: tensors of one dtype, got several")
            for p, tensor in zip(theta, tensors, strict=False):
                _check_like(name, tensor, p)
        if theta[0].is_cuda:
            cuda.refuse_capture(theta[0].device)
        self._memory = _memory(columns, joint)
        self._references = [(t, t._version) for t in columns["reference"]]  # and so kept alive
        self.launcher = group_plan.make_launcher(columns, joint)
        self._addressed: Columns = {}

    @property
    def captured(self) -> bool:
        """True once a step of the plan was captured in a CUDA graph."""
        return self.launcher.captured

    def keep_captured(self, columns: Columns) -> None:
        """Keep the tensors of the step that has just been captured, if any, alive."""
        if self.captured and not self._addressed:
            self._addressed = columns

    def has_references(self, references: Sequence[Tensor]) -> bool:
        """Return whether these are the plan's references, unchanged."""
        return len(references) == len(self._references) and all(
            t is own and t._version == version
            for t, (own, version) in zip(references, self._references, strict=True)
        )

    def matches(self, columns: Columns, joint: bool) -> bool:
        """Return whether the plan was made for these tensors."""
        return self.has_references(columns["reference"]) and _memory(columns, joint) == self._memory


def _memory(columns: Columns, joint: bool) -> list[Any]:
    tensors = (t for column in columns.values() for t in column)
    return [joint, *((t.data_ptr(), t.dtype, t.shape, t.stride()) for t in tensors)]


def _check_like(name: str, tensor: Tensor, p: Tensor) -> None:
    if name in _NUMBER_COLUMNS:
        dtype = _NUMBER_COLUMNS[name]
        if tensor.dtype != dtype or tensor.shape != () or tensor.device != p.device:
            kind = str(dtype).removeprefix("torch.")
            raise ValueError(f"{name} must be a 0-dim {kind} tensor on {p.device}")
        return
    if tensor.shape != p.shape or tensor.device != p.device:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)} on {tensor.device}, its parameter "
            f"{tuple(p.shape)} on {p.device}"
        )
    wide = torch.promote_types(p.dtype, torch.float32)
    if name == "variance" and tensor.dtype != wide:
        raise ValueError(f"variance has {tensor.dtype}, {p.dtype} parameters need {wide}")
    if not same_layout(tensor, p):
        raise ValueError(f"{name} has strides {tensor.stride()}, its parameter {p.stride()}")


def _options(
    rule: str, variant: str, numbers: Sequence[Tensor], radii: Sequence[Tensor]
) -> dict[str, Any]:
    """Return the options of a group from the arguments of the operator."""
    # Numbers on the host are read; those on a device would make the host wait.
    values, bounds = ([n.item() if n.is_cpu else n for n in ns] for ns in (numbers, radii))
    own = next(r for r in RULES if r.name == rule).from_numbers(variant, values[len(NUMBERS) :])
    return {
        **dict(zip(NUMBERS, values, strict=False)),
        **own,
        "radius": tuple(bounds) if len(bounds) == 2 else next(iter(bounds), None),
        "reference_dtype": None,
        "reference_device": None,
        "momentum_dtype": None,
    }


@torch.no_grad()
def _step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    scaled_grads: Sequence[Tensor],
    references: Sequence[Tensor],
    momenta: Sequence[Tensor],
    variances: Sequence[Tensor],
    steps: Sequence[Tensor],
    distances: Sequence[Tensor],
    compensations: Sequence[Tensor],
    numbers: Sequence[Tensor],
    radii: Sequence[Tensor],
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    rule: str,
    variant: str,
    *fixed: Any,
) -> None:
    """Take one step of one group; ``fixed`` are the options ``FIXED``, backend, cache and group."""
    *options, backend, cache, index = fixed
    group = {
        **_options(rule, variant, numbers, radii),
        **dict(zip(FIXED, options, strict=True)),
        "params": params,
        "backend": backend,
    }
    check_options(group)
    on_host = backend == "reference" or params[0].is_cpu
    if found_inf is not None and on_host and bool(found_inf != 0):
        return
    grads = grads or scaled_grads
    for p, grad in zip(params, grads, strict=True):
        check_gradient(grad, p)
    given = {
        "reference": references,
        "momentum": momenta,
        "variance": variances,
        "steps": steps,
        "distance": distances,
        "compensation": compensations,
    }
    names = native.state_columns(group)
    columns = {"theta": params, **{c: given[c] if name else [] for c, name in names.items()}}
    if backend == "reference":
        members = _members(group, grads, columns)
        torch_backend.step_group(members, group, grad_scale=grad_scale)
        return
    for column in ("reference", "momentum"):
        if columns[column]:
            group[f"{column}_dtype"] = columns[column][0].dtype
    _launch(columns, grads, group, grad_scale, found_inf, _CACHES.get(cache), index)


def _launch(
    columns: Columns,
    grads: Sequence[Tensor],
    group: Mapping[str, Any],
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    cache: PlanCache | None,
    index: int,
) -> None:
    joint = group["scope"] == "group"
    plan = cache.plans.get(index) if cache is not None else None
    # The tensors may be new copies in each step; the cached norms are copied with them.
    verify = plan is None or not plan.has_references(columns["reference"])
    if plan is None or not plan.matches(columns, joint):
        reason = native.why_not(group)
        if reason is not None:
            raise ValueError(f"the kernels cannot take this step: {reason}")
        plan = _Plan(columns, joint)
        if cache is not None:
            cache.plans[index] = plan
    fitted = [native.fit_gradient(g, p) for g, p in zip(grads, columns["theta"], strict=True)]
    addresses = [g.data_ptr() for g in fitted]
    options = plan.launcher.options(group)
    plan.launcher.step(addresses, [], verify, options, grad_scale, found_inf)
    plan.keep_captured(columns)
    if grad_scale is not None:
        for theirs, ours in zip(grads, fitted, strict=True):
            if theirs is not ours and not theirs._is_zerotensor():
                theirs.copy_(ours)


def _members(
    group: Mapping[str, Any],
    grads: Sequence[Tensor],
    columns: Columns,
) -> list[torch_backend.Member]:
    tracked, remainders = is_tracked(group), iter(columns["compensation"])

    def entry(column: str, i: int) -> Any:
        return columns[column][i] if columns[column] else None

    return [
        torch_backend.Member(
            p,
            grad,
            entry("momentum", i),
            False,
            entry("reference", i),
            next(remainders) if tracked and p.dtype in HALF_TYPES else None,
            entry("variance", i),
            entry("steps", i),
        )
        for i, (p, grad) in enumerate(zip(group["params"], grads, strict=True))
    ]


# Inductor must not put the operator into a CUDA graph of its own: a replay would not read the
# numbers that the host reads. An older torch has no such tag.
_UNSAFE: Any = getattr(torch.Tag, "cudagraph_unsafe", None)
_TAGS: dict[str, Any] = {} if _UNSAFE is None else {"tags": [_UNSAFE]}

_OPERATOR = torch.library.custom_op(
    "d3fast::step",
    _step,
    mutates_args=(
        *("params", "scaled_grads", "momenta", "variances", "steps"),
        *("distances", "compensations"),
    ),
    schema="(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] scaled_grads, Tensor[] references, "
    "Tensor(c!)[] momenta, Tensor(d!)[] variances, Tensor(e!)[] steps, Tensor(f!)[] distances, "
    "Tensor(g!)[] compensations, Tensor[] numbers, Tensor[] radii, Tensor? grad_scale, "
    "Tensor? found_inf, str rule, str variant, bool maximize, bool capturable, float distance_p, "
    "str scope, str? constraint, str radius_unit, str backend, int cache, int group) -> ()",
    **_TAGS,
)
_OPERATOR.register_fake(lambda *args: None)
