# SPDX-License-Identifier: Apache-2.0
"""Operators of ``torch.export`` graphs that d3fast runs: a list of torch's own, without effects.

In-place operators run as the others and their value takes the place of the one they change. That is
the same unless a view of the changed value is read later, which is refused.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from d3fast.hub.programs.aten_graph import AtenNode, Value
from d3fast.io.untrusted import printable

_ATEN = """
abs.default add.Scalar add.Tensor addmm.default amax.default amin.default avg_pool2d.default
adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_max_pool2d.default baddbmm.default
batch_norm.default bmm.default cat.default ceil.default celu.default chunk.default clamp.default
clamp_max.default clamp_min.default constant_pad_nd.default conv1d.default conv2d.default
conv2d.padding cos.default div.Scalar div.Tensor einsum.default elu.default eq.Scalar eq.Tensor
erf.default exp.default expand.default flatten.using_ints floor.default ge.Scalar gelu.default
group_norm.default gt.Scalar hardsigmoid.default hardswish.default hardtanh.default
index_select.default instance_norm.default layer_norm.default le.Scalar leaky_relu.default
linalg_vector_norm.default linear.default log.default log_softmax.int logical_not.default lt.Scalar
masked_fill.Scalar matmul.default max_pool1d.default max_pool2d.default maximum.default mean.default
mean.dim minimum.default mish.default mm.default mul.Scalar mul.Tensor narrow.default neg.default
ne.Scalar pad.default permute.default pixel_shuffle.default pixel_unshuffle.default
pow.Tensor_Scalar prelu.default reciprocal.default relu.default relu6.default reshape.default
roll.default round.default rsqrt.default rsub.Scalar scaled_dot_product_attention.default
select.int selu.default sigmoid.default silu.default sin.default slice.Tensor softmax.int
softplus.default split.Tensor split_with_sizes.default sqrt.default square.default squeeze.default
squeeze.dim squeeze.dims stack.default sub.Scalar sub.Tensor sum.default sum.dim_IntList t.default
tanh.default threshold.default to.dtype transpose.int unbind.int unflatten.int unsqueeze.default
upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_nearest2d.vec var.correction view.default
where.self zeros_like.default ones_like.default
"""
# Operators that return the value itself: those that only copy, and those of training.
_SAME = (
    *("alias.default", "clone.default", "contiguous.default", "detach.default", "detach_.default"),
    *("lift_fresh_copy.default", "_to_copy.default", "dropout.default", "feature_dropout.default"),
)
_NUMBERS = ("add", "sub", "mul", "floordiv", "neg", "pow", "truediv", "getitem")
_CREATE = ("full.default", "arange.default", "arange.start", "zeros.default", "ones.default")
_MOVES = """
chunk.default expand.default flatten.using_ints narrow.default permute.default reshape.default
select.int slice.Tensor split.Tensor split_with_sizes.default squeeze.default squeeze.dim
squeeze.dims t.default to.dtype transpose.int unbind.int unflatten.int unsqueeze.default
view.default
"""
VIEWS = frozenset([*_MOVES.split(), *_SAME])  # of the memory of their input, perhaps


def _aten(name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")

    def run(**given: Any) -> Any:
        return getattr(getattr(torch.ops.aten, packet), overload)(**given)

    return run


def _same(**given: Any) -> Any:
    dtype = given.get("dtype")
    value = next(iter(given.values()))
    return value if dtype is None else value.to(dtype)


def _getitem(a: Any, b: Any) -> Any:
    if not isinstance(a, list | tuple) or not isinstance(b, int):
        raise ValueError("an item of what is no list")
    return a[b]


def _contiguous(**given: Any) -> Tensor:
    value: Tensor = given["self"]
    return value.contiguous()


def _number(name: str) -> Callable[..., Any]:
    compute = _getitem if name == "getitem" else getattr(operator, name)

    def run(**given: Any) -> Any:
        numbers = list(given.values())
        plain = name == "getitem" or all(
            isinstance(each, int | float) and abs(each) < 2**40 for each in numbers
        )
        if not plain or (name == "pow" and abs(numbers[-1]) > 2):
            raise ValueError(f"an operator {name} on what are no sizes")
        return compute(*numbers)

    return run


def _size(**given: Any) -> int:
    return int(given["self"].shape[given["dim"]])


def _index(**given: Any) -> Tensor:
    """Return ``x[..., index, ...]`` with constant indices; a mask has a size that nobody knows."""
    indices = given["indices"]
    if any(each is not None and each.dtype not in (torch.int64, torch.int32) for each in indices):
        raise ValueError("an index by a mask depends on values")
    found: Tensor = torch.ops.aten.index.Tensor(given["self"], indices)
    return found


OPERATORS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **{name: _aten(name) for name in (*_ATEN.split(), *_CREATE)},
        **dict.fromkeys(_SAME, _same),
        **{f"_operator.{name}": _number(name) for name in _NUMBERS},
        "clone.default": _contiguous,
        "contiguous.default": _contiguous,
        "sym_size.int": _size,
        "index.Tensor": _index,
        "_assert_tensor_metadata.default": lambda **given: None,
    }
)


def plain_target(target: str) -> str:
    """Return the operator that is not in place.

    Example:
        >>> plain_target("relu_.default"), plain_target("add.Tensor")
        ('relu.default', 'add.Tensor')
    """
    name, _, overload = target.partition(".")
    return f"{name[:-1]}.{overload}" if name.endswith("_") and name[:1] != "_" else target


def check_targets(nodes: Sequence[AtenNode]) -> None:
    """Raise ``ValueError`` with the first operator that d3fast does not run.

    Example:
        >>> check_targets([AtenNode("item.default", (), ())])
        Traceback (most recent call last):
        ValueError: it has the operator item.default, which is not run
    """
    for node in nodes:
        if plain_target(node.target) not in OPERATORS:
            raise ValueError(f"it has the operator {printable(node.target, 100)}, which is not run")
        training = dict(node.arguments).get("train", dict(node.arguments).get("training", False))
        if training is True:
            raise ValueError("it was exported in training mode")


@dataclass(frozen=True)
class AtenStep:
    """An operator as a step of a program; see ``Step``.

    Attributes:
        node: the operator, not in place.
    """

    node: AtenNode

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values that it reads."""
        return self.node.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values that it makes."""
        return self.node.outputs

    def __call__(
        self, program: Any, values: Mapping[str, Any], device: torch.device | None = None
    ) -> Sequence[Any]:
        """Return the values that it makes; see ``Step``."""

        def held(given: Any) -> Any:
            if isinstance(given, Value):
                return values[given.name]
            return [held(each) for each in given] if isinstance(given, list) else given

        named = {name: held(given) for name, given in self.node.arguments}
        if self.node.target in _CREATE:
            named["device"] = next(program.parameters()).device
        made = OPERATORS[self.node.target](**named)
        return made if isinstance(made, list | tuple) else (made,)
