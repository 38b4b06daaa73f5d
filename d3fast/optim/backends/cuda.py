# SPDX-License-Identifier: Apache-2.0
"""Steps on a CUDA device: tables of addresses that lie on the device, and no waiting for it.

Tables travel through pinned memory, which torch's allocator keeps until the copy is done; they are
renewed only when a gradient moves. While a CUDA graph is captured they travel as arguments of a
launch, which the graph keeps: host memory would be gone, or another's, when it is replayed. With
``capturable=True`` the kernels themselves read an lr or a radius that lies on the device, where it
lies. A graph holds the addresses of the group's tables and of such numbers: it is good as long as
the optimizer lives and its groups, state and set of gradients stay what they were.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends import native
from d3fast.optim.constraints import resolve_bounds


def _upload(host: Tensor, device: torch.device) -> Tensor:
    return host.pin_memory().to(device, non_blocking=True)


IN_OPTIONS = (0, False)


def refuse_capture(device: torch.device) -> None:
    """Raise ``RuntimeError`` while a CUDA graph is captured: tables and state are made before."""
    with torch.cuda.device(device):
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "a CUDA graph cannot capture the first step of a param group; take one step "
                "with the same gradients present before capturing"
            )


class CudaLauncher:
    """Steps through ``_C.CudaPlan`` on the current stream.

    Args:
        tensors: ``theta`` and the columns of one group's state.
        joint: one norm over the group.
    """

    def __init__(self, tensors: Mapping[str, Sequence[Tensor]], joint: bool) -> None:
        self._device = tensors["theta"][0].device
        self._stream = torch.cuda.current_stream(self._device).cuda_stream
        self._native = native.extension.CudaPlan(
            dtypes=native.native_dtypes(tensors),
            columns=native.native_columns(tensors),
            joint=joint,
        )
        table = torch.frombuffer(bytearray(self._native.table), dtype=torch.uint8)
        self._table = _upload(table, self._device)
        self._workspace = torch.zeros(
            self._native.workspace_bytes, dtype=torch.uint8, device=self._device
        )
        norms = [torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors["reference"]]
        self._reference_norms = torch.stack(norms) if norms else None
        self._given: tuple[Sequence[int], Sequence[bool]] | None = None
        self._grads: Tensor | None = None
        self._copies: dict[str, Tensor] = {}

    def step(
        self,
        grads: Sequence[int],
        fresh: Sequence[bool],
        verify: bool,
        group: Mapping[str, Any],
        options: Any | None,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Enqueue the step; what the tables point to must live until the stream has run it."""
        scalars = {"lr": IN_OPTIONS, "lower": IN_OPTIONS, "upper": IN_OPTIONS}
        if options is None:
            options = native.native_options(group, 1.0, on_host=not group["capturable"])
            if group["capturable"]:
                scalars |= self._on_device(group)
        # Named, so that what they point to lives until the launch is enqueued.
        scale, overflow = self._as_float(grad_scale), self._as_float(found_inf)
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            table = self._grad_table((grads, fresh), stream)
            self._native.step(
                device=self._device.index,
                stream=stream.cuda_stream,
                table=self._table.data_ptr(),
                workspace=self._workspace.data_ptr(),
                reference_norms=_address(self._reference_norms),
                grads=table.data_ptr(),
                **scalars,
                grad_scale=_address(scale),
                found_inf=_address(overflow),
                verify=verify,
                options=options,
            )

    def _grad_table(
        self, given: tuple[Sequence[int], Sequence[bool]], stream: torch.cuda.Stream
    ) -> Tensor:
        """Where the kernels find the gradients, given their addresses and which are fresh."""
        if torch.cuda.is_current_stream_capturing():
            # Of the graph alone: a step outside it must not change what a replay reads.
            entries = native.grad_entries(*given)
            table = torch.empty(len(entries), dtype=torch.int64, device=self._device)
            native.extension.cuda_write(
                device=self._device.index,
                stream=stream.cuda_stream,
                to=table.data_ptr(),
                words=entries,
            )
            return table
        moved = stream.cuda_stream != self._stream
        if moved:  # the memory must not be given away while this stream may still read it
            for tensor in (self._table, self._workspace, self._reference_norms):
                if tensor is not None:
                    tensor.record_stream(stream)
        if self._grads is None or moved or given != self._given:
            fresh_table = torch.tensor(native.grad_entries(*given), dtype=torch.int64)
            self._grads = _upload(fresh_table, self._device)
        self._given, self._stream = given, stream.cuda_stream
        return self._grads

    def _as_float(self, value: Tensor | None) -> Tensor | None:
        """What the kernels can read; a scaler may live on another device than the group."""
        return None if value is None else value.to(self._device, torch.float32, non_blocking=True)

    def _on_device(self, group: Mapping[str, Any]) -> dict[str, tuple[int, bool]]:
        """Where the kernels find lr and bounds that the host does not read."""
        bounds = resolve_bounds(group)
        values = {"lr": group["lr"]}
        if bounds is not None:
            values |= {"lower": bounds.lower, "upper": bounds.upper}
        return {name: self._scalar(name, value) for name, value in values.items()}

    def _scalar(self, name: str, value: float | Tensor) -> tuple[int, bool]:
        """Address of a number on the device, 0 for one on the host, and whether it is float64."""
        if not isinstance(value, Tensor) or not native.stays_on_device(value):
            return IN_OPTIONS
        if value.device != self._device or value.dtype not in (torch.float32, torch.float64):
            if name not in self._copies:  # one for good: a graph goes on reading it
                self._copies[name] = torch.empty((), dtype=torch.float64, device=self._device)
            value = self._copies[name].copy_(value.detach().reshape(()))
        return value.data_ptr(), value.dtype == torch.float64


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
