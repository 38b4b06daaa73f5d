# SPDX-License-Identifier: Apache-2.0
"""Operators of ONNX that move, cut, join and reduce values."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from d3fast.hub.programs.onnx_call import Call, Operator
from d3fast.hub.programs.onnx_layers import padded
from d3fast.io.onnx_tensors import DTYPES, StoredTensor
from d3fast.io.untrusted import printable


def computed_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that d3fast computes in: float32 for all floating point."""
    return torch.float32 if dtype.is_floating_point else dtype


def _dtype(number: int) -> torch.dtype:
    found = DTYPES.get(number)
    if found is None:
        raise ValueError(f"a value of dtype number {number}")
    return computed_dtype(found)


def _flatten(call: Call) -> Tensor:
    x, axis = call[0], call.attribute("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1)


def _reshape(call: Call) -> Tensor:
    x, shape = call[0], call.needed(1, "shape")
    if not call.attribute("allowzero", 0):
        shape = [x.shape[at] if size == 0 else size for at, size in enumerate(shape)]
    return x.reshape(tuple(shape))


def _transpose(call: Call) -> Tensor:
    axes = call.ints(99, "perm")
    return call[0].permute(axes or list(reversed(range(call[0].ndim))))


def _squeeze(call: Call) -> Tensor:
    axes = call.ints(1, "axes")
    return call[0].squeeze() if axes is None else call[0].squeeze(tuple(axes))


def _unsqueeze(call: Call) -> Tensor:
    x, axes = call[0], call.needed(1, "axes")
    rank = x.ndim + len(axes)
    for axis in sorted(axis + rank if axis < 0 else axis for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _split(call: Call) -> Sequence[Tensor]:
    x, axis = call[0], call.attribute("axis", 0)
    sizes = call.ints(1, "split")
    if sizes is None:
        parts = call.attribute("num_outputs", len(call.node.outputs))
        each = -(-x.shape[axis] // parts)
        return torch.split(x, max(each, 1), axis)
    return torch.split(x, sizes, axis)


def _slice(call: Call) -> Tensor:
    x = call[0]
    starts, ends = call.needed(1, "starts"), call.needed(2, "ends")
    axes = call.ints(3, "axes") or list(range(len(starts)))
    steps = call.ints(4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        picked = range(*slice(start, end, step).indices(x.shape[axis]))
        if step > 0:
            index = [slice(None)] * (axis % x.ndim) + [slice(start, end, step)]
            x = x[tuple(index)]
        else:
            x = x.index_select(axis, torch.tensor(picked, dtype=torch.int64).to(x.device))
    return x


def _gather(call: Call) -> Tensor:
    x, index, axis = call[0], call.fixed(1).long(), call.attribute("axis", 0)
    axis = axis + x.ndim if axis < 0 else axis
    index = torch.where(index < 0, index + x.shape[axis], index)
    if bool(((index < 0) | (index >= x.shape[axis])).any()):
        raise ValueError(f"Gather picks outside of {x.shape[axis]} entries")
    found = x.index_select(axis, index.flatten().to(x.device))
    return found.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _cast(call: Call, dtype: torch.dtype) -> Tensor:
    x = call[0]
    if x.is_meta and x.is_floating_point() and not (dtype.is_floating_point or dtype == torch.bool):
        raise ValueError("it rounds what depends on the pixels to whole numbers: no gradient")
    return x.to(dtype)


def _shape(call: Call) -> Tensor:
    shape = list(call[0].shape)
    whole = slice(call.attribute("start", 0), call.node.attributes.get("end"))
    return torch.tensor(shape[whole], dtype=torch.int64)


def _constant_of_shape(call: Call) -> Tensor:
    stored = call.node.attributes.get("value")
    value = stored.read() if isinstance(stored, StoredTensor) and stored.count == 1 else None
    filled = torch.zeros(1) if value is None else value.to(computed_dtype(value.dtype))
    shape = call.needed(0, "shape")
    return torch.full(shape, filled.item(), dtype=filled.dtype, device=call.device)


def _expand(call: Call) -> Tensor:
    x = call[0]
    shape = torch.broadcast_shapes(x.shape, call.needed(1, "shape"))  # type: ignore[no-untyped-call]
    return x.expand(shape)


def _range(call: Call) -> Tensor:
    start, end, step = (call.numbers(at, "")[0] for at in range(3))  # type: ignore[index]
    return torch.arange(start, end, step, dtype=call[0].dtype, device=call.device)


def _pad(call: Call) -> Tensor:
    x, pads = call[0], call.needed(1, "pads")
    axes = call.ints(3, "axes")
    if axes is not None:
        whole = [0] * 2 * x.ndim
        for at, axis in enumerate(axes):
            whole[axis % x.ndim], whole[x.ndim + axis % x.ndim] = pads[at], pads[len(axes) + at]
        pads = whole
    mode = call.attribute("mode", "constant")
    if mode == "constant":
        value = call.numbers(2, "value") or [0.0]
        return padded(x, pads, value[0])
    rank = x.ndim - 2
    inner = [*pads[2 : x.ndim], *pads[x.ndim + 2 :]]
    turned = [inner[side * rank + at] for at in reversed(range(rank)) for side in (0, 1)]
    names = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in names or any(pads[:2] + pads[x.ndim : x.ndim + 2]):
        raise ValueError(f"Pad with mode '{printable(mode, 40)}' on these dimensions")
    return functional.pad(x, turned, mode=names[mode])


def _resize(call: Call) -> Tensor:
    x, old = call[0], call.node.op == "Upsample" or call.opset < 11
    scales = call.numbers(1 if old else 2, "scales")
    sizes = None if old else call.ints(3, "sizes")
    axes = call.ints(99, "axes") or list(range(x.ndim))
    wanted = list(x.shape)
    for at, axis in enumerate(axes):
        if sizes:
            wanted[axis] = sizes[at]
        elif scales:
            wanted[axis] = int(x.shape[axis] * scales[at])
    if wanted[:2] != list(x.shape[:2]):
        raise ValueError("Resize of other dimensions than height and width")
    default = "asymmetric" if old else "half_pixel"
    where = call.attribute("coordinate_transformation_mode", default)
    mode = call.attribute("mode", "nearest")
    if mode == "nearest":
        how = {"asymmetric": "nearest", "half_pixel": "nearest-exact"}.get(where)
        if how is not None:
            return functional.interpolate(x, wanted[2:], mode=how)
    how = {"linear": "bilinear", "cubic": "bicubic"}.get(mode)
    if how is None or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise ValueError(f"Resize of mode {printable(f'{mode}, {where}', 60)}")
    return functional.interpolate(x, wanted[2:], mode=how, align_corners=where == "align_corners")


def _depth_to_space(call: Call) -> Tensor:
    x, size = call[0], call.attribute("blocksize", 1)
    n, c, h, w = x.shape
    if call.attribute("mode", "DCR") == "DCR":
        x = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, c // size**2, size, size, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, c // size**2, h * size, w * size)


def _space_to_depth(call: Call) -> Tensor:
    x, size = call[0], call.attribute("blocksize", 1)
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * size**2, h // size, w // size)


def _reduced(reduce: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def run(call: Call) -> Tensor:
        x, axes = call[0], call.ints(1, "axes")
        if not axes:
            if call.attribute("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return reduce(x, axes, bool(call.attribute("keepdims", 1)))

    return run


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


SHAPES: Mapping[str, Operator] = MappingProxyType(
    {
        "Cast": lambda call: _cast(call, _dtype(call.attribute("to", 0))),
        "CastLike": lambda call: _cast(call, call[1].dtype),
        "Concat": lambda call: torch.cat(call.all(), call.attribute("axis", 0)),
        "ConstantOfShape": _constant_of_shape,
        "DepthToSpace": _depth_to_space,
        "Dropout": lambda call: call[0],
        "Expand": _expand,
        "Flatten": _flatten,
        "Gather": _gather,
        "Identity": lambda call: call[0],
        "Pad": _pad,
        "Range": _range,
        "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
        "ReduceL2": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
        "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
        "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
        "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
        "ReduceProd": _reduced(_product),
        "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
        "ReduceSumSquare": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
        "Reshape": _reshape,
        "Resize": _resize,
        "Shape": _shape,
        "Size": lambda call: torch.tensor(call[0].numel()),
        "Slice": _slice,
        "SpaceToDepth": _space_to_depth,
        "Split": _split,
        "Squeeze": _squeeze,
        "Tile": lambda call: call[0].repeat(call.needed(1, "repeats")),
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
        "Upsample": _resize,
    }
)
