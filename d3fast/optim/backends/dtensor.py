# SPDX-License-Identifier: Apache-2.0
"""DTensors: local parts, and sums over the ranks of a device mesh.

FSDP2 and tensor parallelism keep a parameter as a ``DTensor``: every rank of a device mesh holds
a local part, and one placement per mesh dimension says whether the ranks along it hold different
parts (``Shard``) or the same (``Replicate``). The optimizer keeps the reference and the momentum of
a parameter as DTensors with the same placements, so that ``torch.distributed.checkpoint`` saves
them and loads them at another world size.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor


def is_dtensor(tensor: Any) -> bool:
    """Return whether a tensor is a DTensor, without the import of DTensor, which takes 1 s."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def is_sharded(group: Mapping[str, Any]) -> bool:
    """Return whether any parameter of a group is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")  # once: every step asks every group
    return module is not None and any(isinstance(p, module.DTensor) for p in group["params"])


def local(tensor: Any) -> Tensor:
    """Return the local part of a DTensor, the same object every time, or a plain tensor itself."""
    # `to_local` makes a new object of a parameter's part each time.
    part = getattr(tensor, "_local_tensor", tensor)
    wait = getattr(part, "wait", None)  # of a part that a collective is still writing
    return part if wait is None else wait()


def local_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a param group of this rank's parts, with the same options."""
    return {**group, "params": [local(p) for p in group["params"]]}


def with_local(part: Tensor, like: Any) -> Tensor:
    """Return a DTensor with this local part and the shape and placements of another one.

    A plain tensor ``like`` has no other part: ``part`` itself is returned.
    """
    if not is_dtensor(like):
        return part
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def mesh_of(tensor: Any) -> Any | None:
    """Return the device mesh of a DTensor, ``None`` for a plain tensor."""
    return tensor.device_mesh if is_dtensor(tensor) else None


def counts_here(tensor: Any) -> bool:
    """Return whether this rank's part enters a sum over the mesh: replicas count once."""
    if not is_dtensor(tensor):
        return True
    at = tensor.device_mesh.get_coordinate()
    return at is not None and all(
        i == 0
        for i, placement in zip(at, tensor.placements, strict=True)
        if placement.is_replicate()
    )


def check_placements(group: Mapping[str, Any]) -> None:
    """Check that norms of the parameters can be summed over the ranks.

    Raises:
        ValueError: a parameter with a ``Partial`` placement; ``scope="group"`` over parameters
            that do not all lie on one mesh.
    """
    for p in filter(is_dtensor, group["params"]):
        if any(placement.is_partial() for placement in p.placements):
            raise ValueError(
                f"params must be sharded or replicated, got a DTensor placed {p.placements}"
            )
    if group["scope"] != "group":
        return
    first = mesh_of(group["params"][0])
    if any(mesh_of(p) != first for p in group["params"]):
        raise ValueError(
            "scope='group' needs all parameters of a group on one device mesh, "
            "got several meshes or DTensors beside plain tensors; scope='tensor' takes them"
        )


