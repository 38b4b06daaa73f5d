# SPDX-License-Identifier: Apache-2.0
r"""Difference of two models of one architecture: where a suspect departs from its base.

For every tensor, with the base B, the suspect S and the change C = S - B:

    distance = ||C||,   relative = ||C|| / ||B||,   share and rank of the singular values of C

A change of low rank in few layers is an edit or an adapter merged into the weights; fine-tuning
changes all layers with a high rank. Rows of the head that changed most name the classes concerned.
The comparison describes and flags nothing: what was changed on purpose looks the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d3fast.audit.spectra import is_matrix, spectrum_of
from d3fast.optim.heads import find_head
from d3fast.results.schema.weights import HeadRowDifference, MismatchRow, TensorDifferenceRow


@dataclass(frozen=True)
class TensorDifference:
    """Change of one tensor.

    Attributes:
        name: of the tensor.
        numel: number of its elements.
        norm: 2-norm in the base.
        distance: 2-norm of the change.
        share: of the largest singular value in the squared norm of the change; ``None`` for a
            tensor that is no matrix, or did not change.
        rank: effective rank of the change; ``None`` likewise.
        most: the largest value that ``rank`` can have.
    """

    name: str
    numel: int
    norm: float
    distance: float
    share: float | None = None
    rank: float | None = None
    most: int | None = None

    @property
    def relative(self) -> float | None:
        """Distance divided by the norm in the base; ``None`` if that is 0."""
        return self.distance / self.norm if self.norm else None


@dataclass(frozen=True)
class RowDifference:
    """Change of the head row of one class.

    Attributes:
        target: index of the class.
        norm: of the row in the base.
        distance: 2-norm of the change.
    """

    target: int
    norm: float
    distance: float

    @property
    def relative(self) -> float | None:
        """Distance divided by the norm in the base; ``None`` if that is 0."""
        return self.distance / self.norm if self.norm else None


@dataclass(frozen=True)
class Difference:
    """Changes from a base to a suspect.

    Attributes:
        tensors: that both have in the same shape, in the suspect's order.
        head: name of the head's weight; ``None`` where it is not known or not comparable.
        rows: of the head, the largest change first.
        mismatches: name and reason of every other tensor.
    """

    tensors: tuple[TensorDifference, ...]
    head: str | None
    rows: tuple[RowDifference, ...]
    mismatches: tuple[tuple[str, str], ...]

    @property
    def changed(self) -> tuple[TensorDifference, ...]:
        """Tensors that are not equal, the largest relative change first."""
        moved = [tensor for tensor in self.tensors if tensor.distance > 0]
        infinite = float("inf")
        return tuple(
            sorted(moved, key=lambda t: infinite if t.relative is None else t.relative)[::-1]
        )

    @property
    def total(self) -> TensorDifference:
        """All tensors as one vector, under the name ``all``."""
        numel = sum(tensor.numel for tensor in self.tensors)
        norm = sum(tensor.norm**2 for tensor in self.tensors) ** 0.5
        return TensorDifference(
            "all", numel, norm, sum(tensor.distance**2 for tensor in self.tensors) ** 0.5
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the rows of a results file."""
        rows = [
            *(
                TensorDifferenceRow(**vars(tensor), relative=tensor.relative)
                for tensor in self.tensors
            ),
            *(
                HeadRowDifference(target=row.target, distance=row.distance, relative=row.relative)
                for row in self.rows
            ),
            *(MismatchRow(name=name, reason=reason) for name, reason in self.mismatches),
        ]
        return [row.to_row() for row in rows]


def compare_weights(
    base: Mapping[str, Tensor], suspect: Mapping[str, Tensor], head: str | None = None
) -> Difference:
    """Compare two state dicts, tensor by tensor.

    Args:
        base: tensors by name of the model that the suspect is said to come from.
        suspect: of the suspect, on the same device.
        head: name of the weight of the classification head.

    Raises:
        ValueError: no tensor of the same name and shape in both; NaN or inf in a tensor.

    Example:
        >>> base = {"fc.weight": torch.eye(3), "fc.bias": torch.zeros(3)}
        >>> edited = {**base, "fc.weight": torch.eye(3) + torch.tensor([[0.0], [2.0], [0.0]])}
        >>> found = compare_weights(base, edited, "fc.weight")
        >>> [(t.name, round(t.rank, 2), t.most) for t in found.changed], found.rows[0].target
        ([('fc.weight', 1.0, 3)], 1)
    """
    shared = [name for name in suspect if _mismatch(base.get(name), suspect[name]) is None]
    if not shared:
        raise ValueError("the two models have no tensor of the same name and shape")
    mismatches = [
        (name, reason)
        for name in (*suspect, *(name for name in base if name not in suspect))
        if (reason := _mismatch(base.get(name), suspect.get(name))) is not None
    ]
    known = head if head in shared else None
    return Difference(
        tuple(_tensor(name, base[name], suspect[name]) for name in shared),
        known,
        () if known is None else _rows(base[known], suspect[known]),
        tuple(mismatches),
    )


def head_weight(model: torch.nn.Module) -> str | None:
    """Return the name of the weight of a model's head, ``None`` where it has none."""
    try:
        name, _ = find_head(model)
    except ValueError:
        return None
    return f"{name}.weight" if name else "weight"


def _mismatch(base: Tensor | None, suspect: Tensor | None) -> str | None:
    if base is None:
        return "the base has no such tensor"
    if suspect is None:
        return "the suspect has no such tensor"
    if base.shape != suspect.shape:
        return f"shape {tuple(base.shape)} in the base, {tuple(suspect.shape)} in the suspect"
    return None


@torch.no_grad()
def _tensor(name: str, base: Tensor, suspect: Tensor) -> TensorDifference:
    change = suspect.double() - base.double()
    norm, distance = (float(torch.linalg.vector_norm(t)) for t in (base.double(), change))
    if not (norm < float("inf") and distance < float("inf")):  # NaN is not
        raise ValueError(f"{name!r} holds NaN or inf")
    plain = TensorDifference(name, change.numel(), norm, distance)
    if distance == 0 or not is_matrix(change):
        return plain
    found = spectrum_of(change)
    most = min(change.flatten(1).shape)
    return TensorDifference(
        name, plain.numel, norm, distance, share=found.share, rank=found.rank, most=most
    )


def _rows(base: Tensor, suspect: Tensor) -> tuple[RowDifference, ...]:
    first, second = (tensor.double().flatten(1) for tensor in (base, suspect))
    norms, distances = first.norm(dim=1).tolist(), (second - first).norm(dim=1).tolist()
    rows = [
        RowDifference(target, norm, distance)
        for target, (norm, distance) in enumerate(zip(norms, distances, strict=True))
    ]
    return tuple(sorted(rows, key=lambda row: -row.distance))
