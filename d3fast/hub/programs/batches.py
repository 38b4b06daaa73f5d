# SPDX-License-Identifier: Apache-2.0
"""Programs that were exported for a fixed number of images: whether they take any number."""

from dataclasses import replace

import torch

from d3fast.hub.programs.program import Program
from d3fast.io.untrusted import error_text
from d3fast.runtime.seeding import generator

_CLOSE = 1e-4  # of the largest score
_LARGE = 16  # images; a fixed batch of more is kept


@torch.no_grad()
def free_batch(program: Program) -> tuple[str, ...]:
    """Run a program on noise once; let it take any batch if that changes no score.

    Args:
        program: with its weights; ``form.batch`` becomes ``None`` where the scores of single
            images do not depend on it.

    Returns:
        A sentence if the batch was fixed, none otherwise.

    Raises:
        ValueError: a program that does not run.
    """
    form = program.form
    batch = form.batch or 0
    draws = generator(0, "noise for a program")
    images = torch.rand(2 * batch + 1, form.channels, *form.size, generator=draws)
    try:
        expected = program.eval()(images)
    except Exception as error:
        raise ValueError(f"it does not run: {error_text(error)}") from None
    if form.batch is None:
        return ()
    kept = f"Images are given {batch} at a time, the last batch is filled up."
    if batch > _LARGE:
        return (kept,)
    program.form = replace(form, batch=None)
    try:
        found = program(images)
        if found.shape == expected.shape:
            limit = _CLOSE * max(1.0, float(expected.abs().max()))
            if float((found - expected).abs().max()) <= limit:
                return ("Larger batches than the fixed one give the same scores and are used.",)
    except Exception:  # whatever the operators raise on other shapes
        pass
    program.form = form
    return (kept,)
