# SPDX-License-Identifier: Apache-2.0
"""What a program takes to run, found before its weights are read, and refused where it is too much.

The program runs on the meta device: shapes without values. Only values that decide shapes, such as
the size that a reshape is given, are computed, each after a look at how large it will be. A graph
of a few hundred bytes can ask for terabytes, or for years; there are no loops in it, so that this
one run tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from d3fast.hub.programs.program import Program, Step
from d3fast.io.untrusted import error_text, printable

MAX_VALUE = 2**28  # bytes of one value, for one image
MAX_VALUES = 2**33  # bytes of all values, for one image
MAX_FLOPS = 2**40  # of products, for one image
PASS_VALUE, PASS_FLOPS = 2**31, 2**42  # bytes of one value and products, for a fixed batch
MAX_KNOWN = 2**16  # elements of a value that decides shapes
_META = torch.device("meta")


@dataclass(frozen=True)
class Cost:
    """What one image takes.

    Attributes:
        classes: number of scores.
        nbytes: of all values together; a run without gradients holds a part of them.
        flops: of products and convolutions.
    """

    classes: int
    nbytes: int
    flops: int


class _Meter:
    """Runs steps on the meta device and adds up what they make; see ``Watch``."""

    def __init__(self, images: int) -> None:
        self.images, self.nbytes = images, 0

    def __call__(self, program: Program, step: Step, values: Mapping[str, Any]) -> Sequence[Any]:
        given = [values[name] for name in step.inputs if name]
        known = not any(isinstance(each, Tensor) and each.is_meta for each in given)
        made = step(program, values, _META)
        for value in made:
            self._count(value)
        if known and all(_small(value) for value in made):
            return step(program, values)
        return made

    def _count(self, value: Any) -> None:
        nbytes = value.numel() * value.element_size() if isinstance(value, Tensor) else 0
        self.nbytes += nbytes
        if nbytes > min(self.images * MAX_VALUE, PASS_VALUE):
            raise ValueError(f"a value of {nbytes:,} bytes is more than {MAX_VALUE:,} per image")
        if self.nbytes > self.images * MAX_VALUES:
            raise ValueError(f"its values are more than {MAX_VALUES:,} bytes per image")


def _small(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.numel() <= MAX_KNOWN


@torch.no_grad()
def measure(program: Program) -> Cost:
    """Return what one image takes.

    Args:
        program: on the meta device, but for its constants.

    Raises:
        ValueError: operators that do not fit their inputs; a result that is no row of scores per
            image; for an image, more than 256 MiB for a value, 8 GiB for all, or 2^40 products; for
            a fixed batch, more than 2 GiB for a value or 2^42 products.
    """
    form = program.form
    images = form.batch or 2
    meter = _Meter(images)
    given = torch.empty(images, form.channels, *form.size, device=_META)
    if given.numel() * 4 > images * MAX_VALUE:
        raise ValueError(f"its input of {'x'.join(map(str, given.shape[1:]))} is too large")
    try:
        with FlopCounterMode(display=False) as counter:
            scores = program.eval().run(given, meter)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"it does not run: {error_text(error)}") from None
    flops = counter.get_total_flops()
    if flops > min(images * MAX_FLOPS, PASS_FLOPS):
        raise ValueError(f"it takes {flops // images:,} operations per image, more than allowed")
    if scores.ndim != 2 or len(scores) != images or scores.shape[1] < 2:
        shape = printable("x".join(map(str, scores.shape)), 60)
        raise ValueError(f"its output for {images} images has the shape {shape}, no row of scores")
    return Cost(scores.shape[1], meter.nbytes // images, flops // images)
