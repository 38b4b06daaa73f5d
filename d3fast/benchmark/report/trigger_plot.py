# SPDX-License-Identifier: Apache-2.0
"""The figure of the triggers: clean images, triggered images and their difference per attack."""

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from d3fast.data import ImageData, as_float
from d3fast.results.plot import STYLE, show_image


@matplotlib.rc_context(STYLE)
def trigger_figure(triggers: Mapping[str, Any], data: ImageData, images: int = 3) -> Figure:
    """Draw one strip per attack: clean, triggered, and five times their difference around grey.

    Args:
        triggers: attacks by name.
        data: source of the images: the first of each class that is no attack's target.
        images: number of images per strip.
    """
    targets = {attack.target for attack in triggers.values()}
    free = [
        c for c in range(len(data.classes)) if c not in targets and bool((data.labels == c).any())
    ]
    chosen = [int((data.labels == label).nonzero()[0]) for label in free[:images]]
    clean = as_float(data.images[chosen])
    columns = 3 * len(chosen)
    figure = Figure(figsize=(columns * 1.05 + 1, 1.12 * len(triggers) + 0.4), layout="constrained")
    grid = figure.subplots(len(triggers), columns, squeeze=False)
    for row, (name, attack) in enumerate(triggers.items()):
        stamped = as_float(attack.trigger(data.images[chosen]))
        difference = (0.5 + 5 * (stamped - clean)).clamp(0, 1)
        for place in range(len(chosen)):
            for offset, kind in enumerate((clean, stamped, difference)):
                axes = grid[row, 3 * place + offset]
                show_image(axes, kind[place])
                if row == 0:
                    axes.set_title(("clean", "triggered", "diff. × 5")[offset], fontsize=9)
        grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    return figure
