# SPDX-License-Identifier: Apache-2.0
"""Operators of ONNX on each element, and softmax."""

from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from d3fast.hub.programs.onnx_call import Call, Operator


def _one(compute: Callable[[Tensor], Tensor]) -> Operator:
    return lambda call: compute(call[0])


def _two(compute: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call: compute(call[0], call[1])


def _many(compute: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call: reduce(compute, call.all())


def _div(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point() or b.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def _mod(call: Call) -> Tensor:
    if call.attribute("fmod", 0):
        return torch.fmod(call[0], call[1])
    return torch.remainder(call[0], call[1])


def _pow(call: Call) -> Tensor:
    return torch.pow(call[0], call[1]).to(call[0].dtype)


def _clip(call: Call) -> Tensor:
    low, high = call.get(1), call.get(2)
    old = [call.node.attributes.get(name) for name in ("min", "max")]
    x = call[0]
    for bound, number, compute in ((low, old[0], torch.maximum), (high, old[1], torch.minimum)):
        if bound is not None:
            x = compute(x, bound.to(x.dtype))
        elif isinstance(number, float):
            x = compute(x, torch.tensor(number, dtype=x.dtype, device=x.device))
    return x


def _gelu(call: Call) -> Tensor:
    how = "tanh" if call.attribute("approximate", "none") == "tanh" else "none"
    return functional.gelu(call[0], approximate=how)


def _hard_sigmoid(call: Call) -> Tensor:
    return (call.attribute("alpha", 0.2) * call[0] + call.attribute("beta", 0.5)).clamp(0, 1)


def _prelu(call: Call) -> Tensor:
    x = call[0]
    return torch.where(x < 0, call[1] * x, x)


def _selu(call: Call) -> Tensor:
    alpha = call.attribute("alpha", 1.6732632)
    return call.attribute("gamma", 1.050701) * functional.elu(call[0], alpha)


def _softmax(compute: Callable[[Tensor, int], Tensor]) -> Operator:
    def run(call: Call) -> Tensor:
        x = call[0]
        if call.opset >= 13:
            return compute(x, call.attribute("axis", -1))
        flat = x.flatten(call.attribute("axis", 1) % max(x.ndim, 1))  # of all further dimensions
        return compute(flat, -1).reshape(x.shape)

    return run


ELEMENTS: Mapping[str, Operator] = MappingProxyType(
    {
        "Abs": _one(torch.abs),
        "Add": _two(torch.add),
        "And": _two(torch.logical_and),
        "Ceil": _one(torch.ceil),
        "Celu": lambda call: functional.celu(call[0], call.attribute("alpha", 1.0)),
        "Clip": _clip,
        "Cos": _one(torch.cos),
        "Div": _two(_div),
        "Elu": lambda call: functional.elu(call[0], call.attribute("alpha", 1.0)),
        "Equal": _two(torch.eq),
        "Erf": _one(torch.erf),
        "Exp": _one(torch.exp),
        "Floor": _one(torch.floor),
        "Gelu": _gelu,
        "Greater": _two(torch.gt),
        "GreaterOrEqual": _two(torch.ge),
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": lambda call: call[0] * (call[0] / 6 + 0.5).clamp(0, 1),
        "LeakyRelu": lambda call: functional.leaky_relu(call[0], call.attribute("alpha", 0.01)),
        "Less": _two(torch.lt),
        "LessOrEqual": _two(torch.le),
        "Log": _one(torch.log),
        "LogSoftmax": _softmax(torch.log_softmax),
        "Max": _many(torch.maximum),
        "Mean": lambda call: reduce(torch.add, call.all()) / len(call),
        "Min": _many(torch.minimum),
        "Mish": _one(functional.mish),
        "Mod": _mod,
        "Mul": _two(torch.mul),
        "Neg": _one(torch.neg),
        "Not": _one(torch.logical_not),
        "Or": _two(torch.logical_or),
        "PRelu": _prelu,
        "Pow": _pow,
        "Reciprocal": _one(torch.reciprocal),
        "Relu": _one(torch.relu),
        "Round": _one(torch.round),
        "Selu": _selu,
        "Sigmoid": _one(torch.sigmoid),
        "Sign": _one(torch.sign),
        "Sin": _one(torch.sin),
        "Softmax": _softmax(torch.softmax),
        "Softplus": _one(functional.softplus),
        "Softsign": _one(functional.softsign),
        "Sqrt": _one(torch.sqrt),
        "Sub": _two(torch.sub),
        "Sum": _many(torch.add),
        "Swish": lambda call: call[0] * torch.sigmoid(call.attribute("alpha", 1.0) * call[0]),
        "Tanh": _one(torch.tanh),
        "Where": lambda call: torch.where(call[0].bool(), call[1], call[2]),
    }
)
