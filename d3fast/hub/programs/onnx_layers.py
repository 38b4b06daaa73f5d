# SPDX-License-Identifier: Apache-2.0
"""Operators of ONNX with windows, norms and products."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from d3fast.hub.programs.onnx_call import Call, Operator

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_MAXIMA = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGES: Mapping[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


def window(
    call: Call, kernel: Sequence[int], size: Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    """Return strides, dilations and pads of a window: the pads before and behind, in turn.

    Args:
        call: a convolution or a pool.
        kernel: size of the window.
        size: of the image, for pads that depend on it.

    Raises:
        ValueError: lists of another length.
    """
    rank = len(kernel)
    strides = call.ints(99, "strides") or [1] * rank
    dilations = call.ints(99, "dilations") or [1] * rank
    pads = call.ints(99, "pads") or [0] * 2 * rank
    if len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank:
        raise ValueError(f"{call.node.op} has strides, dilations or pads of another rank")
    auto = call.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = [0] * 2 * rank
        for at, (k, n) in enumerate(zip(kernel, size, strict=True)):
            reach = (k - 1) * dilations[at] + 1
            total = max(0, (-(-n // strides[at]) - 1) * strides[at] + reach - n)
            less, more = total // 2, total - total // 2
            first = auto == "SAME_UPPER"
            pads[at], pads[rank + at] = (less, more) if first else (more, less)
    elif auto == "VALID":
        pads = [0] * 2 * rank
    return strides, dilations, pads


def padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Return an image with pads of ONNX (all before, then all behind) around its last dimensions.

    Example:
        >>> padded(torch.ones(1, 1, 2, 2), [0, 1, 0, 0]).shape
        torch.Size([1, 1, 2, 3])
    """
    if not any(pads):
        return x
    rank = len(pads) // 2
    turned = [pads[side * rank + at] for at in reversed(range(rank)) for side in (0, 1)]
    return functional.pad(x, turned, value=value)


def convolution(call: Call) -> Tensor:
    """Return a convolution whose weight is a value like any other."""
    x, weight = call[0], call[1]
    strides, dilations, pads = window(call, weight.shape[2:], x.shape[2:])
    made: Tensor = _CONVOLUTIONS[weight.ndim - 2](
        padded(x, pads),
        weight,
        call.get(2),
        stride=strides,
        dilation=dilations,
        groups=call.attribute("group", 1),
    )
    return made


def _gemm(call: Call) -> Tensor:
    a, b = call[0], call[1]
    a = a.T if call.attribute("transA", 0) else a
    b = b.T if call.attribute("transB", 0) else b
    made = call.attribute("alpha", 1.0) * (a @ b)
    added = call.get(2)
    return made if added is None else made + call.attribute("beta", 1.0) * added


def _symmetric(pads: Sequence[int], kernel: Sequence[int]) -> list[int] | None:
    """Return pads that torch's pools take themselves, which matters where sizes round up."""
    before, behind = pads[: len(kernel)], pads[len(kernel) :]
    if list(before) != list(behind) or any(2 * p > k for p, k in zip(before, kernel, strict=True)):
        return None
    return list(before)


def _max_pool(call: Call) -> Tensor:
    x, kernel = call[0], call.needed(99, "kernel_shape")
    strides, dilations, pads = window(call, kernel, x.shape[2:])
    own = _symmetric(pads, kernel)
    made: Tensor = _MAXIMA[len(kernel)](
        x if own is not None else padded(x, pads, -torch.inf),
        kernel,
        strides,
        own or 0,
        dilations,
        ceil_mode=bool(call.attribute("ceil_mode", 0)),
    )
    return made


def _average_pool(call: Call) -> Tensor:
    x, kernel = call[0], call.needed(99, "kernel_shape")
    strides, dilations, pads = window(call, kernel, x.shape[2:])
    if any(each != 1 for each in dilations):
        raise ValueError("AveragePool with dilations is not known")
    whole, pool = bool(call.attribute("count_include_pad", 0)), _AVERAGES[len(kernel)]
    up, own = bool(call.attribute("ceil_mode", 0)), _symmetric(pads, kernel)
    if own is not None:
        return pool(x, kernel, strides, own, ceil_mode=up, count_include_pad=whole)
    mean = pool(padded(x, pads), kernel, strides, ceil_mode=up)
    if whole:
        return mean
    return mean / pool(padded(torch.ones_like(x), pads), kernel, strides, ceil_mode=up)


def _global(reduce: Callable[[Tensor, list[int]], Tensor]) -> Operator:
    return lambda call: reduce(call[0], list(range(2, call[0].ndim)))


def _batch_norm(call: Call) -> Tensor:
    eps = call.attribute("epsilon", 1e-5)
    if call.attribute("training_mode", 0):  # how some exporters standardise weights
        return functional.batch_norm(call[0], None, None, call[1], call[2], training=True, eps=eps)
    return functional.batch_norm(call[0], call[3], call[4], call[1], call[2], eps=eps)


def _instance_norm(call: Call) -> Tensor:
    eps = call.attribute("epsilon", 1e-5)
    return functional.instance_norm(call[0], weight=call[1], bias=call[2], eps=eps)


def _layer_norm(call: Call) -> Tensor:
    x, axis = call[0], call.attribute("axis", -1)
    shape = x.shape[axis:]
    bias = call.get(2)
    return functional.layer_norm(
        x,
        shape,
        call[1].expand(shape),
        None if bias is None else bias.expand(shape),
        call.attribute("epsilon", 1e-5),
    )


def _group_norm(call: Call) -> Tensor:
    x, scale, bias = call[0], call[1], call[2]
    groups = call.attribute("num_groups", 1)
    if call.opset < 21:  # one number per group
        each = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return functional.group_norm(x, groups, scale, bias, call.attribute("epsilon", 1e-5))


def _local_response(call: Call) -> Tensor:
    return functional.local_response_norm(
        call[0],
        call.attribute("size", 1),
        call.attribute("alpha", 1e-4),
        call.attribute("beta", 0.75),
        call.attribute("bias", 1.0),
    )


def _einsum(call: Call) -> Tensor:
    return torch.einsum(call.attribute("equation", ""), *call.all())


LAYERS: Mapping[str, Operator] = MappingProxyType(
    {
        "AveragePool": _average_pool,
        "BatchNormalization": _batch_norm,
        "Conv": convolution,
        "Einsum": _einsum,
        "Gemm": _gemm,
        "GlobalAveragePool": _global(lambda x, axes: x.mean(axes, keepdim=True)),
        "GlobalMaxPool": _global(lambda x, axes: x.amax(axes, keepdim=True)),
        "GroupNormalization": _group_norm,
        "InstanceNormalization": _instance_norm,
        "LRN": _local_response,
        "LayerNormalization": _layer_norm,
        "MatMul": lambda call: call[0] @ call[1],
        "MaxPool": _max_pool,
    }
)