def check_not_replaced() -> None:
    """Check that a step without gradients is not due to parameters that were replaced.

    ``fully_shard`` and ``parallelize_module`` replace the parameters of a model.

    Raises:
        ValueError: this process is one of a distributed run.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise ValueError(
            "no parameter of the optimizer has a gradient: build it after fully_shard and "
            "parallelize_module, which replace the parameters of a model"
        )


def placed(tensor: Tensor, param: Tensor, what: str) -> Tensor:
    """Return a tensor with the mesh and placements of a parameter of the same shape.

    Args:
        tensor: the full tensor, the same on every rank, or a DTensor.
        param: the parameter; where it is a plain tensor, ``tensor`` must be one.
        what: name of the tensor in the error.

    Raises:
        ValueError: a DTensor for a plain parameter, or one on another mesh.
    """
    mesh: Any = mesh_of(param)
    theirs: Any = mesh_of(tensor)
    if mesh is None and theirs is None:
        return tensor
    if theirs is None:
        return _distributed(tensor, param)
    if theirs != mesh:
        here = "is a plain tensor" if mesh is None else f"is on one of {mesh.size()} ranks"
        raise ValueError(
            f"{what} is on a mesh of {theirs.size()} ranks, its parameter {here}: "
            "torch.distributed.checkpoint loads a state at another world size"
        )
    given: Any = tensor
    like: Any = param
    if given.placements == like.placements:
        return tensor
    moved: Tensor = given.redistribute(mesh, like.placements)
    return moved


def _distributed(whole: Tensor, param: Any) -> Tensor:
    from torch.distributed.tensor import distribute_tensor

    # Every rank has the full tensor and keeps its part: nothing is sent.
    return distribute_tensor(
        whole.to(local(param).device), param.device_mesh, param.placements, src_data_rank=None
    )


def all_reduce(numbers: Tensor, mesh: Any | None, largest: bool = False) -> Tensor:
    """Sum numbers over all ranks of a mesh, in place; every rank gets the same bits.

    Args:
        numbers: any shape, on the mesh's device.
        mesh: the device mesh; ``None`` leaves the numbers unchanged.
        largest: take the maximum instead of the sum.
    """
    from torch import distributed as dist

    for process_group in _process_groups(mesh):
        op = dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM
        dist.all_reduce(numbers, op=op, group=process_group)
    return numbers


def _process_groups(mesh: Any | None) -> list[Any]:
    """Return the process group of each dimension of a mesh that has other ranks."""
    if mesh is None or mesh.get_coordinate() is None:
        return []
    return [mesh.get_group(i) for i in range(mesh.ndim) if mesh.size(i) > 1]


class Started:
    """A sum over the ranks of a mesh that is under way.

    Args:
        numbers: summed in place.
        mesh: the device mesh.
    """

    def __init__(self, numbers: Tensor, mesh: Any) -> None:
        from torch import distributed as dist

        self._numbers, self._mesh, self._work, self._done = numbers, mesh, None, None
        if numbers.is_cuda:
            side, here = _side_stream(numbers.device), torch.cuda.current_stream(numbers.device)
            side.wait_stream(here)
            with torch.cuda.stream(side):
                all_reduce(numbers, mesh)
                self._done = side.record_event()
            return
        self._groups = _process_groups(mesh)
        if self._groups:
            self._work = dist.all_reduce(numbers, group=self._groups[0], async_op=True)

    def wait(self) -> None:
        """Wait for the sum; on a GPU the current stream does and not the host."""
        if self._done is not None:
            torch.cuda.current_stream(self._numbers.device).wait_event(self._done)
        elif self._work is not None:
            from torch import distributed as dist

            self._work.wait()
            for process_group in self._groups[1:]:
                dist.all_reduce(self._numbers, group=process_group)


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def all_reduce_rows(rows: Tensor, tensors: Sequence[Tensor], footer: Tensor) -> Tensor:
    """Sum rows of numbers, one per tensor, over the ranks that hold the tensor's parts.

    Args:
        rows: (tensors, columns), this rank's share.
        tensors: parameters; those on one mesh share one all-reduce.
        footer: (columns), summed over every mesh beside the rows.

    Returns:
        (tensors + 1, columns): the sums, and in the last row the largest of the meshes' footers.
    """
    meshes: list[Any] = []
    for tensor in tensors:
        if mesh_of(tensor) not in meshes:
            meshes.append(mesh_of(tensor))
    totals, below = rows.clone(), footer.clone()
    for mesh in meshes:
        at = [i for i, tensor in enumerate(tensors) if mesh_of(tensor) == mesh]
        mine = torch.cat([rows[at], footer[None]])
        pack = all_reduce(mine.to(local(tensors[at[0]]).device), mesh).to(rows.device)
        totals[at], below = pack[:-1], torch.maximum(below, pack[-1])
    return torch.cat([totals, below[None]])


def check_equal_draws(drawn: Tensor, param: Tensor) -> None:
    """Check that every rank has drawn the same random numbers.

    Raises:
        ValueError: on every rank of the mesh.
    """
    sample = drawn.flatten()[:64].to(local(param).device, torch.float64)
    ends = all_reduce(torch.stack([sample, -sample]), mesh_of(param), largest=True)
    if not torch.equal(ends[0], -ends[1]):
        raise ValueError(
            "warm_start draws other numbers on each rank: "
            "give every rank a generator with the same seed"
        )


def gather(value: Any, mesh: Any) -> list[Any]:
    """Return the values that all ranks of a mesh give, the same list on every rank."""
    values = [value]
    for dimension in range(mesh.ndim):
        found: list[Any] = [None] * mesh.size(dimension)
        torch.distributed.all_gather_object(found, values, group=mesh.get_group(dimension))
        values = [each for those in found for each in those]
    return values
