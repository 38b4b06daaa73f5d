# SPDX-License-Identifier: Apache-2.0
"""Rows of weights.json, a look at the weights alone, and of the comparison of two models."""

from typing import Annotated

from msgspec import Meta

from d3fast.results.schema.fields import (
    Count,
    DrawnNonNegative,
    Fraction,
    Name,
    Positive,
    Record,
    Row,
    Sha256,
)


class ScanRow(Row, frozen=True, kw_only=True, tag="scan"):
    """A model whose weights were read.

    Attributes:
        sha256: of the file with the weights.
        parameters: number of weights.
        head: qualified name of the classification head.
        classes: number of its outputs.
    """

    sha256: Sha256
    parameters: Count
    head: Name
    classes: Positive


class SpectrumFields(Record, frozen=True, kw_only=True):
    """A matrix and its singular values; see ``d3fast.audit.spectra``.

    Attributes:
        outputs: rows of the matrix.
        inputs: its columns: inputs of the layer, times the size of a kernel.
        norm: Frobenius norm.
        top: largest singular value.
        share: of the largest singular value in the squared norm.
        rank: effective rank.
    """

    outputs: Positive
    inputs: Positive
    norm: DrawnNonNegative
    top: DrawnNonNegative
    share: Fraction
    rank: DrawnNonNegative


class LayerSpectrumRow(SpectrumFields, Row, frozen=True, kw_only=True, tag="layer"):
    """Spectrum of one weight matrix.

    Attributes:
        name: of the weight.
    """

    name: Name


class TensorDifferenceRow(Row, frozen=True, kw_only=True, tag="difference"):
    """Change of one tensor from a base to a suspect.

    Attributes:
        name: of the tensor.
        numel: number of its elements.
        norm: 2-norm in the base.
        distance: 2-norm of the change.
        relative: distance / norm; ``None`` where the norm is 0.
        share: of the largest singular value in the squared norm of the change; ``None`` for a
            tensor that is no matrix, or did not change.
        rank: effective rank of the change; ``None`` likewise.
        most: the largest value that ``rank`` can have.
    """

    name: Name
    numel: Count
    norm: DrawnNonNegative
    distance: DrawnNonNegative
    relative: DrawnNonNegative | None = None
    share: Fraction | None = None
    rank: DrawnNonNegative | None = None
    most: Positive | None = None


class HeadRowDifference(Row, frozen=True, kw_only=True, tag="head_row"):
    """Change of the head row of one class.

    Attributes:
        target: index of the class.
        distance: 2-norm of the change of its row.
        relative: distance / norm of the row in the base; ``None`` where that is 0.
    """

    target: Count
    distance: DrawnNonNegative
    relative: DrawnNonNegative | None = None


class MismatchRow(Row, frozen=True, kw_only=True, tag="mismatch"):
    """A tensor that only one of the two models has, or that has another shape.

    Attributes:
        name: of the tensor.
        reason: the difference in words.
    """

    name: Name
    reason: Annotated[str, Meta(extra={"characters": 120})]
