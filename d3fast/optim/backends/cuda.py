# SPDX-License-Identifier: Apache-2.0
"""Steps on a CUDA device, without waiting for it.

The extension owns a plan's tables and workspace; they lie in one allocation made here, so that it
comes from torch's allocator. Tables travel as arguments of launches, which a captured graph keeps:
host memory would be gone, or another's, when it is replayed.
Gradients' addresses are arguments of the step itself; beyond 224 tensors they are a table, renewed
only when a gradient moves. With ``capturable=True`` the kernels read an lr or a radius that lies on
the device. A graph holds the addresses of the group's tensors, tables and such numbers; ``Plans``
keeps them alive as long as the optimizer lives. The gradients are the caller's to keep.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from d3fast.optim.backends import native

if TYPE_CHECKING:
    from d3fast import _C


def refuse_capture(device: torch.device) -> None:
    """Raise ``RuntimeError`` while a CUDA graph is captured: tables and state are made before."""
    with torch.cuda.device(device):
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "a CUDA graph cannot capture the first step of a param group; take one step "
                "with the same gradients present before capturing"
            )


NORM_PIECE = 1 << 22  # elements; in float64 32 MiB


def euclidean_norm(tensor: Tensor) -> Tensor:
    """Return ``||tensor||`` as a 0-dim float64 tensor on its device; the tensor is dense."""
    # Piece by piece: torch would first copy the whole tensor to float64.
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    pieces = [
        torch.linalg.vector_norm(x, dtype=torch.float64) for x in torch.split(flat, NORM_PIECE)
    ]
    return torch.linalg.vector_norm(torch.stack(pieces)) if len(pieces) > 1 else pieces[0]


class CudaLauncher:
    """Steps through ``_C.CudaPlan`` on the current stream.

    Args:
        tensors: ``theta`` and the columns of one group's state.
        joint_norm: one norm over the group.
        shard: given where the tensors are parts of larger ones.

    Attributes:
        lag: chunks updated between the last one of a norm group and its projection, for
            experiments; 0 for as many as the GPU holds at a time.
    """

    lag = 0

    def __init__(
        self,
        tensors: Mapping[str, Sequence[Tensor]],
        joint_norm: bool,
        shard: native.Shard | None = None,
    ) -> None:
        self._device = tensors["theta"][0].device
        self._stream = torch.cuda.current_stream(self._device).cuda_stream
        plan = native.extension.CudaPlan(**native.plan_arguments(tensors, joint_norm, shard))
        self._memory = torch.zeros(plan.memory_bytes, dtype=torch.uint8, device=self._device)
        if shard is not None:
            self._reference_norms: Tensor | None = shard.reference_norms
        else:
            norms = [euclidean_norm(t) for t in tensors["reference"]]
            self._reference_norms = torch.stack(norms) if norms else None
        self._copies: dict[str, Tensor] = {}
        self._scalars: dict[str, Tensor] = {}  # options that the coming step reads on the device
        self._captured_scalars: list[Tensor] = []  # those that graphs read
        self.captured = False
        with torch.cuda.device(self._device):
            plan.attach(
                device=self._device.index,
                stream=self._stream,
                memory=self._memory.data_ptr(),
                reference_norms=_address(self._reference_norms),
                lag=self.lag,
            )
        self.plan: _C.Plan = plan

    def options(self, group: Mapping[str, Any]) -> "_C.StepOptions":
        """Return the options of a group; ``capturable`` leaves tensors to the kernels."""
        return native.step_options(group, self._scalar if group["capturable"] else None)

    def executor(self) -> int | None:
        """Return the current stream, ``None`` where another device than the group's is current."""
        return self._use_stream() if torch.cuda.current_device() == self._device.index else None

    def step(
        self,
        grads: Sequence[int],
        first_step: Sequence[bool],
        verify: bool,
        options: "_C.StepOptions",
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        **part: Any,
    ) -> bool:
        """Enqueue the step; see ``native.Launcher``. The tensors must live until it has run."""
        # Named, so that their memory is not given away before the launch is enqueued.
        scale, overflow = self._as_float(grad_scale), self._as_float(found_inf)
        with torch.cuda.device(self._device):
            return self.plan.step(
                grads=grads,
                first_step=first_step,
                verify=verify,
                options=options,
                grad_scale=1.0 if scale is None else _on_device(scale),
                found_inf=0.0 if overflow is None else _on_device(overflow),
                executor=self._use_stream(),
                **part,
            )

    def _use_stream(self) -> int:
        """Return the current stream, and keep what the step reads until it is done with it."""
        stream = torch.cuda.current_stream(self._device)
        if torch.cuda.is_current_stream_capturing():
            self.captured = True
            kept = {id(t) for t in self._captured_scalars}
            self._captured_scalars += [t for t in self._scalars.values() if id(t) not in kept]
        elif stream.cuda_stream != self._stream:
            for tensor in (self._memory, self._reference_norms):
                if tensor is not None:
                    tensor.record_stream(stream)
            self._stream = stream.cuda_stream
        return stream.cuda_stream

    def _as_float(self, value: Tensor | None) -> Tensor | None:
        """Return a number in the kernels' form; a scaler may live on another device."""
        return None if value is None else value.to(self._device, torch.float32, non_blocking=True)

    def _scalar(self, name: str, value: float | Tensor) -> "float | _C.Scalar":
        """Return the address of a number on a device, or the number where the host has it."""
        if not isinstance(value, Tensor) or not value.is_cuda:
            return float(value)
        if value.device != self._device or value.dtype not in (torch.float32, torch.float64):
            if name not in self._copies:  # one for good: a graph goes on reading it
                self._copies[name] = torch.empty((), dtype=torch.float64, device=self._device)
            value = self._copies[name].copy_(value.detach().reshape(()))
        return self._remember(name, value)

    def _remember(self, name: str, value: Tensor) -> "_C.Scalar":
        self._scalars[name] = value
        return _on_device(value)


def _on_device(value: Tensor) -> "_C.Scalar":
    return native.extension.Scalar(device=value.data_ptr(), is_double=value.dtype == torch.float64)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
