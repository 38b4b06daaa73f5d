# SPDX-License-Identifier: Apache-2.0
"""Steps on a CUDA device: tables of addresses that lie on the device, and no waiting for it.

Tables travel through pinned memory, which torch's allocator keeps until the copy is done; they are
renewed only when a gradient moves. With ``capturable=True`` the kernels themselves read an lr or a
radius that lies on the device.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast import _C
from d3fast.optim.constraints import resolve_bounds
from d3fast.optim.fused import native_options, stays_on_device


def _upload(host: Tensor, device: torch.device) -> Tensor:
    return host.pin_memory().to(device, non_blocking=True)


class CudaLauncher:
    """Steps through ``_C.CudaPlan`` on the current stream.

    Args:
        tensors: columns ``theta``, ``reference``, ``momentum``, ``distance`` of one group.
        joint: one norm over the group.
    """

    def __init__(self, tensors: Mapping[str, Sequence[Tensor]], joint: bool) -> None:
        theta = tensors["theta"]
        self._device = theta[0].device
        self._native = _C.CudaPlan(
            dtype=str(theta[0].dtype).removeprefix("torch."),
            numel=[t.numel() for t in theta],
            joint=joint,
            **{name: [t.data_ptr() for t in column] for name, column in tensors.items()},
        )
        table = torch.frombuffer(bytearray(self._native.table), dtype=torch.uint8)
        self._table = _upload(table, self._device)
        self._workspace = torch.zeros(
            self._native.workspace_bytes, dtype=torch.uint8, device=self._device
        )
        norms = [torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors["reference"]]
        self._reference_norms = torch.stack(norms) if norms else None
        self._entries: list[int] = []
        self._stream = 0
        self._grads: Tensor | None = None
        self._scalars: Tensor | None = None

    def step(
        self,
        grads: Sequence[Tensor],
        fresh: Sequence[bool],
        verify: bool,
        group: Mapping[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Enqueue the step; what the tables point to must live until the stream has run it."""
        entries = [x for g, f in zip(grads, fresh, strict=True) for x in (g.data_ptr(), int(f))]
        stream = torch.cuda.current_stream(self._device).cuda_stream
        if self._grads is None or entries != self._entries or stream != self._stream:
            self._entries, self._stream = entries, stream
            self._grads = _upload(torch.tensor(entries, dtype=torch.int64), self._device)
        self._native.step(
            device=self._device.index,
            stream=stream,
            table=self._table.data_ptr(),
            workspace=self._workspace.data_ptr(),
            reference_norms=_address(self._reference_norms),
            grads=self._grads.data_ptr(),
            scalars=self._device_scalars(group) if group["capturable"] else 0,
            grad_scale=_address(_as_float(grad_scale)),
            found_inf=_address(_as_float(found_inf)),
            verify=verify,
            options=native_options(group, 1.0, on_host=not group["capturable"]),
        )

    def _device_scalars(self, group: Mapping[str, Any]) -> int:
        """Address of (lr, lower, upper) on the device, NaN where the value is a plain number."""
        bounds = resolve_bounds(group)
        values = (group["lr"], *((bounds.lower, bounds.upper) if bounds else (math.nan, math.nan)))
        if not any(stays_on_device(v) for v in values):
            return 0
        if self._scalars is None:
            self._scalars = torch.full((3,), math.nan, dtype=torch.float64, device=self._device)
        for slot, value in zip(self._scalars, values, strict=True):
            if stays_on_device(value):
                slot.copy_(value.reshape(()))
            else:
                slot.fill_(math.nan)
        return self._scalars.data_ptr()


def _as_float(value: Tensor | None) -> Tensor | None:
    if value is not None and value.dtype != torch.float32:
        raise ValueError(f"grad_scale and found_inf must be float32, got {value.dtype}")
    return value


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
